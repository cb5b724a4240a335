"""What a queue store promises to operators, who change rows while attempts are in flight."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from restante.queue import Action, LastAnswer, RecipientState, Submission
from restante.queue.bodies import IN_ROW
from restante.queue.lanes import settle_lanes
from restante.queue.reader import QueueReader
from restante.queue.rows import Result, Settled, settle_message
from restante.queue.schema import connect_writer
from restante.queue.store import QueueStore
from restante.queue.wake import wake
from restante.queue.work import PendingReport
from restante.queue.writer import GroupWriter
from restante.status import Reply
from tests.support.jumping_clock import PATIENCE, START, until
from tests.support.queued import (
    NEVER,
    content,
    delivered,
    due,
    envelope,
    from_nobody,
    next_due,
    record,
    reports,
    targets,
    the_only,
)

NOW = START + 1
NOT_NOW = LastAnswer(Reply(451, "3.0", "not now"), "", None, NOW)
LARGE = b"x\n" * IN_ROW


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


@contextmanager
def operator(root: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another process, in a transaction."""
    with closing(connect_writer(str(root / "0"))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        settle_lanes(connection, [""], NOW)
        connection.execute("COMMIT")


def becomes(root: Path, state: str) -> None:
    """An operator gives every waiting or held recipient another state."""
    with operator(root) as connection:
        connection.execute(
            "UPDATE recipient SET state = ? WHERE state IN ('waiting', 'held')", (state,)
        )


def states(root: Path, queue_id: str) -> list[str]:
    entry = QueueReader(str(root)).message(queue_id)
    assert entry is not None
    return [str(recipient.state) for recipient in entry.recipients]


async def test_what_is_held_is_not_tried_and_keeps_its_message(
    store: QueueStore, tmp_path: Path
) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    (message,) = await due(store)
    a, b = message.recipients
    await record(store, message, [Result(b.id, RecipientState.WAITING, NOT_NOW, NOW)])
    await record_again(store, a.id)
    becomes(tmp_path, "held")
    assert await due(store) == []
    assert store.waiting == 1
    becomes(tmp_path, "waiting")
    wake(str(tmp_path / "0"))
    (released,) = await due(store)
    assert [each.target.address for each in released.recipients] == ["b@x"]


async def record_again(store: QueueStore, recipient: int) -> None:
    (message,) = await due(store)
    await record(store, message, [Result(recipient, RecipientState.DELIVERED)])


@pytest.mark.parametrize(
    ("outcome", "then"),
    [
        (RecipientState.WAITING, "held"),
        (RecipientState.DELIVERED, "delivered"),
        (RecipientState.FAILED, "failed"),
        (RecipientState.EXPANDED, "expanded"),
    ],
)
async def test_what_was_held_in_flight_stays_held_unless_it_is_settled(
    store: QueueStore, tmp_path: Path, outcome: RecipientState, then: str
) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    (message,) = await due(store)
    a, _ = message.recipients
    becomes(tmp_path, "held")
    result = Result(a.id, outcome, NOT_NOW, NOW, targets=targets("c@x"))
    assert not await record(store, message, [result])
    expected = [then, "held"] + ["waiting"] * (then == "expanded")
    assert states(tmp_path, message.envelope.queue_id) == expected
    entry = QueueReader(str(tmp_path)).message(message.envelope.queue_id)
    assert entry is not None
    assert entry.recipients[0].attempts == 1
    assert entry.recipients[0].last == NOT_NOW


@pytest.mark.parametrize("outcome", [RecipientState.WAITING, RecipientState.FAILED])
async def test_what_was_removed_in_flight_stays_removed(
    store: QueueStore, tmp_path: Path, outcome: RecipientState
) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    (message,) = await due(store)
    a, _ = message.recipients
    with operator(tmp_path) as connection:
        connection.execute("UPDATE recipient SET state = 'removed' WHERE id = ?", (a.id,))
    results = [
        Result(each.id, outcome, NOT_NOW, NOW, notice=Action.FAILED) for each in message.recipients
    ]
    await record(store, message, results)
    assert states(tmp_path, message.envelope.queue_id) == ["removed", str(outcome)]
    (pending,) = await reports(store, NOW + 1000)
    assert [notice.recipient.target.address for notice in pending.notices] == ["b@x"]


async def test_a_message_removed_in_flight_is_gone(store: QueueStore, tmp_path: Path) -> None:
    await store.add(envelope(), content(LARGE), targets("a@x"))
    (message,) = await due(store)
    with operator(tmp_path) as connection:
        connection.execute("UPDATE recipient SET state = 'removed'")
        assert settle_message(connection, message.envelope.queue_id, NOW) is Settled.FINISHED
    results = [Result(each.id, RecipientState.DELIVERED) for each in message.recipients]
    assert not await record(store, message, results), "it was not this that finished it"
    assert os.listdir(tmp_path / "0" / "bodies") == []
    assert await next_due(store) == float("inf")


async def test_a_message_removed_while_it_is_reported_is_not_reported(
    store: QueueStore, tmp_path: Path
) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    (message,) = await due(store)
    failed = Result(message.recipients[0].id, RecipientState.FAILED, NOT_NOW, notice=Action.FAILED)
    await record(store, message, [failed])
    (pending,) = await reports(store)
    with operator(tmp_path) as connection:
        connection.execute("DELETE FROM message")
    told = await store.tell(pending, None, NOW)
    assert (told.told, told.finished) == (False, False)


async def test_a_call_at_the_socket_has_the_queue_looked_at_anew(
    store: QueueStore, tmp_path: Path
) -> None:
    calls: list[int] = []
    store.watch(lambda: calls.append(store.waiting))
    await store.add(envelope(), content(), targets("a@x"))
    await store.add(envelope(at=NOW + 500), content(), targets("b@x"))
    (hanging,) = await due(store)
    assert await due(store) == []
    with operator(tmp_path) as connection:
        connection.execute("UPDATE recipient SET next_attempt = ?", (NOW,))
    assert wake(str(tmp_path / "0"))
    await until(lambda: len(calls) == 3)
    (retried,) = await due(store)
    assert [each.target.address for each in retried.recipients] == ["b@x"]
    with operator(tmp_path) as connection:
        connection.execute("DELETE FROM message WHERE queue_id = ?", (hanging.envelope.queue_id,))
    for _ in range(1000):  # more than the socket holds
        assert wake(str(tmp_path / "0"))
    await until(lambda: store.waiting == 1)


async def an_arrival(store: QueueStore) -> Coroutine[Any, Any, object]:
    return store.add(envelope(), content(), targets())


async def an_end(store: QueueStore) -> Coroutine[Any, Any, object]:
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    return record(store, message, delivered(message))


async def a_failure(store: QueueStore) -> PendingReport:
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    (recipient,) = message.recipients
    failed = Result(recipient.id, RecipientState.FAILED, NEVER, notice=Action.FAILED)
    await record(store, message, [failed])
    (pending,) = await reports(store)
    return pending


async def the_end_of_a_report(store: QueueStore) -> Coroutine[Any, Any, object]:
    return store.tell(await a_failure(store), None, NOW)


async def a_report_that_nobody_wants_any_more(store: QueueStore) -> Coroutine[Any, Any, object]:
    """Its message is gone, and has been counted as such by nobody yet."""
    pending = await a_failure(store)
    with closing(connect_writer(store.directory)) as connection:
        connection.execute("DELETE FROM message")
    return store.tell(pending, Submission(from_nobody(), content(), targets()), NOW)


async def a_report(store: QueueStore) -> Coroutine[Any, Any, object]:
    pending = await a_failure(store)
    await store.add(envelope(), content(), targets())
    return store.tell(pending, Submission(from_nobody(), content(), targets()), NOW)


async def hold(writer: GroupWriter) -> threading.Event:
    """Keep the writer busy until the event is set, so that operations gather behind it."""
    begun, gate = threading.Event(), threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        begun.set()  # from now on nothing else comes into the same batch
        gate.wait(PATIENCE)

    writer.submit(wait)
    await until(begun.is_set)
    return gate


@pytest.mark.parametrize(
    "prepared",
    [an_arrival, an_end, the_end_of_a_report, a_report, a_report_that_nobody_wants_any_more],
)
async def test_what_is_committed_with_the_count_after_a_call_is_counted_once(
    store: QueueStore, prepared: Callable[[QueueStore], Awaitable[Coroutine[Any, Any, object]]]
) -> None:
    """Else the number would be wrong until the next call.

    ``queue.max_waiting`` relies on it, and a queue is removed when it is empty.
    """
    store.watch(lambda: None)
    work = await prepared(store)
    gate = await hold(store._writer)
    assert wake(store.directory)
    await until(lambda: not store._writer._jobs.empty())
    working = asyncio.create_task(work)
    await until(lambda: store._writer._jobs.qsize() == 2)
    gate.set()
    await working
    (there,) = store._reading.execute("SELECT count(*) FROM message").fetchone()
    await until(lambda: not store._tasks)
    assert store.waiting == there


async def test_a_lane_that_was_set_too_early_is_set_right(
    store: QueueStore, tmp_path: Path
) -> None:
    heard = asyncio.Event()
    store.watch(heard.set)
    await store.add(envelope(at=NOW + 500), content(), targets("a@x"))
    with closing(connect_writer(str(tmp_path / "0"))) as connection:
        connection.execute("UPDATE lane SET next_attempt = 0")
    heard.clear()
    assert await due(store) == []
    await until(heard.is_set)  # there is something to look at again
    assert await next_due(store) == NOW + 500


def test_the_socket_is_for_its_owner_at_any_depth_of_the_tree(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert not wake(str(deep)), "nobody listens"

    async def talk() -> None:
        store = QueueStore.open(str(deep), 0)
        calls: list[int] = []
        store.watch(lambda: calls.append(1))
        path = deep / "0" / "wake"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert wake(str(deep / "0"))
        await until(lambda: bool(calls))
        await store.close()
        assert not path.exists()
        assert not wake(str(deep / "0"))

    asyncio.run(talk())


async def test_a_socket_left_by_a_killed_owner_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "wake").write_bytes(b"")
    store = QueueStore.open(str(tmp_path), 0)
    assert wake(str(tmp_path / "0"))
    await store.close()
