"""One next hop never holds up another; and what becomes of mail for one that is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from restante.config.tree import DAY, HOUR
from restante.envelope import Notify, RecipientDsn
from restante.queue import LOCAL_LANE, BackOff, Expanded, Moved, Target, Untried
from restante.queue.lanes import settle_lanes
from restante.queue.reader import QueueReader
from restante.queue.retry import LOCAL_STEP, LONGEST_BACK_OFF, RetryPolicy
from restante.queue.rows import REPORT_PATIENCE
from restante.queue.schema import connect_writer
from restante.queue.store import QueueStore
from restante.queue.wake import wake
from restante.status import Delivered
from tests.support.desk import Event, at_work, names
from tests.support.events import capture_logs
from tests.support.jumping_clock import START, JumpingClock, until
from tests.support.queued import content, envelope, from_nobody, limits
from tests.support.scripted_courier import DOWN, HERE, LATER, NEVER, PEER, ScriptedCourier


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


def reports(courier: ScriptedCourier) -> list[str]:
    """What senders were told, in the order in which they were."""
    return [
        call.content.read().decode()
        for call in courier.calls
        if call.recipients[0].target.address == "sender@example.com"
    ]


async def test_hundreds_in_a_dead_lane_hold_up_nobody(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, most=limits(remote=4, per_lane=2)) as desk:
        for number in range(300):
            await desk.queue_in_lanes(envelope(at=START - 300 + number), "a@dead")
        await desk.rest()
        together = len(courier.in_lane("dead"))
        assert together <= 2
        for number in range(20):
            await desk.queue_in_lanes(envelope(), f"u{number}@good")
        await desk.rest()
        assert len(courier.in_lane("good")) == 20
        assert desk.store.waiting == 300
        await desk.pass_time(HOUR)
        alone = len(courier.in_lane("dead")) - together
        assert alone == 5, "after 1, 3, 7, 15 and 31 minutes"
    assert names(log).count("lane_blocked") == 6


async def test_a_lane_that_works_again_is_emptied(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("far")
    async with at_work(tmp_path, clock, courier, most=limits(per_lane=4)) as desk:
        for _ in range(50):
            await desk.queue_in_lanes(envelope(), "a@far")
        await desk.pass_time(30)
        courier.lane_works("far")
        tried = len(courier.calls)
        assert tried <= 4
        assert desk.store.waiting == 50
        await desk.pass_time(40)
        assert desk.store.waiting == tried, "those wait for their own time"
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    assert [event["lane"] for event in log if event["event"] == "lane_recovered"] == ["far"]


async def test_a_lane_that_was_not_asked_has_not_recovered(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("far")
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue_in_lanes(envelope(), "a@far", "b@far")
        await desk.pass_time(30)
        courier.lane_works("far")
        courier.answer("a@far", Moved("near"), HERE)
        courier.answer("b@far", Untried(), HERE)
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    told = [name for name in names(log) if name in ("moved", "delivered", "lane_recovered")]
    assert told == ["moved", "delivered", "lane_recovered", "delivered"]


async def test_a_clock_that_is_set_back_delays_nobody(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Neither one who waits, nor one whose lane is left alone, nor a report."""
    courier.answer("a@here", LATER, HERE)
    courier.answer("b@dead", LATER, HERE)
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(from_nobody(), "a@here")
        await desk.queue_in_lanes(from_nobody(), "b@dead")
        await desk.rest()
        courier.lane_works("dead")
        clock.set(START - 5 * HOUR)
        desk.scheduler.notify()
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    assert "clock_set_back" in names(log)


