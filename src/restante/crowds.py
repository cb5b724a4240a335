"""How many come at a time, where several are better dealt with together.

Sessions that had their answers together come again at nearly the same time. Whoever gathers what
they ask need not wait for anybody else when as many are here as came before.
"""

from __future__ import annotations

from collections import deque

RECENT = 4
"""Occasions. As many as came at one of them are all that are likely to come now.

Measured with 5 sessions of a worker, each of which comes once in 5 ms: by the last occasion alone
crowds fall apart, and of eight or sixteen the largest was seldom all there was.
"""


class Crowds:
    """The numbers of those who came together lately."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque([0], RECENT)

    @property
    def last(self) -> int:
        """How many came the last time; at first nobody."""
        return self._recent[-1]

    def note(self, count: int) -> None:
        """So many came at a time, those who came meanwhile and wait among them."""
        self._recent.append(count)

    def are_all_here(self, count: int) -> bool:
        """Whether nobody else is likely to come soon, where so many wait."""
        return count >= max(self._recent)
