"""Peers that are too many, too slow or deaf; and the figures that are kept of all of them."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.instance import PATIENCE, Instance, until
from tests.support.ports import HAS_IPV6, free_port
from tests.support.serving import (
    ANN,
    IAIN,
    SAMPLE,
    Sections,
    Wire,
    begin_data,
    deliver,
    new_server,
    resident,
    smtp,
    workers,
)

_CLIENT = re.compile(rb"^Received: from \S+ \(\[(\S+)\]\)$", re.MULTILINE)
_FIGURE = re.compile(r"^([a-z_]\S*) (\S+)$", re.MULTILINE)
MEBIBYTE = 1024 * 1024
DEAF_LIMIT = 32 * MEBIBYTE
"""Octets that the system's own buffers cannot hold for one connection over loopback."""
MEMORY_LIMIT = 16 * MEBIBYTE
"""Octets by which a worker may grow for a few sessions."""


def test_connections_from_one_address_are_bounded(tmp_path: Path) -> None:
    limit = {"server": {"max_connections_per_address": 2}}
    with new_server(tmp_path / "instance", limit) as instance:
        until(lambda: "event=session_closed" in instance.log(), "the first session has ended")
        with smtp(instance.smtp_port) as first:
            with Wire(instance.pop3_port) as second, Wire(instance.smtp_port) as third:
                assert second.line().startswith("+OK")
                assert third.reply().startswith("421 4.3.2 ")
                assert third.at_end()
                with Wire(instance.pop3_port) as fourth:
                    assert fourth.line().startswith("-ERR [SYS/TEMP] ")
                    assert fourth.at_end()
                assert first.ask("NOOP").startswith("250 ")
            until(lambda: "service=pop3 reason=lost" in instance.log(), "the second has left")
            with smtp(instance.smtp_port) as again:
                assert again.ask("NOOP").startswith("250 ")
        assert instance.log().count("event=session_refused") == 2


@pytest.mark.skipif(not HAS_IPV6, reason="this host has no IPv6")
def test_both_families_at_one_port(tmp_path: Path) -> None:
    """As the documentation names them; a client of each is known by its own address."""
    port = free_port()
    listen = {"smtp": {"listen": [f"0.0.0.0:{port}", f"[::]:{port}"]}}
    with new_server(tmp_path / "instance", listen) as instance:
        for host in ("127.0.0.1", "::1"):
            with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
                client.sendmail("me@example.net", IAIN, SAMPLE)
        found = [_CLIENT.findall(message) for message in instance.messages(IAIN)]
    assert found == [[b"127.0.0.1"], [b"IPv6:::1"]]


@pytest.mark.parametrize("sent", [b"", b"NOO", b"MAIL FROM:<me@example.net>\r\n"])
def test_silent_smtp_client_is_told_and_closed(tmp_path: Path, sent: bytes) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"timeoutsmtpd": 1}}) as instance:
        with smtp(instance.smtp_port) as wire:
            wire.send(sent)
            last = [wire.line() for _ in range(1 + sent.count(b"\n"))][-1]
            assert last.startswith("421 4.4.2 ")
            assert wire.at_end()
        until(lambda: "reason=timeout" in instance.log(), "the log says why")


def test_client_that_is_silent_in_content_is_closed(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"timeoutsmtpd": 1}}) as instance:
        with smtp(instance.smtp_port) as wire:
            begin_data(wire, IAIN)
            wire.send(b"Subject: half\r\n")
            assert wire.reply().startswith("421 4.4.2 ")
            assert wire.at_end()
        assert instance.messages(IAIN) == []


def test_session_as_a_whole_is_bounded(tmp_path: Path) -> None:
    """However busy it is."""
    bounded = {"smtp": {"session_timeout": 1}}
    with new_server(tmp_path / "instance", bounded) as instance, smtp(instance.smtp_port) as wire:
        while (reply := wire.ask("NOOP")).startswith("250 "):
            pass
        assert reply.startswith("421 4.4.2 ")
        assert wire.at_end()


@pytest.mark.parametrize("setting", ["timeout", "login_timeout"])
def test_silent_pop3_client_is_closed_without_a_word(tmp_path: Path, setting: str) -> None:
    with new_server(tmp_path / "instance", {"pop3": {setting: 1}}) as instance:
        with Wire(instance.pop3_port) as wire:
            assert wire.line().startswith("+OK")
            assert wire.at_end()
        until(lambda: "service=pop3 reason=timeout" in instance.log(), "the log says why")


