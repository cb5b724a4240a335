"""Which processor a worker's threads run on.

Threads of one interpreter work in turns, and a turn that passes to another processor costs both
some of their memory caches, and an interrupt. A worker with a crowd of sessions therefore keeps its
threads on one processor, if there is a worker for each. With one session alone nothing is gained:
the kernel brings the threads to the processors that client, database and disk work on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Collection, Iterator
from typing import Protocol

ROAMING = "roaming "
"""What the names of threads begin with that work for long without the interpreter, or start other
programs: they are never kept, and call ``roam`` first."""
CROWD = 2
"""Sessions at a time."""
REVIEW = 1.0
"""Seconds between two looks whether there still is one."""


class Sessions(Protocol):
    """What there is to see of them."""

    @property
    def held(self) -> int:
        """How many there are."""
        ...

    def most(self) -> int:
        """The most at a time since the last question."""
        ...


def roam() -> None:
    """Let this thread run wherever the server may."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, _anywhere())


def own_processor(number: int, workers: int) -> int | None:
    """That of the ``number``-th of so many workers; None where they are too few, or it alone."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[number % len(usable)] if workers >= len(usable) > 1 else None


class Berth:
    """One worker's processor. Belongs to its event loop."""

    def __init__(self, processor: int | None, sessions: Sessions) -> None:
        """``processor``: None for a worker that has none of its own."""
        self._own = processor
        self._sessions = sessions
        self._next: asyncio.TimerHandle | None = None
        """The next look, while the threads are kept."""

    def arrived(self) -> None:
        """There is one session more."""
        if self._next is None and self._own is not None and self._sessions.held >= CROWD:
            _move({self._own})
            self._look_again()

    def close(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()

    def _look_again(self) -> None:
        self._next = asyncio.get_running_loop().call_later(REVIEW, self._review)

    def _review(self) -> None:
        if self._sessions.most() >= CROWD:
            self._look_again()
        else:
            self._next = None
            _move(_anywhere())


def _move(processors: Collection[int]) -> None:
    """All threads but those that roam; one that has just ended, or may not be there, stays."""
    for thread in _kept_threads():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, processors)


def _kept_threads() -> Iterator[int]:
    yield 0  # the caller's: after a fork its native_id is that of the parent's (before Python 3.13)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.name.startswith(ROAMING):
            yield thread.native_id or 0


def _anywhere() -> set[int]:
    """Where the process that started this one may be: nobody moves that."""
    return os.sched_getaffinity(os.getppid())
