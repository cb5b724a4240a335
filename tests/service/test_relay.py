"""Mail for elsewhere through a whole instance: accepted, queued, and handed to other hosts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.load import FILE_NAME
from tests.support.instance import Instance, until
from tests.support.ports import free_port
from tests.support.relaying_server import relaying_server, submit
from tests.support.serving import IAIN, LOOPBACK, maildir, reload, start
from tests.support.smtp_peer import SmtpPeer, smtp_peer

IMPATIENT = """
import sys
from restante.queue import retry
from restante.relay import health

retry.FIRST_BACK_OFF = retry.REMOTE_STEP = health.FIRST_REST = 0.5

from restante.cli import main
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, which leaves hosts alone for half a second only."""


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    with smtp_peer(SmtpPeer()) as running:
        yield running


def finished(running: Instance, messages: int) -> bool:
    return running.log().count("event=message_finished") == messages


def test_mail_for_elsewhere_is_delivered_there(tmp_path: Path, peer: SmtpPeer) -> None:
    peer.says["END"] = "250 2.0.0 queued as 4711"
    with relaying_server(tmp_path / "i", peer.port) as running:
        submit(running, "ann@example.net", "bob@example.net", "eve@example.org", IAIN)
        until(lambda: finished(running, 1), "everybody has it")
        log = running.log()
    assert len(peer.contents) == 2, "one transaction for each destination"
    for content in peer.contents:
        assert content.endswith(b"Subject: for elsewhere\r\n\r\nhello\r\n")
    assert len(list((maildir(running, IAIN) / "new").iterdir())) == 1
    (line, *others) = re.findall(r"event=sent .*", log)
    assert len(others) == 2
    assert f"address={LOOPBACK}:{peer.port}" in line
    assert "250 2.0.0 queued as 4711" in line


def test_a_refusal_comes_back_in_the_words_of_the_host(tmp_path: Path, peer: SmtpPeer) -> None:
    peer.says["RCPT"] = "550 5.1.1 nobody of that name"
    with relaying_server(tmp_path / "i", peer.port) as running:
        submit(running, "ann@example.net", "x@none.example", "y@nowhere.example")
        until(lambda: finished(running, 2), "the report is delivered")
        (report,) = (maildir(running, IAIN) / "new").iterdir()
        text = report.read_text()
    assert "550 5.1.1 nobody of that name" in text
    assert "5.1.10" in text
    assert "5.1.2" in text
    assert "mx.example.net" in text


def test_one_dead_destination_holds_up_no_other(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        for number in range(50):
            submit(running, f"x{number}@dead.example")
        submit(running, "ann@example.net")
        until(lambda: len(peer.contents) == 1, "the living one has its message")


def test_a_destination_that_is_down_gets_its_mail_later(tmp_path: Path) -> None:
    """By itself; by these settings of nobody's within a second, not a minute."""
    port = free_port()
    with relaying_server(tmp_path / "i", port) as running:
        assert running.stop() == 0
        running.within = [sys.executable, "-c", IMPATIENT]
        start(running)
        submit(running, "ann@example.net")
        until(lambda: "event=relay_failed" in running.log(), "an attempt")
        assert "Connection refused" in running.log()
        assert not finished(running, 1)
        with smtp_peer(SmtpPeer(), port=port) as peer:
            until(lambda: finished(running, 1), "another attempt")
            assert len(peer.contents) == 1


def test_a_route_to_where_nobody_listens_keeps_mail_until_it_is_taken_out(
    tmp_path: Path, peer: SmtpPeer
) -> None:
    """As docs/operating.md has it: of a host that returns all mail, for now."""
    peer.says["RCPT"] = "550 5.7.1 your address is on our list"
    nobody = f"[{LOOPBACK}]:{free_port()}"
    with relaying_server(tmp_path / "i", peer.port) as running:
        file = running.directory / FILE_NAME
        former = file.read_text()
        file.write_text(f'{former}[routing]\nsmtproutes = {{ "example.net" = "{nobody}" }}\n')
        assert "event=server_reloaded" in reload(running)
        submit(running, "ann@example.net")
        until(lambda: "event=deferred" in running.log(), "an attempt")
        submit(running, "bob@example.net")
        peer.says.clear()
        file.write_text(former)
        assert "event=server_reloaded" in reload(running)
        assert len(peer.contents) == 0
        running.here("queue", "retry", "--lane", nobody)
        until(lambda: finished(running, 2), "both are there")
    assert len(peer.contents) == 2
    assert "event=failed" not in running.log()


def test_connections_are_closed_politely_at_the_end(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        submit(running, "ann@example.net")
        until(lambda: finished(running, 1), "it is delivered")
        assert running.stop() == 0
    assert peer.verbs()[-1] == "QUIT"
