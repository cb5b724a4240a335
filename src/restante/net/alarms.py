"""When connections have to be woken: one timer of the event loop for all of them.

Nearly all of them wait for minutes, and are gone or have gone on by then. A timer for each would
take half a kibibyte, and more time to be set and cancelled than a place in a set.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK = 0.25
"""Seconds that an alarm may be late."""


def tick_of(when: float) -> int:
    """The first tick that is not before a time by the event loop's clock."""
    return math.ceil(when / TICK)


class Sleeper(Protocol):
    """Who is woken."""

    def wake_up(self) -> None:
        """It is time."""
        ...


class Alarms:
    """Sleepers by the tick at which they are woken. Belongs to one event loop."""

    def __init__(self) -> None:
        self._sleepers: dict[int, set[Sleeper]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings: float = math.inf
        """The tick at which the timer fires: that of the first of them, or an earlier one."""

    def set(self, sleeper: Sleeper, tick: int) -> None:
        """Wake it once, at a tick."""
        sleepers = self._sleepers.get(tick)
        if sleepers is None:
            sleepers = self._sleepers[tick] = set()
        sleepers.add(sleeper)
        if tick < self._rings:
            self._ring_at(tick)

    def clear(self, sleeper: Sleeper, tick: int) -> None:
        """Let it sleep; ``tick`` is what was set."""
        sleepers = self._sleepers.get(tick)
        if sleepers is not None:
            sleepers.discard(sleeper)
            if not sleepers:
                del self._sleepers[tick]

    def _ring_at(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(tick * TICK, self._ring)
        self._rings = tick

    def _ring(self) -> None:
        self._timer, self._rings = None, math.inf
        now = asyncio.get_running_loop().time() / TICK
        for tick in [tick for tick in self._sleepers if tick <= now]:
            for sleeper in self._sleepers.pop(tick, ()):
                sleeper.wake_up()
        if self._sleepers:
            self._ring_at(min(self._sleepers))
