"""When a recipient that failed for now is tried again: qmail's quadratic schedule.

The square root of the message's age grows by the same step from one attempt to
the next, so that the n-th comes about ``(n * step) ** 2`` seconds after the
message did: often at first, then ever more rarely.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOCAL_STEP = 10.0
"""Square root of seconds between attempts at a mailbox here (qmail's chanskip)."""
REMOTE_STEP = 20.0
"""The same for another host."""
JITTER = 0.1
"""An interval is lengthened by at most this fraction, so that attempts do not stay in step."""

FIRST_BACK_OFF = 60.0
"""Seconds that a lane is left alone after its first failure; doubled with each further one."""
LONGEST_BACK_OFF = 1800.0
REPORT_RETRY = 3600.0
"""Seconds until a report that could not be made is tried again."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which nobody could be tried; from seconds since the epoch to seconds since then."""

    since: float
    until: float

    def over_at(self, lifetime: float) -> float:
        """Until when it gives nobody up: as much time has passed again, a lifetime at most."""
        return self.until + min(self.until - self.since, lifetime)

    def counts(self, now: float, lifetime: float) -> bool:
        """Whether it spares somebody ``now``; not while the clock is behind it again."""
        return self.until <= now < self.over_at(lifetime)

    def spares(self, deadline: float) -> bool:
        """Whether it spares those whose time was up then."""
        return self.since < deadline <= self.until


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The schedule and its end."""

    lifetime: float
    """Seconds after which a recipient is given up, one last attempt having failed."""
    random: Callable[[], float]
    """Gives numbers in [0, 1), for the jitter."""
    delay_notice: float = 0.0
    """Seconds after which a sender is told that a recipient still waits; 0: never."""
    absences: tuple[Absence, ...] = ()
    """Whose time was up in one of them is tried for as long again, as if it had come at its end.

    They have no moment in common, or else a machine that is off most of the time would give up
    nobody ever.
    """

    def is_last(self, born: float, began: float) -> bool:
        """Whether an attempt that ``began`` then is not followed by another one.

        However long it took: the machine may have slept meanwhile.
        """
        is_over = max(0.0, began - born) >= self.lifetime
        return is_over and self._spared_by(born, began) is None

    def next_attempt(self, born: float, now: float, step: float) -> float:
        """When to try again after a failure at ``now``.

        ``born`` is when the message was accepted; all times in seconds since the epoch. One
        attempt comes when a notice of delay is due, so that the notice is not late.
        """
        age = passed = max(0.0, now - born)
        if age >= self.lifetime:
            absence = self._spared_by(born, now)
            passed = age if absence is None else now - absence.until
        following = now + _interval(passed, step) * (1.0 + JITTER * self.random())
        if age < self.delay_notice:
            return min(following, born + self.delay_notice)
        return following

    def spared(self, now: float) -> list[tuple[float, float]]:
        """Who is not given up ``now``, though their time is up: born later than, and until."""
        counting = [each for each in self.absences if each.counts(now, self.lifetime)]
        return [(each.since - self.lifetime, each.until - self.lifetime) for each in counting]

    def _spared_by(self, born: float, now: float) -> Absence | None:
        for each in self.absences:
            if each.spares(born + self.lifetime) and each.counts(now, self.lifetime):
                return each
        return None

    def is_late(self, born: float, now: float) -> bool:
        """Whether a notice of delay is due for what still waits."""
        return 0 < self.delay_notice <= now - born


def furthest_attempt(born: float, now: float) -> float:
    """The latest time that any policy can have set until ``now``, for whatever lane."""
    return now + _interval(max(0.0, now - born), REMOTE_STEP) * (1.0 + JITTER)


def _interval(age: float, step: float) -> float:
    """Seconds in which the square root of the age grows by ``step``."""
    return (math.sqrt(age) + step) ** 2 - age


def back_off_seconds(failures: int) -> float:
    """How long to leave a lane alone that has failed so many times in a row, at least once."""
    doubled = min(failures - 1, math.ceil(math.log2(LONGEST_BACK_OFF / FIRST_BACK_OFF)))
    return min(FIRST_BACK_OFF * 2.0**doubled, LONGEST_BACK_OFF)
