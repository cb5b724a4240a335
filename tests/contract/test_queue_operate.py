"""What an operator does to a queue, whether a server has it or not."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, Address
from restante.envelope import Content, Envelope, Notify, RecipientDsn
from restante.queue import (
    Action,
    BackOff,
    LastAnswer,
    QueuedMessage,
    QueueFailed,
    QueueUnusable,
    RecipientState,
    Target,
)
from restante.queue.bodies import IN_ROW
from restante.queue.operate import CHUNK, RETURNED, Affected, QueueOperator, Verb
from restante.queue.reader import QueueReader
from restante.queue.rows import Result
from restante.queue.selection import AddressPattern, Selection
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews
from restante.status import Peer, Reply
from tests.support.jumping_clock import START
from tests.support.queued import content, due, envelope, from_nobody, record, reports, targets

NOW = START + 1
LATER = START + 1000
FAR = START + 100_000
REAL_CLOCK_FAR = 4_000_000_000.0
"""By the real clock lanes are seen to be left alone."""
LARGE = b"Subject: large\n\n" + b"x" * IN_ROW
GREYLISTED = LastAnswer(
    Reply(450, "2.0", "Greylisted,\nplease wait"),
    "",
    Peer("mx.Busy.example", "192.0.2.1", "RCPT TO:<a@x>"),
    NOW,
)
BROKEN = LastAnswer(Reply(451, "", "not now"), "the disk is away", None, NOW)
DEAD = "connect to dead.example timed out"


class Queue:
    """A queue below ``root`` that a server has all the time, or only while it is asked to."""

    def __init__(self, root: Path, *, runs: bool) -> None:
        self.root = root
        self.runs = runs
        self._looked = asyncio.Event()
        self._store: QueueStore | None = None

    @asynccontextmanager
    async def server(self) -> AsyncIterator[QueueStore]:
        """The server's view of the queue."""
        store = self._store or QueueStore.open(str(self.root), 0)
        if self._store is None:
            store.watch(self._called)
        self._store = store
        yield store
        if not self.runs:
            await self.stop()

    async def stop(self) -> None:
        """Without having recorded what is in flight."""
        if self._store is not None:
            await self._store.close()
            self._store = None

    async def put(
        self, sent: Envelope, *to: Target | str, body: Content | None = None
    ) -> QueuedMessage | None:
        """Queue a message."""
        meant = tuple(Target(each) if isinstance(each, str) else each for each in to)
        async with self.server() as store:
            await store.add(sent, body or content(), meant or targets())
        return None

    async def do(
        self, verb: Verb, selection: Selection | None = None, *, now: float = NOW
    ) -> list[Affected]:
        """As the operator, in another thread, and wait until the server has looked."""
        operator = QueueOperator(str(self.root), now=lambda: now)
        self._looked.clear()
        done = await asyncio.to_thread(lambda: list(operator.apply(verb, selection or Selection())))
        assert operator.unserved == (bool(done) and not self.runs)
        if self.runs and done:
            await self._looked.wait()
        return done

    async def due(self, now: float = NOW) -> list[QueuedMessage]:
        """What the server would try."""
        async with self.server() as store:
            return await due(store, now)

    def states(self, queue_id: str) -> list[str]:
        """Those of a message's recipients."""
        entry = QueueReader(str(self.root)).message(queue_id)
        return [] if entry is None else [each.state.value for each in entry.recipients]

    def _called(self) -> None:
        self._looked.set()


@pytest.fixture(params=[True, False], ids=["running", "stopped"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queue]:
    made = Queue(tmp_path, runs=request.param)
    yield made
    await made.stop()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Queue]:
    made = Queue(tmp_path, runs=True)
    yield made
    await made.stop()


def operator(queue: Queue) -> QueueOperator:
    return QueueOperator(str(queue.root), now=lambda: NOW)


def only(*ids: str) -> Selection:
    return Selection(ids=frozenset(ids))


def to(pattern: str) -> Selection:
    return Selection(to=AddressPattern.parse(pattern))


def addresses(messages: list[QueuedMessage]) -> set[str]:
    return {each.target.address for message in messages for each in message.recipients}


def deferred(message: QueuedMessage, last: LastAnswer, until: float = FAR) -> list[Result]:
    return [Result(each.id, RecipientState.WAITING, last, until) for each in message.recipients]


# Each verb


