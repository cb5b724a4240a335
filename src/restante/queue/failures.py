"""Queues that cannot be used, beside others that can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from restante.queue import QueueFailed, QueueUnusable


class Failures:
    """Why queues could not be used: one that is damaged, say, keeps nobody from the others."""

    def __init__(self) -> None:
        self._errors: dict[str, QueueUnusable | QueueFailed] = {}

    @contextmanager
    def noted(self, slot: str) -> Iterator[None]:
        """Go on behind what is done with one queue, whether it can be used or not."""
        try:
            yield
        except (QueueUnusable, QueueFailed) as error:
            self._errors.setdefault(slot, error)

    def of(self, slot: str) -> bool:
        """Whether this queue could not be used."""
        return slot in self._errors

    @property
    def texts(self) -> list[str]:
        """What is wrong with each."""
        return [*map(str, self._errors.values())]

    def check(self) -> None:
        """Raise QueueUnusable or QueueFailed, as the first was, if there was any."""
        for first in self._errors.values():
            raise type(first)("\n".join(self.texts))
