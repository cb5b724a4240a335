"""Connections are woken when it is time, by one timer for all of them."""

from __future__ import annotations

import asyncio

from restante.net.alarms import TICK, Alarms, tick_of

PATIENCE = 60.0
"""Seconds until a test that waits for ever fails."""


class Sleeper:
    """Counts how often it was woken, and may sleep on."""

    def __init__(self, alarms: Alarms, again: int = 0) -> None:
        self.alarms, self.again = alarms, again
        self.woken: list[float] = []
        self.has_slept = asyncio.Event()

    def sleep(self, seconds: float) -> int:
        tick = tick_of(asyncio.get_running_loop().time() + seconds)
        self.alarms.set(self, tick)
        return tick

    def wake_up(self) -> None:
        self.woken.append(asyncio.get_running_loop().time())
        if len(self.woken) <= self.again:
            self.sleep(TICK)
        else:
            self.has_slept.set()


async def slept(*sleepers: Sleeper) -> None:
    async with asyncio.timeout(PATIENCE):
        for sleeper in sleepers:
            await sleeper.has_slept.wait()


async def test_nobody_is_woken_before_it_is_time() -> None:
    alarms = Alarms()
    sleepers = [Sleeper(alarms) for _ in range(3)]
    # The last one first: the timer is set for another and has to be set again.
    due = [asyncio.get_running_loop().time() + seconds for seconds in (3 * TICK, TICK, 2 * TICK)]
    for sleeper, when in zip(sleepers, due, strict=True):
        alarms.set(sleeper, tick_of(when))
    await slept(*sleepers)
    assert all(each.woken[0] >= when for each, when in zip(sleepers, due, strict=True))
    assert [len(each.woken) for each in sleepers] == [1, 1, 1]


async def test_whoever_is_cleared_sleeps_on() -> None:
    alarms = Alarms()
    sleeper, cleared, other = (Sleeper(alarms) for _ in range(3))
    tick = sleeper.sleep(TICK)
    alarms.set(cleared, tick)
    alarms.clear(cleared, tick)
    alarms.clear(cleared, tick)  # that it does nothing
    other.sleep(3 * TICK)
    await slept(sleeper, other)
    assert not cleared.woken


async def test_who_is_woken_may_sleep_again() -> None:
    sleeper = Sleeper(Alarms(), again=2)
    sleeper.sleep(0)
    await slept(sleeper)
    assert len(sleeper.woken) == 3


async def test_who_is_woken_may_clear_another_of_the_same_time() -> None:
    alarms = Alarms()
    first, second, last = (Sleeper(alarms) for _ in range(3))
    early, late = first.sleep(0), second.sleep(TICK)

    def wake_up() -> None:
        alarms.clear(second, late)
        first.has_slept.set()

    first.wake_up = wake_up  # type: ignore[method-assign]
    last.sleep(2 * TICK)
    await slept(first, last)
    assert early < late
    assert not second.woken


async def test_nothing_is_kept_of_those_that_are_gone() -> None:
    alarms = Alarms()
    for _ in range(10):
        sleeper = Sleeper(alarms)
        alarms.clear(sleeper, sleeper.sleep(PATIENCE))
    assert not alarms._sleepers
