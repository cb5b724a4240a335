"""Settings that say how much and how long, as peers and senders see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.relaying_server import relaying_server, submit
from tests.support.serving import IAIN, Wire, begin_data, maildir, new_server, smtp
from tests.support.smtp_peer import SmtpPeer, smtp_peer


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    """A host that puts everybody off."""
    with smtp_peer(SmtpPeer({"RCPT": "450 4.2.0 come again"})) as running:
        yield running


def test_a_sender_is_told_that_mail_still_waits(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port, {"queue": {"delay_notice": 1}}) as running:
        submit(running, "ann@example.net")
        inbox = maildir(running, IAIN)
        until(lambda: list(inbox.glob("new/*")), "a report is delivered")
        (report,) = inbox.glob("new/*")
        text = report.read_text()
    assert "Action: delayed\n" in text
    assert "450 4.2.0 come again" in text


def test_a_queue_that_is_full_takes_no_more(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port, {"queue": {"max_waiting": 1}}) as running:
        submit(running, "ann@example.net")
        with smtp(running.smtp_port) as wire:
            begin_data(wire, "bob@example.net")
            wire.send(b"\r\n.\r\n")
            assert wire.reply().startswith("452 4.3.1 ")
            begin_data(wire, IAIN)
            wire.send(b"\r\n.\r\n")
            assert wire.reply().startswith("250 "), "it need not wait"


def test_a_worker_has_so_many_connections(tmp_path: Path) -> None:
    with new_server(tmp_path / "i", {"server": {"max_connections": 1}}) as running:
        until(lambda: "event=session_closed" in running.log(), "whoever saw it start is gone")
        with Wire(running.pop3_port) as first, Wire(running.smtp_port) as second:
            assert first.line().startswith("+OK ")
            assert second.reply().startswith("421 4.3.2 ")
            assert second.at_end()
