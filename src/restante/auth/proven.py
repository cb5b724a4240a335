"""Passwords that were right a while ago need not be hashed again, by any worker.

A good hash is dear, so that whoever steals it has to try each word at that price; a user whose
program looks for mail every few minutes pays it each time with the host's processors. Kept is what
a keyed digest makes of the password and its stored hash together. So nothing is believed of a
password beside another hash: a row that was changed is heeded at the next login.

The key and the digests are in memory alone. Who can read that can see the passwords of those who
log in, too; what was kept lets him try words for those of the last ``auth.remember`` seconds at
the price of the digest. A core dump has the key, but no digest.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import secrets
import time
from collections.abc import Callable

WAYS = 8
"""Entries that a digest may be in; the oldest gives way."""
BUCKETS = 16 * 1024
TAG = 12
"""Octets of a digest: of 2 to the power of 93 wrong passwords one would pass."""
SECONDS = 4
"""Octets of the time at which the password was hashed, by the machine's monotonic clock."""
ENTRY = TAG + SECONDS
SIZE = BUCKETS * WAYS * ENTRY
"""2 MiB for 131,072 passwords, of which the kernel gives as much as is written to."""
KEY = 32
"""Octets."""


class ProvenPasswords:
    """One for all workers, made before they are forked, in memory that all of them see.

    Nobody waits for anybody: an entry that another worker writes at this moment is not found, or
    is as young as the new one.
    """

    def __init__(self, lifetime: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``lifetime``: seconds after which a password is hashed again."""
        self._lifetime = lifetime
        self._monotonic = monotonic
        self._key = secrets.token_bytes(KEY)
        self._entries = mmap.mmap(-1, SIZE)
        self._entries.madvise(mmap.MADV_DONTDUMP)

    @classmethod
    def lasting(cls, seconds: float) -> ProvenPasswords | None:
        """For ``auth.remember`` seconds; None for 0: each password is hashed."""
        return cls(seconds) if seconds else None

    def has(self, password: str, stored: str, kind: str | None) -> bool:
        """Whether the password was found to be that of the stored hash, not long ago."""
        tag = self._tag(password, stored, kind)
        oldest = self._monotonic() - self._lifetime
        return any(
            hmac.compare_digest(self._entries[place : place + TAG], tag)
            and self._second(place) > oldest
            for place in _places(tag)
        )

    def add(self, password: str, stored: str, kind: str | None) -> None:
        """It has just been found to be."""
        tag = self._tag(password, stored, kind)
        places = _places(tag)
        same = [place for place in places if self._entries[place : place + TAG] == tag]
        place = same[0] if same else min(places, key=self._second)
        # The clock begins when the machine does; 0 is a place that nobody has used.
        second = int(self._monotonic()) + 1
        self._entries[place : place + ENTRY] = tag + second.to_bytes(SECONDS, "big")

    def _second(self, place: int) -> int:
        return int.from_bytes(self._entries[place + TAG : place + ENTRY], "big")

    def _tag(self, password: str, stored: str, kind: str | None) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=TAG)
        for text in (password, stored, "" if kind is None else f"={kind}"):
            octets = text.encode("utf-8", "surrogatepass")
            digest.update(len(octets).to_bytes(8, "big"))
            digest.update(octets)
        return digest.digest()


def _places(tag: bytes) -> range:
    """Where an entry with this tag may be."""
    begin = int.from_bytes(tag[:4], "big") % BUCKETS * WAYS * ENTRY
    return range(begin, begin + WAYS * ENTRY, ENTRY)
