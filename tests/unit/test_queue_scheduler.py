"""When queued messages are tried, and what becomes of them: a real store, a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from restante.address import Address, NullReversePath
from restante.config.tree import DAY, HOUR, Queue
from restante.dsn.reporter import DsnReporter
from restante.queue import (
    Answer,
    Attempted,
    Expanded,
    Moved,
    Notice,
    Partly,
    QueuedMessage,
    QueueFailed,
    RecipientState,
    Submission,
    Target,
    Undeliverable,
)
from restante.queue.operate import QueueOperator, Verb
from restante.queue.reader import QueueEntry, QueueReader
from restante.queue.retry import RetryPolicy
from restante.queue.rows import Result
from restante.queue.scheduler import FIRST_PAUSE, Scheduler
from restante.queue.selection import AddressPattern, Selection
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import LaneNews, Recorded, Work
from restante.status import PermanentFailure, Reply
from tests.support.desk import Desk, Event, at_work, names
from tests.support.events import capture_logs
from tests.support.jumping_clock import START, JumpingClock, until
from tests.support.no_threads import FewThreads
from tests.support.queued import content, envelope, from_nobody, limits, new_id, targets
from tests.support.scripted_courier import HERE, LATER, NEVER, Attempt, ScriptedCourier


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def courier(clock: JumpingClock) -> ScriptedCourier:
    return ScriptedCourier(clock.now)


@pytest.fixture
def log() -> Iterator[list[Event]]:
    with capture_logs() as events:
        yield events


def entry(root: Path, queue_id: str) -> QueueEntry | None:
    return QueueReader(str(root)).message(queue_id)


async def test_new_mail_is_tried_at_once(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.rest()
        queue_id = await desk.queue(envelope())
        await desk.rest()
        assert courier.attempts == [Attempt(START, queue_id, "iain@example.com", again=False)]
        assert desk.store.waiting == 0
    assert names(log) == ["delivered", "message_finished"]
    assert {event["id"] for event in log if event["event"] != "queue_opened"} == {queue_id}


async def test_retries_follow_the_schedule(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("iain@example.com", LATER, LATER, LATER, HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope())
        await desk.pass_time(2 * HOUR)
    ages = [time - START for time in courier.times("iain@example.com")]
    assert ages == pytest.approx([0, 100, 400, 900])
    assert names(log) == ["deferred"] * 3 + ["delivered", "message_finished"]
    assert [event["attempts"] for event in log if event["event"] == "deferred"] == [1, 2, 3]


async def test_each_recipient_has_a_fate_of_its_own(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("ann@x", LATER, HERE)
    courier.answer("nobody@x", NEVER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "iain@x", "ann@x", "nobody@x")
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert len(courier.of("iain@x")) == 1
    assert len(courier.of("nobody@x")) == 1
    assert len(courier.of("ann@x")) == 2
    assert sorted(names(log)) == [
        "bounced",
        "deferred",
        "delivered",
        "delivered",
        "delivered",
        "failed",
        "message_finished",
        "message_finished",
    ]


async def test_a_restart_goes_on_where_it_was(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.answer("iain@example.com", LATER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope())
        await desk.pass_time(500)
    before = courier.of("iain@example.com")
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.pass_time(3000)
    after = courier.of("iain@example.com")[len(before) :]
    assert [attempt.at - START for attempt in before] == pytest.approx([0, 100, 400])
    assert [attempt.at - START for attempt in after] == pytest.approx([900, 1600, 2500])
    assert [attempt.again for attempt in after] == [True, False, False]


async def test_a_thousand_targets_are_one_message(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    everyone = tuple(Target(f"u{number}@x", via=("all@x",)) for number in range(1000))
    courier.answer("all@x", Expanded(everyone))
    courier.answer("u500@x", LATER, HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "all@x")
        await desk.rest()
        assert desk.store.waiting == 1
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert [len(call.recipients) for call in courier.calls] == [1, 1000, 1]
    assert len({call.envelope.queue_id for call in courier.calls}) == 1


async def test_an_alias_that_leads_to_itself_ends(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@x", Expanded(targets("b@x", "iain@x")))
    courier.answer("b@x", Expanded(targets("A@X")))
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "a@x")
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert len(courier.of("a@x")) == 1
    assert len(courier.of("iain@x")) == 1
    failures = [event for event in log if event["event"] == "failed"]
    assert [event["reply"] for event in failures] == [
        "554 5.4.6 the alias leads back to itself: a@x > b@x > A@X"
    ]
    assert "bounced" in names(log)


async def test_a_stuck_destination_holds_up_nobody_else(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    free = courier.hold("stuck@x")
    async with at_work(tmp_path, clock, courier, most=limits(local=2)) as desk:
        await desk.queue(envelope(at=START - 1), "stuck@x")
        for number in range(10):
            await desk.queue(envelope(), f"u{number}@x")
        await until(lambda: desk.store.waiting == 1 == desk.scheduler.moving)
        free.set()
        await until(lambda: desk.store.waiting == 0)
    assert len(courier.of("stuck@x")) == 1


async def test_no_more_messages_move_than_may(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    free = courier.hold("slow@x")
    async with at_work(tmp_path, clock, courier, most=limits(local=3)) as desk:
        for _ in range(8):
            await desk.queue(envelope(), "slow@x")
        await until(lambda: desk.scheduler.moving == 3)
        assert len(courier.attempts) == 3
        free.set()
        await until(lambda: desk.store.waiting == 0)
    assert len(courier.attempts) == 8


async def test_after_the_lifetime_the_sender_is_told(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("iain@example.com", LATER)
    async with at_work(tmp_path, clock, courier) as desk:
        queue_id = await desk.queue(envelope())
        await desk.pass_time(1.5 * DAY)
        assert desk.store.waiting == 0
    *_, before_last, last = courier.times("iain@example.com")
    assert before_last < START + DAY <= last
    (bounce,) = courier.of("sender@example.com")
    said = next(call for call in courier.calls if call.envelope.queue_id == bounce.queue_id)
    assert isinstance(said.envelope.reverse_path, NullReversePath)
    text = said.content.read().decode()
    assert "says:\n        451 4.3.0 not now" in text
    assert "Action: failed\nStatus: 4.3.0\n" in text
    assert names(log)[-5:] == [
        "failed",
        "bounced",
        "message_finished",
        "delivered",
        "message_finished",
    ]
    assert {event["id"] for event in log if event["event"] == "bounced"} == {queue_id}


async def test_a_bounce_that_fails_is_dropped(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("iain@example.com", NEVER)
    courier.answer("sender@example.com", NEVER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope())
        await desk.rest()
        assert desk.store.waiting == 0
    assert names(log).count("bounced") == 1
    assert names(log).count("bounce_dropped") == 1


async def test_a_bounce_that_fails_goes_to_the_postmaster_once(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    for address in ("iain@example.com", "sender@example.com", "postmaster@example.com"):
        courier.answer(address, NEVER)
    settings = Queue(doublebounceto="postmaster@example.com")
    reporter = DsnReporter(settings, "mail.example.com")
    async with at_work(tmp_path, clock, courier, reporter) as desk:
        await desk.queue(envelope())
        await desk.rest()
        assert desk.store.waiting == 0
    assert [attempt.address for attempt in courier.attempts] == [
        "iain@example.com",
        "sender@example.com",
        "postmaster@example.com",
    ]
    assert names(log).count("bounced") == 2
    assert names(log).count("bounce_dropped") == 1


async def test_a_bug_in_the_courier_is_temporary(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("iain@example.com", ZeroDivisionError("secret"), HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        queue_id = await desk.queue(envelope())
        await desk.rest()
        waiting = entry(tmp_path, queue_id)
        assert waiting is not None
        assert str(waiting.recipients[0].last).startswith("451 4.3.0")
        assert "secret" not in str(waiting.recipients[0].last)
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert [attempt.again for attempt in courier.attempts] == [False, True]
    assert names(log) == ["unplanned", "deferred", "delivered", "message_finished"]


class TooFew:
    """A courier that forgets a recipient."""

    async def attempt(self, message: QueuedMessage) -> Attempted:
        return Attempted([NEVER] * (len(message.recipients) - 1))


async def test_answers_that_do_not_fit_are_a_bug_too(
    tmp_path: Path, clock: JumpingClock, log: list[Event]
) -> None:
    async with at_work(tmp_path, clock, TooFew()) as desk:
        await desk.queue(envelope(), "a@x", "b@x")
        await desk.rest()
        assert desk.store.waiting == 1
    assert names(log) == ["unplanned", "deferred", "deferred"]


class BrokenOnce:
    """A reporter with a bug that goes away."""

    def __init__(self) -> None:
        self._good = DsnReporter(Queue(), "mail.example.com")
        self._calls = 0

    def report(
        self, message: QueuedMessage, notices: Sequence[Notice], now: float, queue_id: str
    ) -> Submission | Undeliverable:
        self._calls += 1
        if self._calls == 1:
            raise ZeroDivisionError
        return self._good.report(message, notices, now, queue_id)


async def test_a_failure_that_cannot_be_reported_is_not_forgotten(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("nobody@x", NEVER)
    async with at_work(tmp_path, clock, courier, BrokenOnce()) as desk:
        await desk.queue(envelope(), "iain@x", "nobody@x")
        await desk.rest()
        assert names(log) == ["delivered", "failed", "unplanned"]
        await desk.pass_time(HOUR - 1)
        assert desk.store.waiting == 1
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert len(courier.of("iain@x")) == 1
    assert len(courier.of("sender@example.com")) == 1


async def test_a_report_waits_no_longer_than_a_thread_for_it(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("nobody@x", NEVER)
    async with at_work(tmp_path, clock, courier) as desk:
        asyncio.get_running_loop().set_default_executor(FewThreads(1))
        await desk.queue(envelope(), "nobody@x")
        await until(lambda: "queue_failed" in names(log) and clock.resting == 2)
        clock.jump()
        await until(lambda: desk.store.waiting == 0)
    assert clock.now() == START + FIRST_PAUSE
    assert names(log)[:3] == ["failed", "queue_failed", "bounced"]


async def test_a_report_that_is_put_off_does_not_wait_for_a_clock_that_was_ahead(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.answer("nobody@x", NEVER)
    async with at_work(tmp_path, clock, courier, BrokenOnce()) as desk:
        await desk.queue(envelope(), "nobody@x")
        await desk.rest()
    clock.set(START - 5 * HOUR)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.pass_time(HOUR + 1)
        assert desk.store.waiting == 0
    assert len(courier.of("sender@example.com")) == 1


class Failing(QueueStore):
    """A queue whose disk fails for a while."""

    failures = 0

    async def record(
        self,
        message: QueuedMessage,
        results: Sequence[Result],
        now: float,
        news: LaneNews | None = None,
    ) -> Recorded:
        await self._fail()
        return await super().record(message, results, now, news)

    async def due(self, now: float, limits: Limits) -> Work:
        await self._fail()
        return await super().due(now, limits)

    async def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise QueueFailed("disk I/O error")


async def test_what_was_delivered_is_recorded_when_the_queue_is_back(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    store = Failing.open(str(tmp_path), 0)
    assert isinstance(store, Failing)
    free = courier.hold("iain@example.com")
    async with at_work(tmp_path, clock, courier, store=store) as desk:
        await desk.queue(envelope())
        await until(lambda: desk.scheduler.moving == 1)
        store.failures = 20
        free.set()
        while desk.store.waiting:
            await until(lambda: desk.clock.resting == 2 or desk.store.waiting == 0)
            if desk.store.waiting:
                desk.clock.jump()
    assert len(courier.attempts) == 1
    assert names(log) == ["queue_failed"] * 20 + ["delivered", "message_finished"]


async def test_a_queue_that_cannot_be_asked_is_asked_again(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    store = Failing.open(str(tmp_path), 0)
    assert isinstance(store, Failing)
    store.failures = 3
    async with at_work(tmp_path, clock, courier, store=store) as desk:
        await desk.rest()
        await desk.pass_time(3600)
        await desk.queue(envelope())
        await desk.rest()
        assert desk.store.waiting == 0
    assert names(log) == ["queue_failed"] * 3 + ["delivered", "message_finished"]


@pytest.mark.parametrize("others", [(), ("bob@x",)], ids=["gone", "kept"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (HERE, ["delivered"]),
        (LATER, []),
        (NEVER, []),
        (Moved("mx.example.net"), []),
        (Expanded((Target("ann@x"),)), []),
        (Expanded((Target("ann@x"),), "1 mailbox"), ["partly_delivered"]),
        (Partly("|later", "iain", "|first"), ["partly_delivered"]),
    ],
)
async def test_of_an_attempt_that_an_operator_was_ahead_of_what_was_delivered_is_told(
    tmp_path: Path,
    clock: JumpingClock,
    courier: ScriptedCourier,
    log: list[Event],
    answer: Answer,
    told: list[str],
    others: tuple[str, ...],
) -> None:
    free = courier.hold("iain@x")
    courier.answer("iain@x", answer)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "iain@x", *others)
        await until(lambda: desk.scheduler.moving == 1)
        operate(tmp_path, clock, Verb.REMOVE, "iain@x")
        free.set()
        await desk.rest()
    assert [event["event"] for event in log if event.get("recipient") == "iain@x"] == told
    assert [event["recipient"] for event in log if event["event"] == "delivered"] == [
        *(["iain@x"] if answer is HERE else []),
        *others,
    ]


async def test_what_is_held_while_it_is_tried_has_no_next_attempt(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    free = courier.hold("iain@x")
    courier.answer("iain@x", LATER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "iain@x")
        await until(lambda: desk.scheduler.moving == 1)
        operate(tmp_path, clock, Verb.HOLD, "iain@x")
        free.set()
        await desk.rest()
    (deferred,) = (event for event in log if event["event"] == "deferred")
    assert deferred["next_attempt"] == ""


def operate(root: Path, clock: JumpingClock, verb: Verb, address: str) -> None:
    """As another process, and as far as it is told of."""
    operator = QueueOperator(str(root), clock.now)
    assert [*operator.apply(verb, Selection(to=AddressPattern.parse(address)))]


async def test_stop_lets_attempts_finish(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    free = courier.hold("iain@example.com")
    desk = Desk(tmp_path, clock, courier)
    queue_id = await desk.queue(envelope())
    await until(lambda: desk.scheduler.moving == 1)
    stopping = asyncio.ensure_future(desk.stop())
    await asyncio.sleep(0)
    free.set()
    await stopping
    assert entry(tmp_path, queue_id) is None


async def test_an_attempt_that_does_not_finish_is_made_again(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.hold("iain@example.com")
    store = QueueStore.open(str(tmp_path), 0)
    scheduler = Scheduler(
        store,
        lambda: courier,
        lambda: DsnReporter(Queue(), "mail.example.com"),
        RetryPolicy(DAY, lambda: 0.0),
        clock,
        new_id,
        limits(local=1),
    )
    running = asyncio.ensure_future(scheduler.run(grace=0))
    await store.add(envelope(), content(), targets())
    await until(lambda: scheduler.moving == 1)
    scheduler.stop()
    await running
    await store.close()
    patient = ScriptedCourier(clock.now)
    async with at_work(tmp_path, clock, patient) as desk:
        await desk.rest()
        assert desk.store.waiting == 0
    assert [attempt.again for attempt in patient.attempts] == [True]


async def test_a_failed_notification_without_a_sender_is_dropped(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("iain@example.com", NEVER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(from_nobody("iain@example.com"))
        await desk.rest()
    assert names(log) == ["failed", "bounce_dropped", "message_finished"]


async def test_a_reply_of_any_text_can_be_kept(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    strange = PermanentFailure(Reply(550, "1.1", "a\udcffb\x00\n" + "x" * 100_000))
    courier.answer("iain@x", strange)
    courier.answer("ann@x", LATER)
    async with at_work(tmp_path, clock, courier) as desk:
        queue_id = await desk.queue(envelope(), "iain@x", "ann@x")
        await desk.rest()
        kept = entry(tmp_path, queue_id)
    assert kept is not None
    assert kept.recipients[0].state is RecipientState.FAILED
    last = kept.recipients[0].last
    assert last is not None
    assert len(last.reply.text) == 2000
    assert courier.of(str(Address("sender", "example.com")))
