"""How many connections each worker of a server holds, in memory that all of them see.

It says who is due to take the next one. Of services whose sessions have nothing in common, that is
whoever holds the fewest, or one more. Where sessions share what they cost, as SMTP's share
questions to the database, syncs and sends, the first worker that has room for company is due, and
only when none has, they are spread as well.

The figures only spread work: one that is wrong for a moment, or of a worker that hangs, makes a
connection wait for 2 to 16 ms (restante.net.acceptor).
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import NamedTuple

COMPANY = 12
"""Sessions that a worker holds together before the next one is due.

Measured with two workers on two processors: ten that come one after another bring a quarter more
messages with one worker than with both, fifteen a tenth less.
"""
BUSY = 0.85
"""Of a processor. A worker that takes so much for its threads has no room for company ..."""
WHILE = 1.0
"""... for so many seconds: where messages cost more, as over TLS, few sessions are a crowd."""
LOOK = 0.05
"""Seconds, at least, between two looks at what it takes."""

_ABSENT = 0xFFFFFFFF
"""Of a worker that accepts nothing: never the fewest."""
_OCTETS = 8
"""Of a figure: the machine writes it at once, so that nobody reads half of one."""


class _Figures(NamedTuple):
    """A column for each thing to know, with a figure for each worker."""

    held: memoryview[int]
    """Connections, or _ABSENT."""
    company: memoryview[int]
    """Those of them that are better off together."""
    taken: memoryview[int]
    """Connections since it began."""
    busy_until: memoryview[int]
    """Until when it has no room for company, in nanoseconds of the monotonic clock."""


class Board:
    """The figures of one generation of workers. Made before they are forked."""

    def __init__(self, workers: int) -> None:
        columns = len(_Figures._fields)
        whole = memoryview(mmap.mmap(-1, columns * workers * _OCTETS)).cast("q")
        self._figures = _Figures(
            *(whole[column * workers : (column + 1) * workers] for column in range(columns))
        )
        for number in range(workers):
            self.forget(number)

    def forget(self, number: int) -> None:
        """The worker has ended."""
        self._figures.held[number] = _ABSENT
        self._figures.company[number] = 0
        self._figures.busy_until[number] = 0

    def share(self, number: int) -> Share:
        """For the worker itself."""
        return Share(self._figures, number)


class Share:
    """What one worker holds, beside the others. Belongs to its event loop."""

    def __init__(self, figures: _Figures, number: int) -> None:
        self._figures = figures
        self._number = number
        self._held = 0
        self._most = 0
        self._is_open = False
        self._waiting: dict[Callable[[], None], Callable[[], bool]] = {}
        """Whom to call when he is due, and who says so."""
        self._looked = time.monotonic()
        self._had_taken = time.process_time()
        """Seconds of a processor that all threads had taken then."""

    @property
    def held(self) -> int:
        """Connections of this worker."""
        return self._held

    @property
    def taken_by_all(self) -> int:
        """Connections that the workers have taken: as long as this grows, not all of them hang."""
        return sum(self._figures.taken)

    def is_due(self) -> bool:
        """Whether it holds at most one more than whoever holds the fewest."""
        return self._held <= min(self._figures.held) + 1

    def is_due_for_company(self, capacity: int) -> bool:
        """Whether it is the first that has room for company, or due where none has.

        ``capacity``: how many connections a worker may hold in all.
        """
        now = time.monotonic_ns()
        for number in range(len(self._figures.held)):
            if self._has_room(number, capacity, now):
                return number == self._number
        return self.is_due()

    def _has_room(self, number: int, capacity: int, now: int) -> bool:
        figures = self._figures
        return (
            figures.company[number] < COMPANY
            and figures.busy_until[number] <= now
            and figures.held[number] < capacity  # _ABSENT is more
        )

    def open(self) -> None:
        """From now on the worker accepts connections."""
        self._is_open = True
        self._figures.held[self._number] = self._held

    def close(self) -> None:
        """Leave all further ones to the others."""
        if self._is_open:
            self._figures.held[self._number] = _ABSENT
        self._is_open = False

    def enter(self, *, in_company: bool = False) -> None:
        """One connection more."""
        self._held = held = self._held + 1
        if self._is_open:
            self._figures.held[self._number] = held
        if held > self._most:
            self._most = held
        self._figures.taken[self._number] += 1
        if in_company:
            self._figures.company[self._number] += 1
            self._look()

    def leave(self, *, in_company: bool = False) -> None:
        """One connection less; whoever waits to be due is called if that is so now."""
        self._held = held = self._held - 1
        if self._is_open:
            self._figures.held[self._number] = held
        if in_company:
            self._figures.company[self._number] -= 1
        if self._waiting:
            due = [resume for resume, is_due in self._waiting.items() if is_due()]
            for resume in due:
                del self._waiting[resume]
                resume()

    def when_due(self, resume: Callable[[], None], is_due: Callable[[], bool]) -> None:
        """Call ``resume`` once, when a connection ends and ``is_due`` says so."""
        self._waiting[resume] = is_due

    def most(self) -> int:
        """The most that it held at a time since it was asked the last time."""
        most, self._most = self._most, self._held
        return most

    def _look(self) -> None:
        """Tell the others if the worker is busy."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK:
            return
        taken = time.process_time()
        if taken - self._had_taken > BUSY * passed:
            self._figures.busy_until[self._number] = int((now + WHILE) * 1e9)
        self._looked, self._had_taken = now, taken
