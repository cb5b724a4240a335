"""What the name of a file in a Maildir says: arrival, flags, sizes, and the message's UID.

A name is ``BASE`` or ``BASE:INFO``; the base stays the same for ever, the rest changes
with the flags (maildir(5)). Maildir++ and Dovecot write sizes into the base:
``,S=`` for the octets on disk, ``,W=`` for those with CRLF line ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from restante.store.sizes import MAX_SIZE

MAX_UID = 70
"""Characters in a unique id (RFC 1939 §7)."""

_SECONDS = re.compile(rb"[0-9]{1,19}(?=\.)")
_OF_OUR_TIME = re.compile(rb"[0-9]{10}\.")
"""The beginning of what arrived from 2001 to 2286: sorting by name is sorting by time."""
_ON_DISK = re.compile(rb",S=([0-9]{1,13})(?=,|$)")
_ON_WIRE = re.compile(rb",W=([0-9]{1,13})(?=,|$)")


def base(name: bytes) -> bytes:
    """The part of the name that no program changes."""
    return name.partition(b":")[0]


def in_order(bases: Iterable[bytes]) -> list[bytes]:
    """In order of arrival, as far as the names tell it."""
    found = sorted(bases)
    if not all(map(_OF_OUR_TIME.match, found)):
        found.sort(key=_arrival)
    return found


def _arrival(base: bytes) -> int:
    """Seconds since the epoch as the name has them; 0 if it has none."""
    found = _SECONDS.match(base)
    return int(found.group()) if found else 0


def wire_size(base: bytes) -> int | None:
    """The octets on the wire as the name has them, if that is credible.

    Every octet on disk becomes one or two on the wire.
    """
    rest, _, on_wire = base.rpartition(b",W=")
    on_disk = rest.rpartition(b",S=")[2]
    if on_wire.isdigit() and on_disk.isdigit():  # as we and Dovecot write them, found faster
        return _credible(on_wire, on_disk)
    wire, disk = _ON_WIRE.search(base), _ON_DISK.search(base)
    return None if wire is None else _credible(wire[1], disk and disk[1])


def _credible(on_wire: bytes, on_disk: bytes | None) -> int | None:
    wire, disk = int(on_wire), None if on_disk is None else int(on_disk)
    if wire > MAX_SIZE or (disk is not None and not disk <= wire <= 2 * disk):
        return None
    return wire


def are_uids(bases: Sequence[bytes]) -> bool:
    """Whether each of them can be the UID of its message; see ``uid``."""
    text = b"".join(bases)
    return (
        text.isascii()
        and text.decode("ascii").isprintable()
        and b" " not in text
        and (not bases or 0 < min(map(len, bases)) <= max(map(len, bases)) <= MAX_UID)
    )


def uid(base: bytes, copy: int) -> bytes:
    """The UID of a message: its base, or a hash of it where the base is no UID (RFC 1939 §7).

    ``copy`` is 0, or counts up where different files claim the same base.
    """
    if copy == 0 and are_uids((base,)):
        return base
    return hashlib.sha256(b"%b\0%d" % (base, copy)).hexdigest().encode("ascii")
