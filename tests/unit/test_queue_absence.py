"""Time in which nobody could be tried gives up nobody: sleep, a server that was down, a clock
that jumps ahead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.tree import DAY, HOUR
from restante.queue import QueueFailed
from restante.queue.absence import ABSENT, STAMP, STAMP_EVERY
from restante.queue.retry import LONGEST_BACK_OFF, RetryPolicy
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import Work
from tests.support.desk import Desk, Event, at_work, names
from tests.support.events import capture_logs
from tests.support.jumping_clock import START, JumpingClock, until
from tests.support.queued import envelope, from_nobody, limits
from tests.support.scripted_courier import LATER, ScriptedCourier

WEEK = 7 * DAY
POLICY = RetryPolicy(WEEK, lambda: 0.0)


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


async def sleep(desk: Desk, seconds: float) -> None:
    """The time of day goes on, and nobody sees it."""
    await desk.rest()
    desk.clock.set(desk.clock.now() + seconds)
    desk.scheduler.notify()
    await desk.rest()


async def test_a_sleep_gives_up_nobody(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Not by the first failure, and not for as long again; but then all of them."""
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY, most=limits(per_lane=2)) as desk:
        for _ in range(30):
            await desk.queue_in_lanes(from_nobody(), "a@dead")
        called = asyncio.Event()
        desk.store.heed(called.set)
        await sleep(desk, 8 * DAY)
        assert called.is_set(), "what was known of hosts is old"
        (told,) = [event for event in log if event["event"] == "queue_unattended"]
        assert (told["seconds"], told["spared"]) == (8 * DAY, 30)
        await desk.pass_time(DAY)
        assert desk.store.waiting == 30
        await desk.pass_time(WEEK - 2 * DAY)
        assert desk.store.waiting == 30
        await desk.pass_time(DAY + 10 * HOUR)
        assert desk.store.waiting == 0
    assert names(log).count("failed") == 30


async def test_a_server_that_was_down_gives_up_nobody(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Nor does one that is started once more while the mail is spared."""
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@dead", "b@dead")
        await desk.rest()
    for down in (8 * DAY, HOUR / 2, 2 * HOUR):
        clock.set(clock.now() + down)
        async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
            await desk.pass_time(HOUR)
            assert desk.store.waiting == 1
    assert names(log).count("queue_unattended") == 2


async def test_a_disk_that_failed_for_days_gives_up_nobody(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    class Failing(QueueStore):
        """It can neither be read nor written while ``fails``."""

        fails = False

        async def due(self, now: float, limits: Limits) -> Work:
            self._check()
            return await super().due(now, limits)

        async def spare(self, born: float) -> int:
            self._check()
            return await super().spare(born)

        def _check(self) -> None:
            if self.fails:
                raise QueueFailed("the disk is away")

    courier.lane_fails("dead")
    store = Failing.open(str(tmp_path), 0)
    assert isinstance(store, Failing)
    async with at_work(tmp_path, clock, courier, store=store, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@dead")
        await desk.rest()
        store.fails = True
        for _ in range(10):
            clock.set(clock.now() + DAY)
            desk.scheduler.notify()
            await desk.rest()
        store.fails = False
        await desk.pass_time(HOUR)
        assert store.waiting == 1


async def test_an_attempt_that_slept_is_not_the_last_one(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Its connection is gone when the machine wakes, whether that was seen before or not."""
    courier.lane_fails("dead")
    free = courier.hold("a@dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY, most=limits(per_lane=1)) as desk:
        for address in ("a@dead", "b@dead", "c@dead"):
            await desk.queue_in_lanes(from_nobody(), address)
        await until(lambda: desk.scheduler.moving == 1 and clock.resting > 0)
        clock.set(START + 8 * DAY)
        free.set()
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 3
    assert "failed" not in names(log)


async def test_who_is_absent_most_of_the_time_gives_up_mail_too(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    """A laptop that is open for an hour a day."""
    courier.answer("a@far", LATER)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far")
        while desk.store.waiting:
            await desk.pass_time(HOUR)
            await sleep(desk, DAY - HOUR)
    assert WEEK < clock.now() - START <= WEEK + 2 * DAY


@pytest.mark.parametrize("down", [False, True])
async def test_a_clock_that_was_ahead_for_a_day_changes_nothing(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, down: bool
) -> None:
    """Neither for what waited, nor for what came meanwhile: both are given up in time."""
    courier.answer("a@far", LATER)
    courier.answer("b@far", LATER)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far")
        await sleep(desk, 3650 * DAY)
        await desk.queue_in_lanes(from_nobody(at=clock.now()), "b@far")
        await desk.pass_time(DAY)
        assert desk.store.waiting == 2
        if not down:
            await sleep(desk, -3650 * DAY)
            await desk.pass_time(HOUR / 2)
    if down:
        clock.set(START + DAY)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 2
        await desk.pass_time(WEEK - 2 * DAY)
        assert desk.store.waiting == 2
        await desk.pass_time(DAY + 10 * HOUR)
        assert len(courier.of("a@far")) > 10
        assert desk.store.waiting == 1
        await desk.pass_time(2 * DAY)
        assert desk.store.waiting == 0


async def test_a_machine_without_a_clock_of_its_own_gives_up_mail_in_time(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    """It starts in 1970 each day, and hears the time some minutes later."""
    courier.answer("a@far", LATER)
    now = START
    clock.set(now)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far")
        await desk.rest()
    waiting = 1
    while waiting:
        clock.set(20.0)
        async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
            await desk.pass_time(300)
            now += DAY
            await sleep(desk, now - clock.now())
            await desk.pass_time(HOUR)
            waiting = desk.store.waiting
    assert WEEK < now - START <= WEEK + 2 * DAY


async def test_a_short_absence_is_none(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@far", LATER)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(at=START - WEEK + 60), "a@far")
        await sleep(desk, ABSENT)
        await desk.pass_time(10 * HOUR)
        assert desk.store.waiting == 0
    assert "queue_unattended" not in names(log)


async def test_where_nobody_noted_a_look_there_is_no_absence(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@far", LATER)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far")
        await desk.rest()
    (tmp_path / "0" / STAMP).unlink()
    clock.set(START + 8 * DAY)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.rest()
        assert desk.store.waiting == 0
    assert "queue_unattended" not in names(log)


async def test_looks_are_noted_now_and_then(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    """Those of a clock that is set back, too."""
    path = tmp_path / "0" / STAMP
    async with at_work(tmp_path, clock, courier) as desk:
        await desk.rest()
        await until(lambda: path.exists() and path.stat().st_mtime == START)
        await sleep(desk, STAMP_EVERY - 1)
        assert path.stat().st_mtime == START
        await desk.pass_time(HOUR)
        await until(lambda: path.stat().st_mtime >= START + HOUR - STAMP_EVERY)
        await sleep(desk, -DAY)
        await until(lambda: path.stat().st_mtime < START)
    assert os.stat(path).st_mode & 0o777 == 0o600


async def test_a_delay_is_told_from_when_it_could_be_mended(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@far", LATER)
    policy = RetryPolicy(WEEK, lambda: 0.0, delay_notice=4 * HOUR)
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.queue_in_lanes(envelope(), "a@far")
        await sleep(desk, 8 * DAY)
        assert names(log).count("reported") == 0
        await desk.pass_time(4 * HOUR + LONGEST_BACK_OFF)
        assert names(log).count("reported") == 1
