"""What the POP3 and directory benches count on: a generator that notices faults, and rows."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from bench import population
from bench.benches.lookups import KINDS, Asker, Kind, WrongAnswerError
from bench.fetching import ReadingError, Sessions, parse
from bench.maildrops import Filling, message, names
from bench.population import Asked
from bench.programs import generator
from restante.config.tree import Database
from restante.directory.engine import open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.schema import definitions
from restante.store.names import wire_size

GOOD = (
    "+OK hello\r\n",
    "+OK\r\n",
    "+OK\r\n",
    "+OK 2 13\r\n",
    "+OK\r\n1 6\r\n2 7\r\n.\r\n",
    "+OK\r\n1 a\r\n2 b\r\n.\r\n",
    "+OK\r\n",
)
"""What a server says in a session that looks for mail: the greeting, and an answer a command."""
FETCHED = (
    *GOOD[:5],
    "+OK\r\n..dot\r\n.\r\n",
    "+OK\r\n",
    "+OK\r\nhello\r\n.\r\n",
    "+OK\r\n",
    "+OK\r\n",
)
"""And in one that fetches two messages of six and seven octets."""


@contextmanager
def saying(answers: tuple[str, ...]) -> Iterator[int]:
    """A server for one session, on the port that it gives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, answers))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def serve(listener: socket.socket, answers: tuple[str, ...]) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as commands:
        connection.sendall(answers[0].encode())
        for answer in answers[1:]:
            if not commands.readline():
                return
            connection.sendall(answer.encode())


def load(answers: tuple[str, ...], mode: str = "session", *options: str) -> tuple[int, str]:
    """How pop3load ends, and what it prints."""
    with saying(answers) as port:
        command = [generator("pop3load"), f"--port={port}", "--user=x", *options, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def replaced(answers: tuple[str, ...], place: int, answer: str) -> tuple[str, ...]:
    return (*answers[:place], answer, *answers[place + 1 :])


def test_a_good_session_counts() -> None:
    status, output = load(GOOD, "session", "--expect=2")
    told = parse(output)
    assert (status, told.sessions, told.messages, told.octets) == (0, 1, 2, 13)


def test_what_is_fetched_is_counted_without_stuffed_dots() -> None:
    status, output = load(FETCHED, "fetch")
    assert (status, parse(output).octets) == (0, 13)


@pytest.mark.parametrize(
    ("answers", "mode", "fault"),
    [
        (replaced(GOOD, 2, "-ERR [SYS/TEMP] away\r\n"), "session", "refused"),
        (replaced(GOOD, 3, "+OK 1 13\r\n"), "session", "wrong"),
        (replaced(GOOD, 4, "+OK\r\n1 6\r\n2 8\r\n.\r\n"), "session", "wrong"),
        (replaced(GOOD, 4, "+OK\r\n1 6\r\n3 7\r\n.\r\n"), "session", "wrong"),
        (replaced(GOOD, 5, "+OK\r\n1 a\r\n.\r\n"), "session", "wrong"),
        (replaced(GOOD, 5, "+OK\n"), "session", "wrong"),
        (GOOD[:5], "session", "broken"),
        (replaced(FETCHED, 7, "+OK\r\nhell\r\n.\r\n"), "fetch", "wrong"),
        (replaced(FETCHED, 8, "-ERR\r\n"), "fetch", "refused"),
    ],
)
def test_every_fault_is_counted(answers: tuple[str, ...], mode: str, fault: str) -> None:
    status, output = load(answers, mode)
    assert (status, json.loads(output)[fault]) == (1, 1)
    with pytest.raises(ReadingError, match=fault):
        parse(output)


def test_another_number_of_messages_is_a_fault() -> None:
    status, output = load(GOOD, "session", "--expect=100")
    assert (status, json.loads(output)["wrong"]) == (1, 1)


def test_options_of_sessions() -> None:
    sessions = Sessions("fetch", 2, 4, first=7, messages=0)
    assert sessions.options(9) == [
        "--users=4",
        "--first=7",
        "--clients=2",
        "--sessions=9",
        "--expect=0",
        "fetch",
    ]


def test_output_that_is_none_is_an_error() -> None:
    with pytest.raises(ReadingError):
        parse("")


def test_messages_are_as_large_as_their_names_say() -> None:
    content = message(4096)
    (name,) = names(Filling(1), content)
    assert len(content) == 4096
    assert f",S={len(content)}," in name
    assert wire_size(name) == len(content.replace(b"\n", b"\r\n"))
    (plain,) = names(Filling(1, sized=False), content)
    assert wire_size(plain) is None


@pytest.fixture
async def directory(tmp_path: Path) -> SqlDirectory:
    """Of a thousand mailboxes."""
    engine = open_engine(Database(f"sqlite:///{tmp_path}/db"), "/", create=True)
    await engine.transaction(await definitions(engine))
    with closing(sqlite3.connect(tmp_path / "db")) as rows, rows:
        for statement in population.statements(population.SQLITE, 1000, 65534):
            rows.execute(statement)
    return SqlDirectory(engine)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_what_is_asked_is_there(directory: SqlDirectory, kind: Kind) -> None:
    asker = Asker(directory, Asked(1000, Random(1)), kind)
    asker.prepare(50)
    await asker.ask(50)
    await directory.close()


async def test_a_wrong_answer_is_noticed(directory: SqlDirectory) -> None:
    asker = Asker(directory, Asked(100_000, Random(1)), KINDS["login"])
    asker.prepare(50)
    with pytest.raises(WrongAnswerError):
        await asker.ask(50)
    await directory.close()