async def test_retry_is_at_once(queue: Queue) -> None:
    sent = envelope()
    await queue.put(sent)
    async with queue.server() as store:
        (message,) = await due(store)
        await record(store, message, deferred(message, BROKEN))
    assert await queue.due(LATER) == []

    (done,) = await queue.do(Verb.RETRY, only(sent.queue_id), now=LATER)

    assert done == Affected(sent.queue_id, sent.reverse_path, ("iain@example.com",))
    assert addresses(await queue.due(LATER)) == {"iain@example.com"}


async def test_retry_ends_the_rest_of_a_lane(queue: Queue) -> None:
    sent = envelope("a@dead.example")
    await queue.put(sent, Target("a@dead.example", lane="dead.example"))
    await queue.put(envelope("b@dead.example"), Target("b@dead.example", lane="dead.example"))
    async with queue.server() as store:
        messages = await due(store)
        message = next(each for each in messages if each.envelope == sent)
        await store.record(
            message, deferred(message, BROKEN), NOW, LaneNews(NOW, BackOff(DEAD, FAR - NOW))
        )
        other = next(each for each in messages if each.envelope != sent)
        await record(store, other, deferred(other, BROKEN, LATER))
    assert await queue.due(LATER) == []

    await queue.do(Verb.RETRY, only(sent.queue_id), now=LATER)

    # As after any failure, one message shows first whether it works again.
    assert len(await queue.due(LATER)) == 1


async def test_held_is_not_tried_until_released(queue: Queue) -> None:
    held, other = envelope(), envelope()
    await queue.put(held)
    await queue.put(other)

    await queue.do(Verb.HOLD, only(held.queue_id))
    assert queue.states(held.queue_id) == ["held"]
    assert [each.envelope for each in await queue.due(FAR)] == [other]
    await queue.do(Verb.RELEASE, only(held.queue_id), now=FAR)

    assert held in [each.envelope for each in await queue.due(FAR)]


async def test_released_is_tried_for_a_whole_lifetime(queue: Queue) -> None:
    """And so are those to whom it leads."""
    held = envelope()
    await queue.put(held)
    await queue.do(Verb.HOLD)
    await queue.do(Verb.RELEASE, now=FAR)

    async with queue.server() as store:
        (released,) = await due(store, FAR)
        (alias,) = released.recipients
        assert (alias.born, released.envelope.received_at) == (FAR, START)
        onward = Result(alias.id, RecipientState.EXPANDED, targets=targets("a@x", "b@x"))
        await record(store, released, [onward], FAR)
        (expanded,) = await due(store, FAR)
    assert [each.born for each in expanded.recipients] == [FAR, FAR]


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
async def test_removed_is_gone_with_its_file(queue: Queue, body: bytes) -> None:
    sent = envelope()
    await queue.put(sent, body=content(body))

    await queue.do(Verb.REMOVE, only(sent.queue_id))

    assert queue.states(sent.queue_id) == []
    assert os.listdir(queue.root / "0" / "bodies") == []
    async with queue.server() as store:
        assert await due(store) == []
        assert await reports(store) == []
        assert store.waiting == 0


async def test_bounced_is_reported(queue: Queue) -> None:
    sent = envelope()
    await queue.put(sent)
    await queue.do(Verb.HOLD)

    await queue.do(Verb.BOUNCE, only(sent.queue_id))

    async with queue.server() as store:
        (pending,) = await reports(store)
        assert await due(store) == []
        (notice,) = pending.notices
        assert pending.message.envelope == sent
        assert notice.action is Action.FAILED
        assert notice.recipient.last == LastAnswer(RETURNED, "", None, NOW)
        assert (await store.tell(pending, None, NOW)).finished


async def test_bounced_without_a_report_where_none_is_wanted(queue: Queue) -> None:
    sent = envelope()
    quiet = Target("a@x", dsn=RecipientDsn(Notify.NEVER))
    late = Target("b@x", dsn=RecipientDsn(Notify.DELAY | Notify.SUCCESS))
    asked = Target("c@x", dsn=RecipientDsn(Notify.FAILURE))
    await queue.put(sent, quiet, late, asked)

    await queue.do(Verb.BOUNCE)

    async with queue.server() as store:
        (pending,) = await reports(store)
        assert [each.recipient.target for each in pending.notices] == [asked]
    await queue.put(silent := envelope(), quiet)
    await queue.do(Verb.BOUNCE, only(silent.queue_id))
    assert queue.states(silent.queue_id) == []


async def test_bounced_from_nobody_is_reported_whatever_was_asked(queue: Queue) -> None:
    """Reports ask for nothing, and it is the postmaster who is told."""
    quiet = Target("a@x", dsn=RecipientDsn(Notify.NEVER))
    owned = replace(quiet, address="b@x", reverse_path="owner@x")
    await queue.put(from_nobody(), quiet, owned)

    await queue.do(Verb.BOUNCE)

    async with queue.server() as store:
        (pending,) = await reports(store)
        assert [each.recipient.target for each in pending.notices] == [quiet]


