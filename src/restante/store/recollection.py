"""Maildirs as they were last read, for the sessions that come while nothing changes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from restante.store.scan import Listing
from restante.store.unwaiting import Stamp

MAX_OCTETS = 32 * 1024 * 1024
"""Octets of all listings that are kept; some 300,000 messages."""
SHARES = 4
"""No listing takes more than one of so many parts of the room."""
SETTLED = 2.0
"""Seconds that a directory must have been left alone before it was read: a change within the same
tick of the file system's clock would go unnoticed."""

_NANOSECONDS = 1e9


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """Values by key; those that were not asked for the longest are forgotten first."""

    def __init__(self, max_octets: int) -> None:
        self._max_octets = max_octets
        self._kept: dict[Key, tuple[Value, int]] = {}
        self._octets = 0

    def keep(self, key: Key, value: Value, octets: int) -> bool:
        """Keep a value that takes so many octets, unless it would drive out too many others."""
        self.forget(key)
        if octets > self._max_octets // SHARES:
            return False
        self._kept[key] = (value, octets)
        self._octets += octets
        while self._octets > self._max_octets:
            self.forget(next(iter(self._kept)))
        return True

    def of(self, key: Key) -> Value | None:
        """What was kept."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._kept[key] = found
        return found[0]

    def forget(self, key: Key) -> None:
        """What was kept, if anything was, is not needed any more."""
        _, octets = self._kept.pop(key, (None, 0))
        self._octets -= octets


class Recollection:
    """Listings by Maildir."""

    def __init__(self, max_octets: int = MAX_OCTETS) -> None:
        self._listings: Memory[bytes, Listing] = Memory(max_octets)

    def keep(self, maildir: bytes, listing: Listing, began: float) -> bool:
        """Keep a listing whose reading began at a time, in seconds since the epoch.

        Whether it is kept: only one that can be told from later ones by its stamps.
        """
        if not _is_settled(listing.stamps, began):
            self._listings.forget(maildir)
            return False
        return self._listings.keep(maildir, listing, listing.octets)

    def of(self, maildir: bytes) -> Listing | None:
        """What was kept; the caller looks whether it is still true."""
        return self._listings.of(maildir)


def _is_settled(stamps: Sequence[Stamp], began: float) -> bool:
    if not stamps:
        return False
    return began - max(stamp.changed for stamp in stamps) / _NANOSECONDS >= SETTLED
