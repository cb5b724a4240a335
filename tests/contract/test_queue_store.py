"""What every queue store promises, on the real one: SQLite and files in a folder."""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeVar

import pytest

from restante.address import Address
from restante.envelope import Content, Envelope, spooled_content
from restante.queue import (
    Action,
    BackOff,
    DuplicateMessage,
    LastAnswer,
    QueuedMessage,
    QueueFailed,
    QueueFull,
    QueueUnusable,
    RecipientState,
    Submission,
    Target,
    account_lane,
)
from restante.queue.bodies import IN_ROW
from restante.queue.loader import RECIPIENTS_PER_ATTEMPT
from restante.queue.reader import QueueReader
from restante.queue.retry import FIRST_BACK_OFF
from restante.queue.rows import Looping, Result
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews
from restante.queue.writer import Bulk, GroupWriter, Item
from restante.status import Peer, Reply
from tests.support.jumping_clock import START
from tests.support.queued import (
    content,
    due,
    envelope,
    from_nobody,
    limits,
    next_due,
    record,
    reports,
    targets,
)

T = TypeVar("T")

NOW = START + 1
NOT_NOW = LastAnswer(Reply(451, "3.0", "not now"), "the disk is away", None, NOW)
NEVER = LastAnswer(
    Reply(550, "1.1", "no\nsuch user"),
    "",
    Peer("mx.example", "192.0.2.1", "RCPT TO:<a@x>", "TLSv1.3 X", dsn=True),
    NOW,
)
LARGE = b"Subject: large\n\n" + b"0123456789abcde\n" * (IN_ROW // 16)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


def body_files(tmp_path: Path) -> set[str]:
    return set(os.listdir(tmp_path / "0" / "bodies"))


def delivered(message: QueuedMessage) -> list[Result]:
    return [Result(each.id, RecipientState.DELIVERED) for each in message.recipients]


def waits(message: QueuedMessage, until: float) -> list[Result]:
    return [Result(each.id, RecipientState.WAITING, NOT_NOW, until) for each in message.recipients]


async def fail(store: QueueStore, message: QueuedMessage) -> None:
    """Its first recipient fails, and its sender is to be told; the others wait till later."""
    first, *rest = message.recipients
    failed = Result(first.id, RecipientState.FAILED, NEVER, notice=Action.FAILED)
    wait = [Result(each.id, RecipientState.WAITING, NOT_NOW, START + 50) for each in rest]
    await record(store, message, [failed, *wait])


async def the_only(store: QueueStore, now: float = NOW) -> QueuedMessage:
    (message,) = await due(store, now)
    return message


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


async def test_an_expansion_is_recipients_of_the_same_message(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("all@x", "ann@x"))
    message = await the_only(store)
    everyone, ann = message.recipients
    children = (
        Target("iain@x", via=("all@x",)),
        Target("IAIN@x"),
        Target("Ann@X"),
        Target("iain@x", "./Maildir/"),
    )
    results = [
        Result(everyone.id, RecipientState.EXPANDED, targets=children),
        Result(ann.id, RecipientState.DELIVERED),
    ]
    assert not await record(store, message, results)
    message = await the_only(store)
    assert [each.target for each in message.recipients] == [children[0], children[3]]
    assert {each.trail for each in message.recipients} == {("all@x",)}
    assert store.waiting == 1


async def test_an_expansion_to_nobody_new_ends_the_message(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("all@x"))
    message = await the_only(store)
    (everyone,) = message.recipients
    assert await record(store, message, [Result(everyone.id, RecipientState.EXPANDED, targets=())])


async def test_a_target_that_loops_is_recorded_as_failed(store: QueueStore, tmp_path: Path) -> None:
    sent = envelope()
    await store.add(sent, content(), targets("all@x"))
    message = await the_only(store)
    (everyone,) = message.recipients
    loop = Result(
        everyone.id,
        RecipientState.EXPANDED,
        targets=targets("ann@x"),
        looping=(Looping(Target("all@x"), NEVER),),
    )
    await record(store, message, [loop])
    assert [each.target.address for each in (await the_only(store)).recipients] == ["ann@x"]
    entry = QueueReader(str(tmp_path)).message(sent.queue_id)
    assert entry is not None
    assert [(each.target.address, str(each.state)) for each in entry.recipients] == [
        ("all@x", "expanded"),
        ("ann@x", "waiting"),
        ("all@x", "failed"),
    ]


async def test_what_is_left_of_a_list_takes_the_place_of_what_was(store: QueueStore) -> None:
    await store.add(envelope(), content(), [Target("iain@x", lane=account_lane("iain"))])
    message = await the_only(store)
    (iain,) = message.recipients
    rest = "./Maildir/\n&ann@example.net"
    left = Result(iain.id, RecipientState.WAITING, next_attempt=START + 1, instruction=rest)
    await record(store, message, [left])
    (now,) = (await the_only(store)).recipients
    assert now == replace(
        iain, target=replace(iain.target, instruction=rest), attempts=1, next_attempt=START + 1
    )


@pytest.mark.parametrize("line", ["|caf\N{LATIN SMALL LETTER E WITH ACUTE}", "|\udcff", "|[]\"'\\"])
async def test_an_instruction_of_a_file_may_hold_any_octets(store: QueueStore, line: str) -> None:
    await store.add(envelope(), content(), [Target("iain@x", line)])
    message = await the_only(store)
    (iain,) = message.recipients
    assert iain.target.instruction == line
    rest = f"{line}\n{line}x"
    left = Result(iain.id, RecipientState.WAITING, next_attempt=START, instruction=rest)
    await record(store, message, [left])
    message = await the_only(store)
    assert message.recipients[0].target.instruction == rest
    alias = Result(
        iain.id, RecipientState.EXPANDED, targets=(Target("iain@x", rest), Target("ann@x", line))
    )
    await record(store, message, [alias])
    (ann,) = (await the_only(store)).recipients
    assert ann.target == Target("ann@x", line), "the other one is there already"


async def test_a_list_of_which_something_is_left_is_not_added_again(store: QueueStore) -> None:
    await store.add(envelope(), content(), [Target("iain@x"), Target("all@x")])
    message = await the_only(store)
    iain, everyone = message.recipients
    await record(
        store,
        message,
        [
            Result(iain.id, RecipientState.WAITING, next_attempt=START, instruction="./Maildir/"),
            Result(
                everyone.id,
                RecipientState.EXPANDED,
                targets=(Target("Iain@x"), Target("ann@x")),
            ),
        ],
    )
    tried = (await the_only(store)).recipients
    assert [(each.target.address, each.target.instruction) for each in tried] == [
        ("iain@x", "./Maildir/"),
        ("ann@x", ""),
    ]


async def test_the_same_address_from_two_senders_has_two_copies(store: QueueStore) -> None:
    twice = [Target("ann@x"), Target("ann@x", reverse_path="o@x", account="i"), Target("ann@x")]
    await store.add(envelope(), content(), [*twice, Target("ann@x", reverse_path="")])
    tried = (await the_only(store)).recipients
    assert [each.target.reverse_path for each in tried] == [None, "o@x", ""]
    assert [each.target.account for each in tried] == ["", "i", ""]


OUTCOMES = [
    RecipientState.WAITING,
    RecipientState.DELIVERED,
    RecipientState.EXPANDED,
    RecipientState.FAILED,
]
"""To what an attempt leads."""
SETTLED = [RecipientState.DELIVERED, RecipientState.EXPANDED, RecipientState.FAILED]


@pytest.mark.parametrize("became", OUTCOMES)
@pytest.mark.parametrize("was", SETTLED)
async def test_what_is_settled_stays(
    store: QueueStore, tmp_path: Path, was: RecipientState, became: RecipientState
) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    message = await the_only(store)
    a, b = message.recipients
    await record(store, message, [Result(a.id, was)])
    message = await the_only(store)
    stays = [Result(b.id, RecipientState.WAITING), Result(a.id, became, targets=targets("c@x"))]
    assert not await record(store, message, stays)
    assert [each.target.address for each in (await the_only(store)).recipients] == ["b@x"]
    entry = QueueReader(str(tmp_path)).message(message.envelope.queue_id)
    assert entry is not None
    assert [each.state for each in entry.recipients] == [was, RecipientState.WAITING]


@pytest.mark.parametrize("became", OUTCOMES)
async def test_what_waits_may_become_anything(store: QueueStore, became: RecipientState) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    message = await the_only(store)
    finished = await record(
        store, message, [Result(message.recipients[0].id, became, NOT_NOW, START + 9)]
    )
    assert finished == (became is not RecipientState.WAITING)


async def test_a_recipient_of_another_message_is_not_settled(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    await store.add(envelope(at=START + 0.5), content(), targets("b@x"))
    first, second = await due(store)
    assert not await record(store, first, delivered(second))
    assert store.waiting == 2


async def test_the_next_life_knows_that_it_does_not_know(tmp_path: Path) -> None:
    first = QueueStore.open(str(tmp_path), 0)
    await first.add(envelope(), content(LARGE), targets("a@x", "b@x"))
    assert (await the_only(first)).again is False
    await first.close()
    second = QueueStore.open(str(tmp_path), 0)
    assert second.waiting == 1
    message = await the_only(second)
    assert message.again
    assert message.content.read() == content(LARGE).read()
    await record(second, message, waits(message, START + 10))
    assert (await the_only(second, START + 10)).again is False, "now it is recorded"
    await second.close()


async def test_an_attempt_with_no_certain_end_is_remembered(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    unsure = Result(message.recipients[0].id, RecipientState.WAITING, NOT_NOW, START, certain=False)
    await record(store, message, [unsure])
    message = await the_only(store)
    assert message.again
    await record(store, message, waits(message, START))
    assert not (await the_only(store)).again


async def test_a_body_without_a_row_is_removed_at_open(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.add(envelope(), content(LARGE), targets())
    await store.close()
    kept = body_files(tmp_path)
    (tmp_path / "0" / "bodies" / "orphan").write_bytes(b"left by a crash")
    store = QueueStore.open(str(tmp_path), 0)
    assert body_files(tmp_path) == kept
    await store.close()


async def test_one_process_has_the_queue(store: QueueStore, tmp_path: Path) -> None:
    with pytest.raises(QueueUnusable, match="another process has"):
        QueueStore.open(str(tmp_path), 0)
    other = QueueStore.open(str(tmp_path), 1)
    await other.close()


async def test_an_empty_queue_can_be_removed(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.remove()
    assert os.listdir(tmp_path) == []
    again = QueueStore.open(str(tmp_path), 0)
    await again.add(envelope(), content(LARGE), targets())
    await again.remove()
    third = QueueStore.open(str(tmp_path), 0)
    assert (await the_only(third)).content.read() == content(LARGE).read(), "it was not empty"
    await third.close()


def test_a_lock_on_a_queue_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes the queue between opening the lock's file and locking it."""
    original = fcntl.flock
    removals: list[str] = []

    def flock_too_late(file: IO[bytes], operation: int) -> None:
        if not removals:
            removals.append(file.name)
            shutil.rmtree(tmp_path / "0")
        original(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_too_late)
    store = QueueStore.open(str(tmp_path), 0)
    assert (tmp_path / "0" / "queue.db").exists()
    with pytest.raises(QueueUnusable):
        QueueStore.open(str(tmp_path), 0)
    asyncio.run(store.close())


async def test_a_queue_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "queue.db").write_bytes(b"this is no database, but a letter" * 100)
    with pytest.raises(QueueUnusable, match="not a database"):
        QueueStore.open(str(tmp_path), 0)
    (tmp_path / "1").write_text("a file")
    with pytest.raises(QueueUnusable, match="cannot be opened"):
        QueueStore.open(str(tmp_path), 1)


async def test_a_full_queue_refuses_mail_but_not_reports(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0, max_waiting=1)
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    with pytest.raises(QueueFull):
        await store.add(envelope(), content(), targets())
    await fail(store, await the_only(store))
    (pending,) = await reports(store)
    report = Submission(from_nobody("s@x"), content(), targets("s@x"))
    assert not (await store.tell(pending, report, NOW)).finished
    assert store.waiting == 2
    await store.close()


async def test_a_watcher_hears_of_every_message_that_is_durable(store: QueueStore) -> None:
    heard: list[int] = []
    store.watch(lambda: heard.append(store.waiting))
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    await record(store, message, waits(message, START))
    assert heard == [1]
    await fail(store, await the_only(store))
    (pending,) = await reports(store)
    await store.tell(pending, Submission(from_nobody("s@x"), content(), targets("s@x")), NOW)
    assert heard == [1, 1]


async def test_a_caller_that_is_cancelled_leaves_nothing_half_done(
    store: QueueStore, tmp_path: Path
) -> None:
    adding = asyncio.ensure_future(store.add(envelope(), content(LARGE), targets()))
    await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await store.close()
    reopened = QueueStore.open(str(tmp_path), 0)
    assert (await the_only(reopened)).content.read() == content(LARGE).read()
    await reopened.close()


async def test_nothing_is_taken_after_close(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.close()
    with pytest.raises(QueueFailed):
        await store.add(envelope(), content(), targets())


@contextmanager
def no_file_longer_than(octets: int) -> Iterator[None]:
    """A full disk as the kernel can play it: writes beyond the limit fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def spooled(tmp_path: Path, body: bytes) -> Content:
    (tmp_path / "spooled").write_bytes(body)
    given = content(body)
    return spooled_content(given.trace, str(tmp_path / "spooled"), given.body_lines, given.facts)


@pytest.mark.parametrize("linkable", [True, False])
async def test_no_room_for_a_body_is_temporary_and_leaves_nothing(
    store: QueueStore, tmp_path: Path, linkable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = LARGE * 40
    given = content(body)
    if linkable:  # a spool file on another file system must be copied
        given = spooled(tmp_path, body)
        monkeypatch.setattr(os, "link", _refuse_link)
    with no_file_longer_than(len(body) // 2), pytest.raises(QueueFailed, match="File too large"):
        await store.add(envelope(), given, targets())
    assert body_files(tmp_path) == set()
    assert store.waiting == 0
    await store.add(envelope(), given, targets())
    assert (await the_only(store)).content.read() == given.read()


def _refuse_link(source: str, path: str) -> None:
    raise OSError(18, "Invalid cross-device link", source, None, path)


async def test_no_room_for_a_row_is_temporary_and_leaves_nothing(
    store: QueueStore, tmp_path: Path
) -> None:
    await store.add(envelope(), content(), targets())
    log = (tmp_path / "0" / "queue.db-wal").stat().st_size
    with no_file_longer_than(log):
        failures = await asyncio.gather(
            *(store.add(envelope(), content(LARGE[:IN_ROW]), targets()) for _ in range(3)),
            return_exceptions=True,
        )
        message = await the_only(store)
        with pytest.raises(QueueFailed):
            await record(store, message, delivered(message))
    assert {type(failure) for failure in failures} == {QueueFailed}
    assert store.waiting == 1
    assert await record(store, message, delivered(message)), "there is room again"
    await store.add(envelope(), content(), targets())
    assert len(await due(store)) == 1


class LateNews(GroupWriter):
    """It tells of a commit only when that is allowed: its thread may have had no turn so long."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.allowed = asyncio.Event()

    def submit_item(
        self, bulk: Bulk[Item, T], item: Item, then: Callable[[T], None]
    ) -> asyncio.Future[T]:
        async def later(done: asyncio.Future[T]) -> T:
            result = await done
            await self.allowed.wait()
            then(result)
            return result

        return asyncio.ensure_future(later(super().submit_item(bulk, item, lambda _: None)))


async def test_what_is_read_before_its_writer_tells_of_it_is_handed_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.queue.store.GroupWriter", LateNews)
    store = QueueStore.open(str(tmp_path), 0)
    store.watch(lambda: None)
    sent = envelope()
    adding = asyncio.create_task(store.add(sent, content(), targets()))
    while not QueueReader(str(tmp_path)).message(sent.queue_id):  # noqa: ASYNC110 - a thread commits
        await asyncio.sleep(0.001)
    handed_out = await due(store)
    assert isinstance(store._writer, LateNews)
    store._writer.allowed.set()
    await adding
    assert await due(store) == [], "it is in flight"
    assert await record(store, handed_out[0], delivered(handed_out[0]))
    await store.close()


async def test_what_is_due_is_handed_out_though_nothing_can_be_written(
    store: QueueStore, tmp_path: Path
) -> None:
    """The lane that was left alone has nobody any more: its row is to be removed, and cannot be."""
    await store.add(envelope(), content(), [Target("ann@dead", lane="dead")])
    message = await the_only(store)
    await store.record(message, delivered(message), START, LaneNews(START, BackOff("down")))
    await store.add(envelope(), content(), targets())
    later = START + FIRST_BACK_OFF
    with no_file_longer_than((tmp_path / "0" / "queue.db-wal").stat().st_size):
        (handed_out,) = await due(store, later)
    assert await due(store, later) == [], "it is in flight"
    assert await record(store, handed_out, delivered(handed_out))