async def test_some_recipients_of_a_message(queue: Queue) -> None:
    sent = envelope()
    await queue.put(sent, "a@x", "b@y", "c@y")

    (done,) = await queue.do(Verb.REMOVE, replace(to("y"), ids=frozenset({sent.queue_id})))

    assert done.recipients == ("b@y", "c@y")
    assert queue.states(sent.queue_id) == ["waiting", "removed", "removed"]
    assert addresses(await queue.due()) == {"a@x"}


@pytest.mark.parametrize("verb", Verb)
async def test_what_a_verb_is_not_for_stays(queue: Queue, verb: Verb) -> None:
    sent = envelope()
    await queue.put(sent, "waits@x", "held@x", "done@x")
    async with queue.server() as store:
        (message,) = await due(store)
        *_, done = message.recipients
        await record(store, message, [Result(done.id, RecipientState.DELIVERED)])
    await queue.do(Verb.HOLD, to("held@x"))
    expected = {"waiting": "waits@x", "held": "held@x"}

    would = [
        each for part in operator(queue).matching(verb, Selection()) for each in part.recipients
    ]
    did = [each for part in await queue.do(verb) for each in part.recipients]

    assert did == would == [expected[state] for state in verb.states]
    assert queue.states(sent.queue_id)[-1:] in ([], ["delivered"])


async def test_a_message_that_is_not_there(queue: Queue) -> None:
    await queue.put(envelope())

    assert await queue.do(Verb.REMOVE, only("nothing")) == []


# While it is being tried


async def in_flight(queue: Queue, *recipients: str) -> QueuedMessage:
    """A message of which an attempt has begun."""
    sent = envelope()
    await queue.put(sent, *recipients)
    async with queue.server() as store:
        (message,) = await due(store)
    return message


async def test_held_in_flight(running: Queue) -> None:
    message = await in_flight(running, "a@x", "b@x")
    a, b = message.recipients
    await running.do(Verb.HOLD)

    async with running.server() as store:
        results = [
            Result(a.id, RecipientState.DELIVERED),
            Result(b.id, RecipientState.WAITING, BROKEN, LATER),
        ]
        assert not await record(store, message, results)

    assert running.states(message.envelope.queue_id) == ["delivered", "held"]
    assert await running.due(FAR) == []


@pytest.mark.parametrize("state", [RecipientState.DELIVERED, RecipientState.FAILED])
async def test_removed_in_flight(running: Queue, state: RecipientState) -> None:
    message = await in_flight(running, "a@x")
    await running.do(Verb.REMOVE)

    async with running.server() as store:
        await record(store, message, [Result(message.recipients[0].id, state, BROKEN)])
        assert await reports(store, FAR) == []
        assert store.waiting == 0


async def test_bounced_in_flight_is_reported_once(running: Queue) -> None:
    message = await in_flight(running, "a@x")
    await running.do(Verb.BOUNCE)

    async with running.server() as store:
        failed = Result(message.recipients[0].id, RecipientState.FAILED, BROKEN)
        await record(store, message, [replace(failed, notice=Action.FAILED)])
        (pending,) = await reports(store, FAR)
        assert len(pending.notices) == 1


