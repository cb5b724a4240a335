"""What the name of a file in a Maildir says: arrival, flags, sizes, and the message's UID.

A name is ``BASE`` or ``BASE:INFO``; the base stays the same for ever, the rest changes
with the flags (maildir(5)). Maildir++ and Dovecot write sizes into the base:
``,S=`` for the octets on disk, ``,W=`` for those with CRLF line ends.
"""

from __future__ import annotations

import hashlib
import os
import re

from restante.store.sizes import MAX_SIZE

_SECONDS = re.compile(r"[0-9]{1,19}(?=\.)")
_ON_DISK = re.compile(r",S=([0-9]{1,13})(?=[,:]|$)")
_ON_WIRE = re.compile(r",W=([0-9]{1,13})(?=[,:]|$)")
_BOTH = re.compile(r"[^,:]*,S=([0-9]{1,13}),W=([0-9]{1,13})(?=[,:]|$)")
"""As we and Dovecot write them, found faster."""
_UID = re.compile(r"[\x21-\x7e]{1,70}")


def base(name: str) -> str:
    """The part of the name that no program changes."""
    return name.partition(":")[0]


def arrival(name: str) -> int:
    """Seconds since the epoch as the name has them; 0 if it has none."""
    found = _SECONDS.match(name)
    return int(found.group()) if found else 0


def wire_size(name: str) -> int | None:
    """The octets on the wire as the name has them, if that is credible.

    Every octet on disk becomes one or two on the wire.
    """
    both = _BOTH.match(name)
    if both is not None:
        return _credible(int(both[2]), int(both[1]))
    on_wire, on_disk = _ON_WIRE.search(name), _ON_DISK.search(name)
    if on_wire is None:
        return None
    return _credible(int(on_wire[1]), None if on_disk is None else int(on_disk[1]))


def _credible(wire: int, on_disk: int | None) -> int | None:
    if on_disk is not None and not on_disk <= wire <= 2 * on_disk:
        return None
    return wire if wire <= MAX_SIZE else None


def uid(name_base: str, copy: int) -> str:
    """The UID of a message: its base, or a hash of it where the base is no UID (RFC 1939 §7).

    ``copy`` is 0, or counts up where different files claim the same base.
    """
    if copy == 0 and _UID.fullmatch(name_base):
        return name_base
    return hashlib.sha256(os.fsencode(f"{name_base}\0{copy}")).hexdigest()