def test_smtp_client_that_never_reads(tmp_path: Path) -> None:
    """Its commands are not even taken once its replies are not; others are served meanwhile."""
    with new_server(tmp_path / "instance", {"smtp": {"timeoutsmtpd": 2}}) as instance:
        (worker,) = workers(instance, 1)
        before = resident(worker)
        with smtp(instance.smtp_port) as deaf:
            assert flood(instance, deaf, b"HELP\r\n" * 4096) < DEAF_LIMIT
        assert resident(worker) - before < MEMORY_LIMIT
        until(lambda: "reason=timeout" in instance.log(), "the deaf client was cut off")


def flood(instance: Instance, deaf: Wire, block: bytes) -> int:
    """Send until the server ends the connection; octets that were taken before that."""
    taken = 0
    served = False
    deaf.socket.settimeout(0.2)
    while taken < DEAF_LIMIT:
        try:
            taken += deaf.socket.send(block)
        except TimeoutError:
            if not served:
                served = deliver(instance.smtp_port, ANN).startswith("250 ")
        except (ConnectionResetError, BrokenPipeError):
            break
    assert served, "the server never stopped reading"
    return taken


def test_pop3_client_that_never_reads(tmp_path: Path) -> None:
    """A large message is not read into memory for it."""
    with new_server(tmp_path / "instance", {"pop3": {"timeout": 2}}) as instance:
        (worker,) = workers(instance, 1)
        deliver(instance.smtp_port, IAIN)
        line = b"x" * 998 + b"\n"
        (message,) = (instance.directory / "mail" / "iain" / "Maildir" / "new").iterdir()
        message.rename(message.with_name("1.big"))
        with open(message.with_name("1.big"), "ab") as big:
            big.write(line * (64 * MEBIBYTE // len(line)))
        before = resident(worker)
        with Wire(instance.pop3_port) as deaf:
            deaf.send(f"USER {IAIN}\r\nPASS secret\r\nRETR 1\r\n".encode())
            until(lambda: "event=maildrop_opened" in instance.log(), "logged in")
            assert deliver(instance.smtp_port, ANN).startswith("250 ")
            until(lambda: "service=pop3 reason=timeout" in instance.log(), "cut off")
        assert resident(worker) - before < MEMORY_LIMIT


def test_metrics(tmp_path: Path) -> None:
    port = free_port()
    sections: Sections = {"metrics": {"listen": [f"127.0.0.1:{port}"]}, "server": {"workers": 2}}
    with new_server(tmp_path / "instance", sections) as instance:
        workers(instance, 2)
        for _ in range(20):
            deliver(instance.smtp_port, IAIN)
        with smtp(instance.smtp_port) as wire:
            wire.ask("MAIL FROM:<me@example.net>")
            assert wire.ask("RCPT TO:<nobody@example.com>").startswith("550 ")
        instance.messages(IAIN)
        closed = instance.log
        until(lambda: closed().count("session_opened") == closed().count("session_closed"), "over")
        figures = scrape(port)
        assert figures['restante_messages_accepted_total{how="delivered"}'] == 20
        assert figures['restante_recipients_total{outcome="delivered"}'] == 20
        assert figures['restante_refused_total{code="550",command="rcpt"}'] == 1
        assert figures['restante_logins_total{result="good",service="pop3"}'] == 1
        assert figures['restante_sessions_total{service="smtp"}'] == 22
        assert figures['restante_sessions_open{service="smtp"}'] == 0
        assert figures["restante_queue_messages"] == 0
        assert figures["restante_database_up"] == 1
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
        refused.value.close()
        assert instance.stop() == os.EX_OK


def scrape(port: int) -> dict[str, float]:
    """All figures by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        match[1]: float(match[2])
        for match in re.finditer(r"^([a-z_]\S*) (\S+)$", text, re.MULTILINE)
    }


def test_half_closed_client_gets_its_replies(tmp_path: Path) -> None:
    """The peer will send no more, but it still reads."""
    with new_server(tmp_path / "instance") as instance, smtp(instance.smtp_port) as wire:
        wire.send(
            f"MAIL FROM:<me@example.net>\r\nRCPT TO:<{IAIN}>\r\nDATA\r\n".encode()
            + b"Subject: x\r\n\r\nx\r\n.\r\n"
        )
        wire.socket.shutdown(socket.SHUT_WR)
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]
        assert wire.at_end()
        assert len(instance.messages(IAIN)) == 1
