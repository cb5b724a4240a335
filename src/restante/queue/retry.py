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
class RetryPolicy:
    """The schedule and its end."""

    lifetime: float
    """Seconds after which a recipient is given up, one last attempt having failed."""
    random: Callable[[], float]
    """Gives numbers in [0, 1), for the jitter."""
    delay_notice: float = 0.0
    """Seconds after which a sender is told that a recipient still waits; 0: never."""

    def is_last(self, born: float, began: float) -> bool:
        """Whether an attempt that ``began`` then is not followed by another one.

        However long it took: the machine may have slept meanwhile.
        """
        return max(0.0, began - born) >= self.lifetime

    def next_attempt(self, born: float, now: float, step: float) -> float:
        """When to try again after a failure at ``now``.

        ``born`` is when the message was accepted; all times in seconds since the epoch. One
        attempt comes when a notice of delay is due, so that the notice is not late.
        """
        age = max(0.0, now - born)
        following = now + _interval(age, step) * (1.0 + JITTER * self.random())
        if age < self.delay_notice:
            return min(following, born + self.delay_notice)
        return following

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