# Which


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), "abcdef"),
        (Selection(sender=AddressPattern("example.com", "SENDER")), "abdef"),
        (Selection(sender=AddressPattern.parse("Example.COM")), "abdef"),
        (Selection(sender=AddressPattern.parse("other@example.com")), ""),
        (Selection(sender=NULL_REVERSE_PATH), "c"),
        (to("@y.example"), "b"),
        (to("Y.Example"), "b"),
        (to("example"), ""),
        (to("B@y.example"), "b"),
        (to("a@y.example"), ""),
        (Selection(lane=""), "abcde"),
        (Selection(lane="dead.example"), "f"),
        (Selection(accepted_before=START), "abc"),
        (Selection(accepted_after=START + 50), "def"),
        (Selection(accepted_before=START + 50, accepted_after=START + 50), "d"),
        (Selection(reason="450 4.2.0 greylisted"), "a"),
        (Selection(reason="451 not now (the disk"), "b"),
        (Selection(reason="MX.busy.example"), "a"),
        (Selection(reason="dead.example timed"), "f"),
        (Selection(reason="100%"), ""),
        (Selection(reason="text"), ""),
        (Selection(states=(RecipientState.HELD,)), "e"),
        (Selection(states=(RecipientState.WAITING,)), "abcdf"),
        (Selection(reason="not now", sender=NULL_REVERSE_PATH), ""),
    ],
)
async def test_selecting(running: Queue, selection: Selection, expected: str) -> None:
    sent = {
        "a": envelope(),
        "b": envelope(),
        "c": from_nobody(),
        "d": envelope(at=START + 50),
        "e": envelope(at=START + 60),
        "f": envelope(at=START + 70),
    }
    await running.put(sent["a"], "a@x.example")
    await running.put(sent["b"], "b@y.example")
    await running.put(sent["c"], "c@yy.example")
    for name in "de":
        await running.put(sent[name], f"{name}@x.example")
    await running.put(sent["f"], Target("f@z.example", lane="dead.example"))
    await running.do(Verb.HOLD, only(sent["e"].queue_id))
    async with running.server() as store:
        for message in await due(store, LATER):
            for name, last in (("a", GREYLISTED), ("b", BROKEN)):
                if message.envelope == sent[name]:
                    await record(store, message, deferred(message, last, REAL_CLOCK_FAR))
            if message.envelope == sent["f"]:
                news = LaneNews(NOW, BackOff(DEAD, REAL_CLOCK_FAR - NOW))
                await store.record(message, [], NOW, news)

    reader = QueueReader(str(running.root))
    found = [entry.envelope.queue_id for entry in reader.messages(selection)]

    assert found == [sent[name].queue_id for name in expected]


@pytest.mark.parametrize("domain", ["müller.example", "xn--mller-kva.example"])
async def test_a_domain_is_selected_in_either_form(running: Queue, domain: str) -> None:
    sent = replace(envelope(), reverse_path=Address("a", "xn--mller-kva.example"))
    await running.put(sent, "b@müller.example")
    reader = QueueReader(str(running.root))
    for pattern in (domain, f"a@{domain}"):
        assert list(reader.messages(Selection(sender=AddressPattern.parse(pattern))))
    for pattern in (domain, f"b@{domain}"):
        assert list(reader.messages(to(pattern)))
    assert not list(reader.messages(to(f"a@{domain}")))


async def test_ids_and_filters_must_both_be_true(running: Queue) -> None:
    sent = envelope()
    await running.put(sent, "a@x")

    assert await running.do(Verb.HOLD, replace(to("y"), ids=frozenset({sent.queue_id}))) == []


