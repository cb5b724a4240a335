"""How many connections each worker of a server holds, in memory that all of them see.

Whoever holds the fewest, or one more, is due to take the next. The figures only spread work: one
that is wrong for a moment, or of a worker that hangs, makes a connection wait for 2 to 16 ms
(restante.net.acceptor).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

_ABSENT = 0xFFFFFFFF
"""Of a worker that accepts nothing: never the fewest."""
_OCTETS = 4
"""Of a figure: the machine writes it at once, so that nobody reads half of one."""


class Board:
    """The figures of one generation of workers. Made before they are forked."""

    def __init__(self, workers: int) -> None:
        self._figures = memoryview(mmap.mmap(-1, workers * _OCTETS)).cast("I")
        for number in range(workers):
            self.forget(number)

    def forget(self, number: int) -> None:
        """The worker has ended."""
        self._figures[number] = _ABSENT

    def share(self, number: int) -> Share:
        """For the worker itself."""
        return Share(self._figures, number)


class Share:
    """What one worker holds, beside the others."""

    def __init__(self, figures: memoryview[int], number: int) -> None:
        self._figures = figures
        self._number = number
        self._held = 0
        self._most = 0
        self._is_open = False
        self._waiting: set[Callable[[], None]] = set()

    @property
    def held(self) -> int:
        """Connections of this worker."""
        return self._held

    @property
    def is_due(self) -> bool:
        """Whether it holds at most one more than whoever holds the fewest."""
        return self._held <= min(self._figures) + 1

    def open(self) -> None:
        """From now on the worker accepts connections."""
        self._is_open = True
        self._figures[self._number] = self._held

    def close(self) -> None:
        """Leave all further ones to the others."""
        if self._is_open:
            self._figures[self._number] = _ABSENT
        self._is_open = False

    def enter(self) -> None:
        """One connection more."""
        self._held = held = self._held + 1
        if self._is_open:
            self._figures[self._number] = held
        if held > self._most:
            self._most = held

    def leave(self) -> None:
        """One connection less; whoever waits to be due is called if that is so now."""
        self._held = held = self._held - 1
        if self._is_open:
            self._figures[self._number] = held
        if self._waiting and self.is_due:
            waiting, self._waiting = self._waiting, set()
            for resume in waiting:
                resume()

    def when_due(self, resume: Callable[[], None]) -> None:
        """Call it once, when a connection ends and the worker is due."""
        self._waiting.add(resume)

    def most(self) -> int:
        """The most that it held at a time since it was asked the last time."""
        most, self._most = self._most, self._held
        return most
