"""A table of answers, each good for its own time, with a bounded number of entries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """What was not asked for the longest time makes room."""

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds and never goes back, as time.monotonic does."""
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value under ``key`` while its time has not passed."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, value = entry
        if self._clock() >= expires:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def put(self, key: Key, value: Value, seconds: float) -> None:
        """Keep ``value`` for so long; 0 seconds are not kept at all."""
        self._entries.pop(key, None)
        if seconds <= 0:
            return
        self._entries[key] = (self._clock() + seconds, value)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
