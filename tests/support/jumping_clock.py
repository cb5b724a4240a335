"""A clock that stands still until everybody waits for it, and then jumps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

START = 1_800_000_000.0
PATIENCE = 60.0
"""Real seconds after which a test that waits for the code to come to rest fails."""


class JumpingClock:
    """``restante.queue.clock.Clock`` for tests: seconds pass only in ``jump``."""

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Event, asyncio.Event]] = []

    def now(self) -> float:
        return self._now

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        over = asyncio.Event()
        sleeper = (self._now + seconds, next(self._order), event, over)
        heapq.heappush(self._sleepers, sleeper)
        waits = [asyncio.ensure_future(each.wait()) for each in (event, over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            self._sleepers.remove(sleeper)
            heapq.heapify(self._sleepers)

    @property
    def resting(self) -> int:
        """How many wait for nothing but time."""
        return sum(not (event.is_set() or over.is_set()) for *_, event, over in self._sleepers)

    @property
    def next(self) -> float:
        """The first time that somebody waits for."""
        return self._sleepers[0][0]

    def jump(self) -> float:
        """Go on to the first time that somebody waits for, and wake them; the seconds passed."""
        before = self._now
        self._now = max(self._now, self._sleepers[0][0])
        for until, _, _, over in self._sleepers:
            if until <= self._now:
                over.set()
        return self._now - before

    def set(self, now: float) -> None:
        """Make it ``now``, waking nobody."""
        self._now = now


async def until(condition: Callable[[], bool]) -> None:
    """Give others the loop, and their threads the processor, until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in threads
            await asyncio.sleep(0.001)
