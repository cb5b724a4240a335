"""A bound on how long something may take that happens some thousand times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

NEVER = float("inf")
"""Seconds of the loop."""

_T = TypeVar("_T")


class Overdue:
    """Ends what takes too long, as ``asyncio.timeout_at`` does, with one timer for all of it.

    A timer for each statement would cost a tenth of what the statement does. Belongs to one
    event loop; a task has one thing under way at a time.
    """

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}
        """By whom something is waited for, and until when."""
        self._ended: set[asyncio.Task[Any]] = set()
        """Whose time is up."""
        self._timer: asyncio.Handle | None = None
        """Fires when the first of them is overdue, or earlier."""
        self._fires = NEVER
        """When the timer does; uvloop's does not say where that is at once."""

    async def by(self, until: float, work: Awaitable[_T]) -> _T:
        """What ``work`` comes to; raises TimeoutError ``until`` then (seconds of the loop)."""
        task = asyncio.current_task()
        assert task is not None, "only a task can await something"
        cancelled_before = task.cancelling()
        self._until[task] = until
        if until < self._fires:
            self._look_at(until)
        try:
            return await work
        except asyncio.CancelledError:
            # Where somebody else has cancelled the task as well, that comes first.
            if task in self._ended and task.cancelling() <= cancelled_before + 1:
                raise TimeoutError from None
            raise
        finally:
            del self._until[task]
            if task in self._ended:
                self._ended.remove(task)
                task.uncancel()  # however ``work`` ended: nobody else knows of this one

    def close(self) -> None:
        """Forget the timer, which outlasts what was waited for; what still is keeps its bound."""
        if self._timer is not None and not self._until:
            self._timer.cancel()
            self._timer, self._fires = None, NEVER

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._look)
        self._fires = when

    def _look(self) -> None:
        """Cancel those whose time is up, and come again for the others."""
        self._timer, self._fires = None, NEVER
        now = asyncio.get_running_loop().time()
        for task in [task for task, until in self._until.items() if until <= now]:
            if task not in self._ended:
                self._ended.add(task)
                task.cancel()
        if left := [until for until in self._until.values() if until > now]:
            self._look_at(min(left))
