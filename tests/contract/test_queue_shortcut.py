"""What a watched store hands out without reading it from disk is what it would have read."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from restante.envelope import Content, Envelope, Notify, RecipientDsn
from restante.queue import LOCAL_LANE, BackOff, QueuedMessage, RecipientState, Target, rows
from restante.queue.bodies import IN_ROW
from restante.queue.rows import Result
from restante.queue.schema import BODIES, connect_reader
from restante.queue.shortcut import MOST_AT_HAND, TRUST
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.wake import wake
from restante.queue.work import LaneNews
from tests.support.jumping_clock import START, until
from tests.support.queued import content, due, envelope, from_nobody, limits

NOW = START + 0.1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    """One that is watched, so that operators' calls are heard, and was found empty."""
    opened = QueueStore.open(str(tmp_path), 0)
    opened.watch(lambda: None)
    assert await due(opened, START) == []
    yield opened
    await opened.close()


async def add(store: QueueStore, lane: str = "x.example", at: float = START) -> str:
    sent = envelope(at=at)
    await store.add(sent, content(), [Target(f"a@{lane}", lane=lane)])
    return sent.queue_id


async def deliver(store: QueueStore, message: QueuedMessage) -> None:
    results = [Result(each.id, RecipientState.DELIVERED) for each in message.recipients]
    await store.record(message, results, NOW, LaneNews(NOW, None))


def ids(messages: list[QueuedMessage]) -> list[str]:
    return [message.envelope.queue_id for message in messages]


def on_disk(store: QueueStore, message: QueuedMessage) -> QueuedMessage:
    """The message as it is read."""
    queue_id = message.envelope.queue_id
    with closing(connect_reader(store.directory)) as connection:
        loaded = rows.load_message(connection, queue_id, f"{store.directory}/{BODIES}/{queue_id}")
        assert loaded is not None
        (life,) = connection.execute("SELECT number FROM life").fetchone()
        found, again = rows.waiting_recipients(connection, queue_id, message.lane, NOW, 1000, life)
    return QueuedMessage(*loaded, found, again, message.lane)


def unseen(store: QueueStore, statement: str) -> None:
    """Change rows without a word to the owner of the queue."""
    with closing(sqlite3.connect(f"{store.directory}/queue.db")) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (envelope("iain@example.com", "j@ä.example"), content()),
        (from_nobody(), content(b"")),
        (replace(envelope(), eight_bit=True, smtputf8=True, ret="HDRS", envid="7"), content()),
        (envelope(), content(b"x" * 79 + b"\n" * (IN_ROW // 80 + 1) * 80)),
    ],
    ids=["two recipients", "from nobody", "with parameters", "a large body"],
)
async def test_a_new_message_is_handed_out_as_it_would_be_read(
    store: QueueStore, sent: Envelope, kept: Content
) -> None:
    asked = RecipientDsn(Notify.SUCCESS | Notify.FAILURE, "rfc822;a@b")
    goals = [
        Target("a@x.example", lane="x.example", dsn=asked),
        Target("b@x.example", lane="x.example"),
        Target("A@x.example".lower(), lane="x.example"),
        Target("c@here", "/home/c/Maildir/", ("c@here", "d@here")),
    ]
    await store.add(sent, kept, goals)
    unseen(store, "UPDATE recipient SET attempts = 7")  # it is not read from there
    handed_out = await due(store, NOW)
    unseen(store, "UPDATE recipient SET attempts = 0")
    assert [each.lane for each in handed_out] == ["x.example", LOCAL_LANE]
    assert [on_disk(store, each) for each in handed_out] == handed_out


async def test_what_has_no_room_waits_in_its_order(store: QueueStore) -> None:
    sent = [await add(store) for _ in range(2 * MOST_AT_HAND)]
    handed_out = []
    while moving := await due(store, NOW, limits(per_lane=1)):
        handed_out += ids(moving)
        await deliver(store, moving[0])
    assert handed_out == sent


async def test_another_lane_is_not_kept_waiting_by_one_that_has_no_room(store: QueueStore) -> None:
    first = [await add(store) for _ in range(3)]
    assert ids(await due(store, NOW, limits(per_lane=1))) == first[:1]
    other = await add(store, "y.example")
    assert ids(await due(store, NOW, limits(per_lane=1))) == [other]


async def test_a_change_that_nobody_told_of_is_seen_after_a_second(store: QueueStore) -> None:
    first, _ = await add(store), await add(store)
    assert ids(await due(store, NOW, limits(per_lane=1))) == [first]
    unseen(store, "UPDATE recipient SET state = 'held' WHERE id = 2")
    assert await due(store, NOW + TRUST, limits()) == []


async def test_a_change_that_an_operator_tells_of_is_seen_at_once(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    calls: list[None] = []
    store.watch(lambda: calls.append(None))
    assert await due(store, START) == []
    await add(store)
    unseen(store, "UPDATE recipient SET state = 'held'")
    before = len(calls)
    assert wake(store.directory)
    await until(lambda: len(calls) > before)
    assert await due(store, NOW) == []
    await store.close()


async def test_what_comes_for_a_lane_that_fails_waits(store: QueueStore) -> None:
    await add(store)
    (message,) = await due(store, NOW)
    waits = Result(message.recipients[0].id, RecipientState.WAITING, next_attempt=NOW + 5)
    await store.record(message, [waits], NOW, LaneNews(NOW, BackOff("down")))
    assert await due(store, NOW) == []
    await add(store)
    assert await due(store, NOW) == []


@pytest.mark.parametrize("seed", range(10))
async def test_everything_is_handed_out_once(store: QueueStore, seed: int) -> None:
    """Whatever the order of arrivals, deferrals and deliveries, within all limits."""
    chance = random.Random(seed)
    most = Limits(2, 4, 2, 2, 2)
    now = NOW
    sent: set[tuple[str, str]] = set()
    moving: list[QueuedMessage] = []
    done: Counter[tuple[str, str]] = Counter()
    while len(sent) < 60 or moving or store.waiting:
        now += chance.choice([0.0, 0.01, TRUST])
        if len(sent) < 60 and chance.random() < 0.5:
            lanes = chance.sample(["", "x", "y", "z"], chance.randint(1, 3))
            goals = [Target(f"a@{lane}", lane=lane) for lane in lanes]
            new = envelope(at=now)
            await store.add(new, content(), goals)
            sent |= {(new.queue_id, lane) for lane in lanes}
        for message in await due(store, now, most):
            moving.append(message)
            done[message.envelope.queue_id, message.lane] += 1
        assert all(n <= 2 for n in Counter(each.lane for each in moving).values())
        assert sum(1 for each in moving if each.lane) <= most.remote
        chance.shuffle(moving)
        if moving and chance.random() < 0.7:
            message = moving.pop()
            result = Result(message.recipients[0].id, RecipientState.DELIVERED)
            if chance.random() < 0.1:
                result = replace(result, state=RecipientState.WAITING, next_attempt=now + 0.02)
                done[message.envelope.queue_id, message.lane] -= 1
            await store.record(message, [result], now, LaneNews(now, None))
    assert done == Counter(sent)
