"""Maildirs as they were last read, for the sessions that come while nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

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


class Recollection:
    """Listings by Maildir; those that were not asked for the longest are forgotten first."""

    def __init__(self, max_octets: int = MAX_OCTETS) -> None:
        self._max_octets = max_octets
        self._listings: dict[bytes, Listing] = {}
        self._octets = 0

    def keep(self, maildir: bytes, listing: Listing, began: float) -> None:
        """Keep a listing whose reading began at a time, in seconds since the epoch."""
        self._forget(maildir)
        if listing.octets <= self._max_octets // SHARES and _is_settled(listing.stamps, began):
            self._keep(maildir, listing)

    def _keep(self, maildir: bytes, listing: Listing) -> None:
        self._listings[maildir] = listing
        self._octets += listing.octets
        while self._octets > self._max_octets:
            self._forget(next(iter(self._listings)))

    def of(self, maildir: bytes) -> Listing | None:
        """What was kept; the caller looks whether it is still true."""
        found = self._listings.pop(maildir, None)
        if found is not None:
            self._listings[maildir] = found
        return found

    def _forget(self, maildir: bytes) -> None:
        listing = self._listings.pop(maildir, None)
        if listing is not None:
            self._octets -= listing.octets


def _is_settled(stamps: Sequence[Stamp], began: float) -> bool:
    if not stamps:
        return False
    return began - max(stamp.changed for stamp in stamps) / _NANOSECONDS >= SETTLED
