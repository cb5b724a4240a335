"""What every queue store promises of mail that it takes and hands out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.address import Address
from restante.envelope import Envelope
from restante.queue import (
    DuplicateMessage,
    RecipientState,
    Target,
)
from restante.queue.bodies import IN_ROW
from restante.queue.loader import RECIPIENTS_PER_ATTEMPT
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from tests.support.contents import spooled_content
from tests.support.jumping_clock import START
from tests.support.queued import (
    LARGE,
    NEVER,
    NOT_NOW,
    body_files,
    content,
    delivered,
    due,
    envelope,
    from_nobody,
    limits,
    next_due,
    record,
    targets,
    the_only,
    waits,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


def utf8_envelope() -> Envelope:
    return Envelope(
        "0000000000000q1",
        Address("iain o'neill", "example.com"),
        (Address("дмитрий", "пример.рф"), Address("a@b", "x.org"), Address("postmaster", "")),
        START + 0.123456,
        eight_bit=True,
        smtputf8=True,
    )


async def test_what_goes_in_comes_out(store: QueueStore) -> None:
    goals = (Target("дмитрий@пример.рф"), Target("a@x", "./Maildir/", ("b@x", "c@x")))
    await store.add(utf8_envelope(), content(b"\x00\xff 8-bit\n"), goals)
    message = await the_only(store)
    assert message.envelope == utf8_envelope()
    assert message.content == content(b"\x00\xff 8-bit\n")
    assert tuple(each.target for each in message.recipients) == goals
    assert not message.again


async def test_the_null_reverse_path_stays_what_it_is(store: QueueStore) -> None:
    sent = from_nobody("iain@example.com")
    await store.add(sent, content(), targets())
    assert (await the_only(store)).envelope == sent


@pytest.mark.parametrize("size", [0, 1, IN_ROW, IN_ROW + 1, len(LARGE)])
@pytest.mark.parametrize("spooled", [False, True])
async def test_a_body_of_any_size_is_kept(
    store: QueueStore, tmp_path: Path, size: int, spooled: bool
) -> None:
    body = LARGE[:size]
    given = content(body)
    if spooled:
        spool = tmp_path / "spooled"
        spool.write_bytes(body)
        given = spooled_content(given.trace, str(spool), given.body_lines, given.facts)
    await store.add(envelope(), given, targets())
    if spooled:
        spool.unlink()
    kept = (await the_only(store)).content
    assert kept.read() == content(body).read()
    assert (kept.size, kept.lines, kept.facts) == (given.size, given.lines, given.facts)
    assert bool(body_files(tmp_path)) == (size > IN_ROW)


async def test_a_large_body_goes_with_its_message(store: QueueStore, tmp_path: Path) -> None:
    await store.add(envelope(), content(LARGE), targets())
    message = await the_only(store)
    assert body_files(tmp_path) == {message.envelope.queue_id}
    assert await record(store, message, delivered(message))
    assert body_files(tmp_path) == set()
    assert store.waiting == 0


@pytest.mark.parametrize("body", [b"small", LARGE])
async def test_a_queue_id_is_taken_once(store: QueueStore, tmp_path: Path, body: bytes) -> None:
    sent = envelope()
    await store.add(sent, content(body), targets())
    files = body_files(tmp_path)
    for second in (b"other", LARGE):
        with pytest.raises(DuplicateMessage):
            await store.add(sent, content(second), targets())
    assert body_files(tmp_path) == files
    assert (await the_only(store)).content.read() == content(body).read()
    assert store.waiting == 1


async def test_a_message_for_nobody_is_not_taken(store: QueueStore, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await store.add(envelope(), content(LARGE), ())
    assert store.waiting == 0
    assert body_files(tmp_path) == set()


async def test_due_is_when_it_was_recorded(store: QueueStore) -> None:
    await store.add(envelope(at=START), content(), targets())
    assert await due(store, START - 1) == []
    assert await next_due(store, START - 1) == START
    message = await the_only(store)
    assert await next_due(store) == math.inf, "it is in flight"
    assert not await record(store, message, waits(message, START + 50))
    assert await next_due(store) == START + 50
    assert await due(store, START + 49) == []
    (recipient,) = (await the_only(store, START + 50)).recipients
    assert (recipient.attempts, recipient.last) == (1, NOT_NOW)


async def test_a_message_in_flight_is_not_handed_out_twice(store: QueueStore) -> None:
    for second in range(5):
        await store.add(envelope(at=START - second), content(), targets())
    first, rest = await due(store, most=limits(local=2)), await due(store)
    ages = [message.envelope.received_at - START for message in (*first, *rest)]
    assert ages == [-4, -3, -2, -1, 0], "longest due first"
    assert await due(store) == []


async def test_two_who_ask_at_once_get_different_messages(store: QueueStore) -> None:
    for _ in range(4):
        await store.add(envelope(), content(), targets())
    handed = await asyncio.gather(*(due(store, most=limits(local=n)) for n in (1, 2, 3, 4)))
    assert len({message.envelope.queue_id for (message,) in handed}) == 4


async def test_only_the_recipients_that_are_due_come(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x", "c@x"))
    message = await the_only(store)
    a, b, c = message.recipients
    await record(
        store,
        message,
        [
            Result(a.id, RecipientState.WAITING, NOT_NOW, START + 10),
            Result(b.id, RecipientState.FAILED, NEVER),
            Result(c.id, RecipientState.WAITING, NOT_NOW, START + 20),
        ],
    )
    message = await the_only(store, START + 10)
    assert [each.target.address for each in message.recipients] == ["a@x"]
    assert not await record(store, message, delivered(message)), "c@x still waits"
    message = await the_only(store, START + 20)
    assert [each.target.address for each in message.recipients] == ["c@x"]
    assert await record(store, message, delivered(message))


async def test_a_crowd_is_tried_in_parts(store: QueueStore) -> None:
    crowd = [f"u{number}@x" for number in range(RECIPIENTS_PER_ATTEMPT + 1)]
    await store.add(envelope(), content(), targets(*crowd))
    first = await the_only(store)
    assert not await record(store, first, delivered(first))
    second = await the_only(store)
    seen = [each.target.address for each in (*first.recipients, *second.recipients)]
    assert seen == crowd