async def test_what_comes_to_be_queued_while_the_clock_is_set_back_is_tried(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    """It bears the time at which it began to come."""
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.rest()
        clock.set(START - 5 * HOUR)
        desk.scheduler.notify()
        await desk.rest()
        await desk.queue(from_nobody(at=START), "a@here")
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0


@pytest.mark.parametrize("ahead", [5 * HOUR, 400 * DAY])
@pytest.mark.parametrize("address", ["a@here", "b@dead", "new@here"])
async def test_a_clock_that_is_set_back_between_two_lives_delays_nobody(
    tmp_path: Path,
    clock: JumpingClock,
    courier: ScriptedCourier,
    log: list[Event],
    address: str,
    ahead: float,
) -> None:
    """Neither one who was tried, nor one whose lane is left alone, nor one who is new."""
    courier.answer("a@here", LATER, HERE)
    courier.answer("b@dead", LATER, HERE)
    courier.lane_fails("dead")
    if address == "new@here":
        store = QueueStore.open(str(tmp_path), 0)
        await store.add(from_nobody(), content(), [Target(address)])
        await store.close()
    else:
        async with at_work(tmp_path, clock, courier) as desk:
            await desk.queue_in_lanes(from_nobody(), address)
            await desk.rest()
    courier.lane_works("dead")
    clock.set(START - ahead)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    assert "clock_set_back" in names(log)


async def test_what_is_old_waits_no_longer_than_it_may(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    """And no shorter, where nothing shows that the clock was set back."""
    courier.answer("a@here", LATER, HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(from_nobody(at=START - 10_000), "a@here")
        await desk.rest()
    waits = RetryPolicy(DAY, lambda: 0.0).next_attempt(START - 10_000, START, LOCAL_STEP)
    assert waits == START + 2100
    clock.set(START - 1000)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.pass_time(3000)
        assert len(courier.attempts) == 1
        await desk.pass_time(200)
        assert len(courier.attempts) == 2


@pytest.mark.parametrize("ahead", [HOUR, 30 * DAY])
async def test_a_step_back_is_told_of_once(
    tmp_path: Path,
    clock: JumpingClock,
    courier: ScriptedCourier,
    log: list[Event],
    ahead: float,
) -> None:
    """What was tried by a clock that was ahead waits as long as it may, by that: not for longer."""
    courier.lane_fails("dead")
    courier.answer("a@far", LATER)
    courier.answer("b@far", LATER)
    policy = RetryPolicy(60 * DAY, lambda: 0.999)
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far", "a@dead")
        await desk.rest()
        clock.set(START + ahead)
        await desk.queue_in_lanes(from_nobody(at=clock.now()), "b@far", "b@dead")
        await desk.pass_time(3 * DAY)
        clock.set(clock.now() - ahead)
        desk.scheduler.notify()
        await desk.pass_time(HOUR)
    assert names(log).count("clock_set_back") == 1


async def test_a_restart_without_a_jump_brings_nothing_forward(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@here", LATER, HERE)
    courier.lane_fails("dead", BackOff("it is down", LONGEST_BACK_OFF))
    policy = RetryPolicy(DAY, lambda: 0.999)
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@here", "b@dead")
        await desk.rest()
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.rest()
        assert len(courier.attempts) == 2
    assert "clock_set_back" not in names(log)


async def test_a_restart_remembers_that_a_lane_is_down(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue_in_lanes(envelope(), "a@dead")
        await desk.rest()
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue_in_lanes(envelope(), "b@dead")
        await desk.rest()
    assert courier.of("b@dead") == []


async def test_one_message_to_fifty_domains_gives_one_report(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    everybody = [f"u@d{number}" for number in range(50)]
    for number, address in enumerate(everybody):
        courier.answer(address, NEVER if number < 20 else LATER if number < 25 else HERE)
    courier.lane_fails("d49")
    async with at_work(tmp_path, clock, courier, most=limits(per_message=7)) as desk:
        await desk.queue_in_lanes(envelope(), *everybody)
        await desk.rest()
        assert names(log).count("bounced") == 1
        (report,) = reports(courier)
        told = [line for line in report.splitlines() if line.startswith("Final-Recipient")]
        assert sorted(told) == sorted(f"Final-Recipient: rfc822; u@d{n}" for n in range(20))
        await desk.pass_time(2 * DAY)
        assert desk.store.waiting == 0
    assert len(reports(courier)) == 2, "and one for those that were given up"


async def test_a_lane_that_hangs_does_not_hold_a_report_back_for_ever(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    free = courier.hold("a@tarpit")
    courier.answer("nobody@good", NEVER)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue_in_lanes(envelope(), "a@tarpit", "nobody@good")
        await until(lambda: desk.scheduler.moving == 1 and clock.resting == 1)
        assert reports(courier) == []
        assert clock.next == START + 300  # LONGEST_PAUSE
        clock.jump()
        await until(lambda: clock.resting == 1)
        assert clock.next == START + REPORT_PATIENCE
        clock.jump()
        await until(lambda: len(reports(courier)) == 1)
        free.set()
        await desk.rest()
        assert desk.store.waiting == 0


async def test_nobody_waits_for_ever_in_a_dead_lane(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, most=limits(remote=4, per_lane=2)) as desk:
        for _ in range(250):
            await desk.queue_in_lanes(envelope(), "a@dead", "b@dead")
        await desk.pass_time(DAY + 4 * HOUR + LONGEST_BACK_OFF)
        assert desk.store.waiting == 0
    assert names(log).count("failed") == 500
    assert names(log).count("bounced") == 250
    assert len(courier.in_lane("dead")) < 100
    assert len(reports(courier)) == 250
    untried = [report for report in reports(courier) if DOWN.why in report]
    assert len(untried) > 150
    assert not [report for report in untried if "ann@example.net" in report], "another's address"


async def test_a_sender_is_told_of_a_delay_once_and_on_time(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@far", LATER)
    policy = RetryPolicy(DAY, lambda: 0.0, delay_notice=4 * HOUR)
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.queue_in_lanes(envelope(), "a@far")
        await desk.pass_time(4 * HOUR - 1)
        assert names(log).count("reported") == 0
        await desk.pass_time(2)
        assert names(log).count("reported") == 1
        assert desk.store.waiting == 1
        await desk.pass_time(DAY)
        assert desk.store.waiting == 0
    actions = [line for text in reports(courier) for line in text.splitlines() if "Action:" in line]
    assert actions == ["Action: delayed", "Action: failed"]


async def test_those_without_an_attempt_of_their_own_are_called_late_too(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("dead")
    policy = RetryPolicy(DAY, lambda: 0.0, delay_notice=4 * HOUR)
    async with at_work(tmp_path, clock, courier, policy=policy, most=limits(per_lane=1)) as desk:
        for _ in range(150):
            await desk.queue_in_lanes(envelope(), "a@dead")
        await desk.pass_time(4 * HOUR + LONGEST_BACK_OFF + 1)
        assert names(log).count("reported") == 150
        await desk.pass_time(4 * HOUR)
        assert names(log).count("reported") == 150, "once"


async def test_a_success_is_told_only_by_the_last_who_knows(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    dsn = RecipientDsn(Notify.SUCCESS)
    courier.answer("list@here", Expanded((Target("a@x"), Target("b@y", lane="y"))))
    courier.answer("c@y", Delivered("250 ok", PEER))
    async with at_work(tmp_path, clock, courier) as desk:
        goals = [
            Target("list@here", dsn=dsn),
            Target("c@y", lane="y", dsn=dsn),
            Target("d@here", dsn=dsn),
        ]
        await desk.store.add(envelope(), content(), goals)
        await desk.rest()
        assert desk.store.waiting == 0
    (report,) = reports(courier)
    actions = [line for line in report.splitlines() if line.startswith("Action:")]
    assert sorted(actions) == ["Action: delivered", "Action: expanded", "Action: relayed"]


async def test_what_is_in_the_wrong_lane_is_tried_in_the_right_one_at_once(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@x", Moved("next.example"), HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "a@x", "b@x")
        await desk.rest()
        assert desk.store.waiting == 0
    assert [(call.lane, len(call.recipients)) for call in courier.calls] == [
        (LOCAL_LANE, 2),
        ("next.example", 1),
    ]
    assert sorted(names(log)) == ["delivered", "delivered", "message_finished", "moved"]


async def test_who_had_no_place_in_an_attempt_is_in_the_next(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Whatever became of the others: here the host refuses one and delivers the other."""
    courier.answer("a@x", NEVER)
    courier.answer("b@x", Untried(), HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@x", "b@x")
        await desk.rest()
        assert desk.store.waiting == 0
    assert [len(call.recipients) for call in courier.calls] == [2, 1]
    assert clock.now() == START
    assert "deferred" not in names(log)


async def test_routes_that_contradict_each_other_do_not_spin(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.answer("a@x", *[Moved("one"), Moved("two")] * 1000)
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.queue(envelope(), "a@x")
        await desk.pass_time(10)
    assert len(courier.calls) == 11


async def test_an_operators_change_is_seen_at_once(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@x", LATER, HERE)
    async with at_work(tmp_path, clock, courier) as desk:
        queue_id = await desk.queue(envelope(), "a@x")
        await desk.rest()
        change(tmp_path, "UPDATE recipient SET state = 'held', next_attempt = 0")
        wake(str(tmp_path / "0"))
        await until(lambda: "queue_changed" in names(log))
        await desk.pass_time(DAY / 2)
        assert len(courier.calls) == 1
        change(tmp_path, "UPDATE recipient SET state = 'waiting'")
        wake(str(tmp_path / "0"))
        await until(lambda: desk.store.waiting == 0)
        await desk.rest()
    assert QueueReader(str(tmp_path)).message(queue_id) is None


def change(root: Path, statement: str) -> None:
    with closing(connect_writer(str(root / "0"))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement)
        settle_lanes(connection, [LOCAL_LANE], START)
        connection.execute("COMMIT")
