"""Times in which nobody looked at a queue: the server was down, the machine slept, or the clock
jumped ahead.

Nobody could be tried then, and yet mail grew old: the first failure afterwards would have all of
a lane given up, perhaps before the network is up. A queue that is served is looked at every few
minutes, so that the time of day alone tells of an absence, whatever its reason.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable

from restante.queue.retry import Absence

ABSENT = 3600.0
"""Seconds between two looks at a queue that are an absence: more than any look takes."""
STAMP = "attended"
"""The file beside a queue whose time is that of the last look: it outlives the process. What it
has in it are the absences."""
STAMP_EVERY = 300.0
"""Seconds after which it is set anew."""


class Attendance:
    """When a queue was looked at, in this life and in those before, and when it was not."""

    def __init__(self, directory: str) -> None:
        """``directory``: the queue's; blocks."""
        self._path = os.path.join(directory, STAMP)
        self._stamped, self.absences = _read(self._path)
        self._kept = self.absences

    def note(self, looked_at: float | None, now: float, lifetime: float) -> Absence | None:
        """The absence that ends ``now``, if there is one, added to those that still count.

        ``looked_at``: the last look in this life. A look that is later than ``now`` was by another
        clock. No two absences have a moment in common, so that each spares others.
        """
        known = (looked_at, self._stamped, *(each.until for each in self.absences))
        looks = [each for each in known if each is not None and each <= now]
        if not looks or now - max(looks) <= ABSENT:
            return None
        absence = Absence(max(looks), now)
        others = [each for each in self.absences if now < each.over_at(lifetime)]
        self.absences = (*others, absence)
        return absence

    def set_back(self, now: float) -> None:
        """The clock was ahead, and is right now: what lies ahead has never been."""
        self.absences = tuple(each for each in self.absences if each.until <= now)
        if self._stamped is not None and self._stamped > now:
            self._stamped = None

    def look(self, now: float) -> bool:
        """The queue was looked at; whether it is time to ``keep`` that.

        Not where an earlier life has seen a later time: a clock may start in 1970.
        """
        if self._stamped is not None and now - self._stamped < STAMP_EVERY:
            return False
        self._stamped = now
        return True

    def keep(self, now: float) -> None:
        """Note for later lives that it was looked at; blocks.

        What cannot be noted is as if nobody had looked.
        """
        absences = self.absences
        with contextlib.suppress(OSError):
            if absences != self._kept:
                _write(self._path, absences)
                self._kept = absences
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.utime(self._path, (now, now))


def _write(path: str, absences: Iterable[Absence]) -> None:
    fresh = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(fresh, flags, 0o600), "w", encoding="ascii") as file:
        json.dump([(each.since, each.until) for each in absences], file)
    os.replace(fresh, path)


def _read(path: str) -> tuple[float | None, tuple[Absence, ...]]:
    try:
        with open(path, encoding="ascii") as file:
            stamped, content = os.fstat(file.fileno()).st_mtime, file.read()
    except (OSError, ValueError):
        return None, ()
    try:
        absences = [Absence(float(since), float(until)) for since, until in json.loads(content)]
    except (ValueError, TypeError):  # as when there never was one
        return stamped, ()
    return stamped, tuple(absences)
