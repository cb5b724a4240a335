"""Recipients who were taken before, and whose rows change: by SMTP, with several workers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from select import select

import pytest

from tests.support.instance import Instance, until
from tests.support.serving import ANN, IAIN, Sections, Wire, new_server, one_place_each

WORKERS = 2
SETTINGS: Sections = {"server": {"workers": WORKERS, "drain_timeout": 1}}
FROM = "MAIL FROM:<friend@example.net>"
CONTENT = "Subject: hello\r\n\r\nHello.\r\n.\r\n"
TAKEN, GONE = "250 2.1.5", "550 5.1.1"
GO_ON, ACCEPTED, PUT_OFF = "354 End d", "250 2.0.0", "451 4.1.0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    with new_server(tmp_path, SETTINGS) as running:
        with sessions(running) as wires:
            for wire in wires:
                assert send(wire, ANN, IAIN) == [TAKEN, TAKEN, GO_ON, ACCEPTED]
        yield running


@contextmanager
def sessions(server: Instance) -> Iterator[list[Wire]]:
    """One with each worker."""
    with one_place_each(server, WORKERS), ExitStack() as open_ones:
        wires = [open_ones.enter_context(Wire(server.smtp_port)) for _ in range(WORKERS)]
        for wire in wires:
            assert wire.reply().startswith("220 ")
            wire.ask("EHLO client.example")
        yield wires


def send(wire: Wire, *recipients: str) -> list[str]:
    """What RCPT and the content are answered, one command after the other."""
    assert wire.ask(FROM).startswith("250 ")
    replies = [wire.ask(f"RCPT TO:<{each}>") for each in recipients]
    replies.append(wire.ask("DATA"))
    if replies[-1].startswith("354"):
        replies.append(wire.ask(CONTENT.removesuffix("\r\n")))
    wire.ask("RSET")
    return [reply[:9] for reply in replies]


def remove_iain(server: Instance) -> None:
    """As somebody does by hand."""
    with sqlite3.connect(server.directory / "restante.db") as database:
        removed = database.execute("DELETE FROM virtual WHERE virtual_username = 'iain'")
        assert removed.rowcount == 1
    database.close()


@contextmanager
def hanging_database(server: Instance) -> Iterator[None]:
    """Nobody can read, and whoever wants to is kept waiting."""
    database = sqlite3.connect(server.directory / "restante.db", isolation_level=None)
    with closing(database):
        # With a log of its own it would be read in spite of all locks.
        assert database.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        database.execute("BEGIN EXCLUSIVE")
        yield


def begin_many(server: Instance) -> None:
    """Sessions that begin transactions and drop them, and hang up without an answer."""
    begun = f"EHLO client.example\r\n{FROM}\r\nRCPT TO:<{IAIN}>\r\n"
    others = f"RSET\r\n{FROM}\r\nRCPT TO:<{ANN}>\r\nRCPT TO:<{IAIN}>\r\nDATA\r\n" * 20
    for _ in range(5):
        with Wire(server.smtp_port) as wire:
            wire.send(begun.encode())
            assert [wire.reply()[:3] for _ in range(4)] == ["220", "250", "250", "250"]
            wire.send(others.encode())


def test_who_is_removed_gets_nothing_by_any_worker(server: Instance) -> None:
    before = len(server.messages(ANN))
    with sessions(server) as wires:
        remove_iain(server)
        first, second = [send(wire, ANN, IAIN) for wire in wires]
        assert first == [TAKEN, TAKEN, GO_ON, PUT_OFF]
        assert second == [TAKEN, GONE, GO_ON, ACCEPTED], "one worker tells the other"
        assert [send(wire, IAIN)[0] for wire in wires] == [GONE] * WORKERS
    assert len(server.messages(ANN)) == before + 1


def test_the_end_of_the_only_recipient_is_the_answer_to_the_content(server: Instance) -> None:
    with sessions(server) as (wire, _):
        remove_iain(server)
        assert send(wire, IAIN) == [TAKEN, GO_ON, GONE]
        assert send(wire, IAIN)[0] == GONE
    assert "event=message_refused" in server.log()


def test_pipelined_recipients_are_taken_on_trust_as_well(server: Instance) -> None:
    commands = [FROM, f"RCPT TO:<{ANN}>", f"RCPT TO:<{IAIN}>", "RCPT TO:<new@example.com>", "DATA"]
    with sessions(server) as (wire, _):
        remove_iain(server)
        wire.send("\r\n".join([*commands, CONTENT]).encode())
        replies = [wire.reply()[:9] for _ in range(6)]
    assert replies == ["250 2.1.0", TAKEN, TAKEN, GONE, GO_ON, PUT_OFF]


def test_a_database_that_hangs_is_waited_for_at_the_end_of_the_content(server: Instance) -> None:
    before = len(server.messages(IAIN))
    with sessions(server) as (wire, lost):
        with hanging_database(server):
            begin_many(server)
            for each in (wire, lost):
                assert each.ask(FROM).startswith("250 ")
                assert each.ask(f"RCPT TO:<{IAIN}>").startswith(TAKEN)
                assert each.ask("DATA").startswith(GO_ON)
                each.send(CONTENT.encode())
            assert not select([wire.socket], [], [], 0.1)[0], "no answer without the rows"
            lost.close()
        assert wire.reply().startswith(ACCEPTED)
        until(lambda: len(server.messages(IAIN)) == before + 2, "both are delivered")
        assert server.stop() == os.EX_OK
    assert "event=unplanned" not in server.log()


def test_a_server_stops_while_questions_of_dropped_transactions_are_under_way(
    server: Instance,
) -> None:
    with hanging_database(server):
        begin_many(server)
        assert server.stop() == os.EX_OK
    assert "event=unplanned" not in server.log()
