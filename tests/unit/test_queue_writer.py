"""Group commit: operations that wait together become durable together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from restante.queue import QueueFailed
from restante.queue.store import QueueStore
from restante.queue.writer import GroupWriter
from tests.support.jumping_clock import PATIENCE
from tests.support.queued import content, envelope, targets


class Table:
    """A writer on a table of numbers, and the transactions it made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE number (value INTEGER PRIMARY KEY) STRICT")
        self.statements: list[str] = []
        connection.set_trace_callback(self.statements.append)
        self.connection = connection
        self.writer = GroupWriter(connection)
        self.thread = self.writer._thread.ident

    @property
    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def insert(self, value: object) -> asyncio.Future[int]:
        def operation(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO number VALUES (?)", (value,))
            return threading.get_ident()

        return self.writer.submit(operation)

    async def hold(self) -> threading.Event:
        """Keep the writer busy until the event is set, so that operations gather behind it."""
        busy, gate = threading.Event(), threading.Event()

        def operation(_: sqlite3.Connection) -> bool:
            busy.set()
            return gate.wait(PATIENCE)

        self.writer.submit(operation)
        await asyncio.to_thread(busy.wait, PATIENCE)
        return gate

    def values(self) -> list[int]:
        reader = sqlite3.connect(self.path)
        try:
            return [value for (value,) in reader.execute("SELECT value FROM number ORDER BY value")]
        finally:
            reader.close()


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[Table]:
    made = Table(tmp_path / "numbers.db")
    yield made
    made.writer.close()


async def test_operations_that_gather_share_one_commit(table: Table) -> None:
    gate = await table.hold()
    waiting = [table.insert(value) for value in range(50)]
    gate.set()
    threads = set(await asyncio.gather(*waiting))
    assert table.values() == list(range(50))
    assert table.commits == 2, "the one that was held, and all the others"
    assert threads != {threading.get_ident()}, "never on the event loop"


async def test_an_operation_that_fails_does_not_spoil_the_others(table: Table) -> None:
    gate = await table.hold()

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO number VALUES (98)")
        raise LookupError("no more")

    outcomes: list[asyncio.Future[Any]] = [
        table.insert(1),
        table.insert("x"),
        table.writer.submit(half),
        table.insert(2),
    ]
    gate.set()
    one, wrong_type, raised, two = await asyncio.gather(*outcomes, return_exceptions=True)
    assert isinstance(one, int)
    assert isinstance(two, int)
    assert isinstance(wrong_type, QueueFailed)
    assert isinstance(raised, LookupError)
    assert table.values() == [1, 2]
    assert table.commits == 2


async def test_an_undone_transaction_fails_everybody_in_it(table: Table) -> None:
    gate = await table.hold()

    def undo(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite itself does when the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    outcomes: list[asyncio.Future[Any]] = [
        table.insert(1),
        table.writer.submit(undo),
        table.insert(2),
    ]
    gate.set()
    results = await asyncio.gather(*outcomes, return_exceptions=True)
    assert {type(result) for result in results} == {QueueFailed}
    assert table.values() == []
    await table.insert(3)
    assert table.values() == [3], "the writer lives on"


async def test_a_database_held_by_another_fails_and_recovers(table: Table) -> None:
    table.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(table.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(QueueFailed, match="locked"):
        await table.insert(1)
    other.execute("ROLLBACK")
    other.close()
    await table.insert(2)
    assert table.values() == [2]


async def test_items_of_a_kind_are_one_operation(table: Table) -> None:
    calls: list[list[int]] = []
    told: list[int] = []

    def double(connection: sqlite3.Connection, items: Sequence[int]) -> list[int]:
        calls.append([*items])
        connection.executemany("INSERT INTO number VALUES (?)", [(item,) for item in items])
        return [2 * item for item in items]

    gate = await table.hold()
    waiting = [table.writer.submit_item(double, item, told.append) for item in (1, 2)]
    between = table.insert(3)
    waiting += [table.writer.submit_item(double, item, told.append) for item in (4, 5)]
    waiting[-1].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[:-1], between) == [2, 4, 8, table.thread]
    assert calls == [[1, 2, 4, 5]]
    assert told == [2, 4, 8, 10], "also of the one for whose result nobody waits"
    assert table.values() == [1, 2, 3, 4, 5]
    assert table.commits == 2


async def test_items_of_a_kind_are_done_one_by_one_if_one_of_them_fails(table: Table) -> None:
    told: list[object] = []

    def insert(connection: sqlite3.Connection, items: Sequence[object]) -> list[object]:
        connection.executemany("INSERT INTO number VALUES (?)", [(item,) for item in items])
        return [*items]

    def refuse(_: object) -> None:
        raise LookupError("no more")

    gate = await table.hold()
    outcomes: list[asyncio.Future[Any]] = [
        *(table.writer.submit_item(insert, item, told.append) for item in (1, "x", 2, 1)),
        table.writer.submit_item(insert, 3, refuse),
        table.writer.submit_item(insert, 4, told.append),
    ]
    gate.set()
    results = await asyncio.gather(*outcomes, return_exceptions=True)
    assert [each if isinstance(each, int) else type(each) for each in results] == [
        *(1, QueueFailed, 2, QueueFailed),
        *(LookupError, 4),
    ]
    assert told == [1, 2, 4]
    assert table.values() == [1, 2, 3, 4]
    assert table.commits == 2


async def test_a_bug_in_a_bulk_operation_is_told_and_the_writer_lives_on(table: Table) -> None:
    def lose_one(connection: sqlite3.Connection, items: Sequence[int]) -> list[int]:
        connection.executemany("INSERT INTO number VALUES (?)", [(item,) for item in items])
        return [*items][1:]

    gate = await table.hold()
    told: list[int] = []
    lost = [table.writer.submit_item(lose_one, item, told.append) for item in (1, 2)]
    gate.set()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*lost, return_exceptions=True)
        assert [type(each) for each in outcomes] == [ValueError, ValueError]
        await table.insert(3)
    assert told == []
    assert table.values() == [3]


async def test_a_caller_that_has_gone_hinders_nobody(table: Table) -> None:
    gate = await table.hold()
    gone, stays = table.insert(1), table.insert(2)
    gone.cancel()
    gate.set()
    await stays
    assert table.values() == [1, 2]


async def test_close_finishes_what_was_submitted(table: Table) -> None:
    gate = await table.hold()
    last = table.insert(1)
    gate.set()
    await asyncio.to_thread(table.writer.close)
    await last
    assert table.values() == [1]
    with pytest.raises(QueueFailed):
        table.insert(2)


async def test_fifty_messages_at_once_are_few_commits(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    log = tmp_path / "0" / "queue.db-wal"

    async def add(count: int) -> int:
        """Add so many messages at once; how many transactions the write-ahead log shows."""
        before = commits(log.read_bytes())
        await asyncio.gather(*(store.add(envelope(), content(), targets()) for _ in range(count)))
        return commits(log.read_bytes()) - before

    assert await add(1) == 1
    assert await add(50) < 25
    assert store.waiting == 51
    await store.close()


def commits(log: bytes) -> int:
    """Commit frames in a write-ahead log: those that give the database's size in pages."""
    page = int.from_bytes(log[8:12], "big")
    salt = log[16:24]
    frames = [log[start : start + 24] for start in range(32, len(log), page + 24)]
    return sum(frame[8:16] == salt and frame[4:8] != b"\0\0\0\0" for frame in frames)
