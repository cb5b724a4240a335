"""What is known of file systems, for some seconds: another may be mounted under the same number."""

from __future__ import annotations

import math
from collections.abc import Callable

REMEMBERED = 10.0
"""Seconds."""

Clock = Callable[[], float]


class Remembered:
    """One question's answer for each device; may be asked by several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[int, tuple[float, bool]] = {}
        """When it was found, and what."""

    def about(self, device: int, find: Callable[[], bool]) -> bool:
        """What ``find`` said lately, or says now."""
        now = self._clock()
        found, answer = self._known.get(device, (-math.inf, False))
        if now >= found + REMEMBERED:
            answer = find()
            self._known[device] = now, answer
        return answer
