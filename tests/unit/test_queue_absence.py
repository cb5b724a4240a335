"""Time in which nobody could be tried gives up nobody: sleep, a server that was down, a clock
that jumps ahead."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from restante.config.tree import DAY, HOUR
from restante.queue import QueueFailed
from restante.queue.absence import ABSENT, STAMP, STAMP_EVERY, Attendance
from restante.queue.operate import QueueOperator, Verb
from restante.queue.retry import Absence, RetryPolicy
from restante.queue.selection import Selection
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import Work
from tests.support.desk import Desk, Event, at_work, names
from tests.support.events import capture_logs
from tests.support.jumping_clock import START, JumpingClock, until
from tests.support.queued import envelope, from_nobody, limits
from tests.support.scripted_courier import HERE, LATER, ScriptedCourier

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
        assert told["seconds"] == 8 * DAY
        assert names(log).count("deferred") <= 3, "no row of the others is written"
        await desk.pass_time(WEEK - HOUR)
        assert desk.store.waiting == 30
        await desk.pass_time(11 * HOUR)
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
            if self.fails:
                raise QueueFailed("the disk is away")
            return await super().due(now, limits)

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


async def test_neither_does_a_full_disk(
    tmp_path: Path,
    clock: JumpingClock,
    courier: ScriptedCourier,
    log: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be written holds in memory; and in the next life, for the last look is as old."""
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@dead")
        await sleep(desk, 8 * DAY)
        assert len(courier.attempts) == 2
        await desk.pass_time(HOUR)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 1
    assert "queue_failed" not in names(log)


async def test_an_attempt_that_slept_is_not_the_last_one(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    """Its connection is gone when the machine wakes, whether that was seen before or not."""
    courier.lane_fails("dead")
    courier.answer("a@far", LATER)
    gates = [courier.hold("a@dead"), courier.hold("a@far")]
    async with at_work(tmp_path, clock, courier, policy=POLICY, most=limits(per_lane=1)) as desk:
        for address in ("a@far", "a@dead", "b@dead", "c@dead"):
            await desk.queue_in_lanes(from_nobody(), address)
        await until(lambda: desk.scheduler.moving == 2 and clock.resting > 0)
        clock.set(START + 8 * DAY)
        for gate in gates:
            gate.set()
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 4
        assert len(courier.of("a@far")) == 3, "it is tried as if it had come now"
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
    """What waited is given up when it would have been."""
    courier.answer("a@far", LATER)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@far")
        await sleep(desk, 3650 * DAY)
        await desk.pass_time(DAY)
        assert desk.store.waiting == 1
        if not down:
            await sleep(desk, -3650 * DAY)
            await desk.pass_time(HOUR / 2)
    if down:
        clock.set(START + DAY)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.pass_time(WEEK - 2 * DAY)
        assert desk.store.waiting == 1
        await desk.pass_time(DAY + 10 * HOUR)
        assert len(courier.of("a@far")) > 10
        assert desk.store.waiting == 0


async def test_what_a_clock_that_was_ahead_spared_is_delivered(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        for _ in range(30):
            await desk.queue_in_lanes(from_nobody(), "a@dead")
        await sleep(desk, 8 * DAY)
        await desk.pass_time(DAY)
        courier.lane_works("dead")
        courier.answer("a@dead", HERE)
        await sleep(desk, -8 * DAY)
        await desk.pass_time(4 * HOUR)
        assert desk.store.waiting == 0
    assert "failed" not in names(log)


async def test_a_clock_that_is_wrongly_set_back_gives_up_nobody_early(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.lane_fails("dead")
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        await desk.queue_in_lanes(from_nobody(), "a@dead")
        await desk.pass_time(HOUR)
        await sleep(desk, -3 * DAY)
        await desk.pass_time(HOUR / 2)
        await sleep(desk, 3 * DAY)
        await desk.pass_time(WEEK - 2 * HOUR)
        assert desk.store.waiting == 1
        await desk.pass_time(10 * HOUR)
        assert desk.store.waiting == 0


async def test_what_was_released_waits_like_any_other(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier
) -> None:
    courier.lane_fails("dead")
    operator = QueueOperator(str(tmp_path), clock.now)
    async with at_work(tmp_path, clock, courier, policy=POLICY) as desk:
        queue_id = await desk.queue_in_lanes(from_nobody(), "a@dead")
        await desk.pass_time(HOUR)
        for verb in (Verb.HOLD, Verb.RELEASE):
            assert list(operator.apply(verb, Selection(frozenset([queue_id]))))
        await sleep(desk, 8 * DAY)
        await desk.pass_time(WEEK - HOUR)
        assert desk.store.waiting == 1


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


async def test_a_start_in_1970_is_no_absence(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    for now in (START, 20.0):
        clock.set(now)
        async with at_work(tmp_path, clock, courier) as desk:
            await desk.pass_time(HOUR)
            if now < START:
                await sleep(desk, START + HOUR + 60 - clock.now())
    assert "queue_unattended" not in names(log)


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
        assert path.read_text() == ""
        await sleep(desk, 2 * DAY)
        await until(lambda: path.stat().st_mtime > START)
        assert json.loads(path.read_text()) == [[clock.now() - 2 * DAY, clock.now()]]
    assert os.stat(path).st_mode & 0o777 == 0o600


async def test_a_delay_is_told_without_a_time_that_is_over(
    tmp_path: Path, clock: JumpingClock, courier: ScriptedCourier, log: list[Event]
) -> None:
    courier.answer("a@far", LATER)
    policy = RetryPolicy(WEEK, lambda: 0.0, delay_notice=4 * HOUR)
    async with at_work(tmp_path, clock, courier, policy=policy) as desk:
        await desk.queue_in_lanes(envelope(), "a@far")
        await sleep(desk, 8 * DAY)
        await desk.pass_time(HOUR)
        assert names(log).count("reported") == 1
    report = courier.in_lane("")[-1].content.read()
    assert b"Action: delayed" in report
    assert b"Will-Retry-Until" not in report
    assert b"it is tried for some time yet" in b" ".join(report.split())


def test_absences_have_no_moment_in_common(tmp_path: Path) -> None:
    attendance = Attendance(str(tmp_path))
    assert attendance.note(None, START, WEEK) is None, "nobody knows"
    assert attendance.note(START, START + DAY, WEEK) == Absence(START, START + DAY)
    assert attendance.note(None, START + DAY + ABSENT, WEEK) is None
    later = attendance.note(START, START + DAY + 2 * ABSENT, WEEK)
    assert later == Absence(START + DAY, START + DAY + 2 * ABSENT)
    assert len(attendance.absences) == 2
    attendance.note(START + WEEK, START + 2 * WEEK, WEEK)
    assert list(attendance.absences) == [Absence(START + WEEK, START + 2 * WEEK)], "others are over"
    attendance.set_back(START + WEEK)
    assert list(attendance.absences) == []


@pytest.mark.parametrize("content", [b"", b"[[1", b"[1, 2]", b"{}", b"[[1, 2, 3]]", b"\xff"])
def test_what_is_damaged_is_no_absence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STAMP).write_bytes(content)
    attendance = Attendance(str(tmp_path))
    assert attendance.absences == ()
    attendance.note(START, START + DAY, WEEK)
    attendance.keep(START + DAY)
    assert Attendance(str(tmp_path)).absences == (Absence(START, START + DAY),)
