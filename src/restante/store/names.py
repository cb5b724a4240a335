"""What the name of a file in a Maildir says: arrival, flags, sizes, and the message's UID.

A name is ``BASE`` or ``BASE:INFO``; the base stays the same for ever, the rest changes
with the flags (maildir(5)). Maildir++ and Dovecot write sizes into the base:
``,S=`` for the octets on disk, ``,W=`` for those with CRLF line ends.

Names are text, each octet a character (Latin-1). What looks at many of them does so a thousand at
a time, in few calls: they are made, used and forgotten in the processor's own memory.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Iterator, Sequence

from restante.store.sizes import MAX_SIZE

MAX_UID = 70
"""Characters in a unique id (RFC 1939 §7)."""
TOGETHER = 1000
"""Names that are looked at together."""

_SECONDS = re.compile(r"[0-9]{1,19}(?=\.)")
_OF_OUR_TIME = re.compile(r"[0-9]{10}\.")
"""The beginning of what arrived from 2001 to 2286: sorting by name is sorting by time."""
_ON_DISK = re.compile(r",S=([0-9]{1,13})(?=,|$)")
_ON_WIRE = re.compile(r",W=([0-9]{1,13})(?=,|$)")
_PLAIN = re.compile(r"\0[0-9]{10}\.[^,]{0,255},S=([^,]{0,13},W=[^\0]{0,13})\0")
"""Of our time, with both sizes at its end, as we and Dovecot write it; between NULs.

No name is longer than 255 octets. Without bounds a name that tells no size would be tried against
all that follow it.
"""
_UID_OCTETS = bytes(range(0x21, 0x7F))


def base(name: str) -> str:
    """The part of the name that no program changes."""
    return name.partition(":")[0]


def are_of_our_time(bases: Sequence[str]) -> bool:
    """Whether their order is that of arrival, as they are sorted."""
    return all(map(_OF_OUR_TIME.match, bases))


def order_of_arrival(bases: Sequence[str]) -> list[int]:
    """Their indexes in order of arrival, as far as the names tell it."""
    return sorted(range(len(bases)), key=list(map(_arrival, bases)).__getitem__)


def _arrival(base: str) -> int:
    """Seconds since the epoch as the name has them; 0 if it has none."""
    found = _SECONDS.match(base)
    return int(found.group()) if found else 0


def wire_sizes(bases: Sequence[str]) -> tuple[list[int | None], bool]:
    """The size of each, see ``wire_size``, and whether all of them are known to be of our time."""
    found: list[int | None] = []
    are_plain = True
    for some in _together(bases):
        text = "\0" + "\0\0".join(some) + "\0"
        sizes = _plain_sizes(text, len(some))
        if sizes is None:
            are_plain = False
            found += map(wire_size, some) if ",W=" in text else [None] * len(some)
        else:
            found += sizes
    return found, are_plain


def _plain_sizes(text: str, count: int) -> list[int] | None:
    """Of so many names, if all are of our time and tell credible sizes in the plain way."""
    if text.count(",W=") != count:
        return None
    # A match begins where a name begins: there are as many as names only if each is one.
    told = _PLAIN.findall(text)
    sizes = ",".join(told).replace(",W=", ",").split(",")
    if len(told) != count or len(sizes) != 2 * count or not all(sizes):
        return None
    if not "".join(sizes).isdecimal():
        return None
    numbers = list(map(int, sizes))
    on_disk, on_wire = numbers[0::2], numbers[1::2]
    twice = map(operator.add, on_disk, on_disk)
    is_credible = (
        max(on_wire) <= MAX_SIZE
        and all(map(operator.le, on_disk, on_wire))
        and all(map(operator.le, on_wire, twice))
    )
    return on_wire if is_credible else None


def wire_size(base: str) -> int | None:
    """The octets on the wire as the name has them, if that is credible.

    Every octet on disk becomes one or two on the wire.
    """
    rest, _, on_wire = base.rpartition(",W=")
    on_disk = rest.rpartition(",S=")[2]
    if on_wire.isdecimal() and on_disk.isdecimal():  # the plain way, found faster
        return _credible(on_wire, on_disk)
    wire, disk = _ON_WIRE.search(base), _ON_DISK.search(base)
    return None if wire is None else _credible(wire[1], disk and disk[1])


def _credible(on_wire: str, on_disk: str | None) -> int | None:
    wire, disk = int(on_wire), None if on_disk is None else int(on_disk)
    if wire > MAX_SIZE or (disk is not None and not disk <= wire <= 2 * disk):
        return None
    return wire


def are_uids(bases: Sequence[str]) -> bool:
    """Whether each of them can be the UID of its message; see ``uid``."""
    return all(map(_are_uids, _together(bases)))


def _are_uids(bases: Sequence[str]) -> bool:
    lengths = list(map(len, bases))
    octets = "".join(bases).encode("latin-1")
    return 0 < min(lengths) <= max(lengths) <= MAX_UID and not octets.translate(None, _UID_OCTETS)


def uid(base: str, copy: int) -> str:
    """The UID of a message: its base, or a hash of it where the base is no UID (RFC 1939 §7).

    ``copy`` is 0, or counts up where different files claim the same base.
    """
    if copy == 0 and _are_uids((base,)):
        return base
    return hashlib.sha256(b"%b\0%d" % (base.encode("latin-1"), copy)).hexdigest()


def _together(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), TOGETHER):
        yield names[start : start + TOGETHER]
