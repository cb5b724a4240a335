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
BUSY = 0.95
"""Of a processor. A worker that takes so much for its threads has no room for company ..."""
WHILE = 1.0
"""... for so many seconds: where messages cost more, as over TLS, few sessions are a crowd."""
LOOK = 0.1
"""Seconds, at least, between two looks at what it takes; it looks when connections come."""

_ABSENT = 0xFFFFFFFF
"""Of a worker that accepts nothing: never the fewest."""
_MICROSECONDS = 1_000_000
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
    """Until when it has no room for company, in microseconds of the monotonic clock."""


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

    def is_open(self, number: int) -> bool:
        """Whether the worker accepts connections."""
        return self._figures.held[number] != _ABSENT

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
        self._waiting: dict[Callable[[], None], Callable[[], int]] = {}
        """Whom to call when the worker is due, and who says who is."""
        self._looked = time.monotonic()
        self._had_taken = time.process_time()
        """Seconds of a processor that all threads had taken then."""

    @property
    def held(self) -> int:
        """Connections of this worker."""
        return self._held

    def taken_by(self, number: int) -> int:
        """Connections that a worker has taken: as long as this grows, it does not hang."""
        return self._figures.taken[number]

    def due(self) -> int:
        """The worker itself if it holds at most one more than the fewest, else who holds those."""
        held = self._figures.held.tolist()  # once: others change theirs meanwhile
        fewest = min(held)
        return self._number if self._held <= fewest + 1 else held.index(fewest)

    def due_for_company(self, company: int, capacity: int) -> int:
        """The first worker that has room for company; where none has, as ``due``.

        ``company``: sessions that a worker may hold together, COMPANY at the most; ``capacity``:
        connections in all.
        """
        now = time.monotonic()
        self._look(now)
        figures = self._figures
        for number, held in enumerate(figures.held):
            if (
                held < capacity  # _ABSENT is more
                and figures.company[number] < company
                and figures.busy_until[number] <= now * _MICROSECONDS
            ):
                return number
        return self.due()

    def is_own(self, number: int) -> bool:
        """Whether it is this worker's."""
        return number == self._number

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

    def leave(self, *, in_company: bool = False) -> None:
        """One connection less; whoever waits to be due is called if that is so now."""
        self._held = held = self._held - 1
        if self._is_open:
            self._figures.held[self._number] = held
        if in_company:
            self._figures.company[self._number] -= 1
        if self._waiting:
            called = [resume for resume, due in self._waiting.items() if due() == self._number]
            for resume in called:
                del self._waiting[resume]
                resume()

    def when_due(self, resume: Callable[[], None], due: Callable[[], int]) -> None:
        """Call ``resume`` once, when a connection ends and ``due`` names this worker."""
        self._waiting[resume] = due

    def most(self) -> int:
        """The most that it held at a time since it was asked the last time."""
        most, self._most = self._most, self._held
        return most

    def _look(self, now: float) -> None:
        """Tell the others if the worker is busy; what was long ago says nothing of that."""
        passed = now - self._looked
        if passed < LOOK:
            return
        taken = time.process_time()
        if passed <= WHILE and taken - self._had_taken > BUSY * passed:
            self._figures.busy_until[self._number] = int((now + WHILE) * _MICROSECONDS)
        self._looked, self._had_taken = now, taken
