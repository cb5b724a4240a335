"""Time in which nobody looked at a queue: sleep, a server that was down, a clock that jumped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.tree import DAY, HOUR
from restante.queue.absence import ABSENT, STAMP, STAMP_EVERY
from restante.queue.retry import RetryPolicy
from tests.support.desk import Desk, Event, at_work, names
from tests.support.events import capture_logs
from tests.support.jumping_clock import START, JumpingClock, until
from tests.support.queued import from_nobody, limits
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


async def test_a_sleep_is_noticed(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    async with at_work(tmp_path, clock, courier) as desk:
        called = asyncio.Event()
        desk.store.heed(called.set)
        await sleep(desk, 8 * DAY)
        assert called.is_set(), "what was known of hosts is old"
    assert [event["seconds"] for event in log if event["event"] == "queue_unattended"] == [8 * DAY]


async def test_so_is_that_the_server_was_down(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    for down in (0.0, 8 * DAY, HOUR / 2, 2 * HOUR):
        clock.set(clock.now() + down)
        async with at_work(tmp_path, clock, courier) as desk:
            await desk.rest()
    told = [event["seconds"] for event in log if event["event"] == "queue_unattended"]
    assert told == [8 * DAY, pytest.approx(2.5 * HOUR, abs=STAMP_EVERY + HOUR / 2)]


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
        await desk.rest()
        assert desk.store.waiting == 3
    assert "failed" not in names(log)


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