@pytest.mark.parametrize("text", ["", "@", "a b@x", "a@b@", "two..dots"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AddressPattern.parse(text)


async def test_what_came_while_the_operator_was_asked_is_left_alone(running: Queue) -> None:
    """Though something else came by a clock that was ahead, of which that is not so."""
    await running.put(ahead := envelope(at=LATER))
    clock = itertools.count(NOW)
    asked = QueueOperator(str(running.root), now=lambda: next(clock))
    await running.put(late := envelope(at=NOW + 0.5))

    (done,) = await asyncio.to_thread(lambda: list(asked.apply(Verb.REMOVE, Selection())))

    assert done.queue_id == ahead.queue_id
    assert running.states(late.queue_id) == ["waiting"]


async def test_what_comes_while_the_queue_is_looked_through_is_left_alone(tmp_path: Path) -> None:
    """However close to the looks at the time of day, of which each is followed by a message."""
    queue = Queue(tmp_path, runs=False)
    await queue.put(old := envelope(at=START))
    came = [envelope(at=NOW + number + 0.5) for number in range(2)]
    coming, clock = iter(came), itertools.count(NOW)

    def now() -> float:
        if new := next(coming, None):
            asyncio.run(queue.put(new))
        return next(clock)

    def remove() -> list[Affected]:
        return list(QueueOperator(str(tmp_path), now=now).apply(Verb.REMOVE, Selection()))

    (done,) = await asyncio.to_thread(remove)

    assert done.queue_id == old.queue_id
    assert [queue.states(each.queue_id) for each in came] == [["waiting"]] * 2


async def test_what_came_by_a_clock_that_was_ahead_is_no_older_than_it_says(queue: Queue) -> None:
    await queue.put(envelope(at=LATER))

    assert await queue.do(Verb.REMOVE, Selection(accepted_before=NOW)) == []


async def test_what_takes_the_place_of_a_recipient_is_left_alone(tmp_path: Path) -> None:
    """Between reading and writing a message leaves the queue, and another one comes."""
    queue = Queue(tmp_path, runs=False)
    await queue.put(old := envelope())
    new = envelope(at=LATER)

    def now() -> float:
        """The time is asked twice before the queue is read, and once after."""
        if queue.states(old.queue_id) and next(calls) == 2:
            with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as other, other:
                other.execute("PRAGMA foreign_keys = ON")
                other.execute("DELETE FROM message")
            asyncio.run(queue.put(new))
        return NOW

    calls = itertools.count()
    apply = QueueOperator(str(tmp_path), now=now).apply
    done = await asyncio.to_thread(lambda: list(apply(Verb.REMOVE, Selection())))

    assert done == []
    assert queue.states(old.queue_id) == []
    assert queue.states(new.queue_id) == ["waiting"]


# Much


async def test_more_than_one_transaction(queue: Queue) -> None:
    many = [f"r{number}@x" for number in range(CHUNK + 10)]
    await queue.put(first := envelope(), *many)
    await queue.put(second := envelope(), "a@x")

    done = await queue.do(Verb.REMOVE)

    assert [address for part in done for address in part.recipients] == [*many, "a@x"]
    assert {part.queue_id for part in done} == {first.queue_id, second.queue_id}
    async with queue.server() as store:
        await store.add(envelope(), content(), targets())
        assert await reports(store) == []
        assert len(await due(store)) == 1


async def test_more_than_one_transaction_by_why_a_lane_is_left_alone(queue: Queue) -> None:
    """To retry them is what ends that."""
    many = [Target(f"r{number}@dead.example", lane="dead.example") for number in range(CHUNK + 10)]
    await queue.put(envelope(), *many)
    async with queue.server() as store:
        (message,) = await due(store)
        down = LaneNews(NOW, BackOff(DEAD, REAL_CLOCK_FAR - NOW))
        await store.record(message, deferred(message, BROKEN), NOW, down)

    done = await queue.do(Verb.RETRY, Selection(reason=DEAD), now=LATER)

    assert sum(len(part.recipients) for part in done) == len(many)
    assert len(await queue.due(LATER)) == 1


async def test_stopping_early_leaves_the_rest(queue: Queue) -> None:
    many = [f"r{number}@x" for number in range(CHUNK + 10)]
    await queue.put(sent := envelope(), *many)

    with closing(operator(queue).apply(Verb.HOLD, Selection())) as done:
        next(done)

    assert queue.states(sent.queue_id).count("held") == CHUNK


async def test_several_queues(tmp_path: Path) -> None:
    sent = [envelope(), envelope(), envelope()]
    for slot, each in zip((3, 1, 2), sent, strict=True):
        store = QueueStore.open(str(tmp_path), slot)
        await store.add(each, content(), targets())
        await store.close()
    operator = QueueOperator(str(tmp_path))

    done = list(operator.apply(Verb.HOLD, only(sent[0].queue_id, sent[2].queue_id)))

    assert {each.queue_id for each in done} == {sent[0].queue_id, sent[2].queue_id}
    assert operator.unserved


# When it does not go well


def test_no_queue_at_all(tmp_path: Path) -> None:
    assert list(QueueOperator(str(tmp_path / "none")).apply(Verb.HOLD, Selection())) == []


def test_a_damaged_queue_is_named(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "queue.db").write_bytes(b"this is no database, but a letter" * 100)
    with pytest.raises(QueueUnusable, match=r"0/queue\.db cannot be read"):
        list(QueueOperator(str(tmp_path)).apply(Verb.HOLD, Selection()))


async def test_a_queue_that_stays_locked(running: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restante.queue.schema.BUSY_TIMEOUT", 0.0)
    await running.put(sent := envelope())
    with closing(sqlite3.connect(running.root / "0" / "queue.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueFailed, match="locked"):
            list(operator(running).apply(Verb.REMOVE, Selection()))
        other.execute("ROLLBACK")
    assert running.states(sent.queue_id) == ["waiting"]


async def test_a_socket_that_a_killed_server_left(tmp_path: Path) -> None:
    queue = Queue(tmp_path, runs=False)
    await queue.put(envelope())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(tmp_path / "0" / "wake"))

    await queue.do(Verb.HOLD)


async def test_files_stay_their_owners(tmp_path: Path) -> None:
    """Root may use the command on a queue of the server's own user."""
    queue = Queue(tmp_path, runs=False)
    await queue.put(envelope())
    whose = os.geteuid() or 65534
    directory = tmp_path / "0"
    for path in (directory, *directory.rglob("*")):
        os.chown(path, whose, -1)

    with closing(operator(queue).apply(Verb.HOLD, Selection())) as done:
        next(done)
        files = {path.name: path.stat().st_uid for path in directory.iterdir()}

    assert {"queue.db", "queue.db-wal", "queue.db-shm"} <= files.keys()
    assert set(files.values()) == {whose}
