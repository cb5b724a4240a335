"""Argon2 (RFC 9106): what is read, and what Restante itself writes.

Two libraries, because logins are what fills a machine whose users poll. libsodium checks a
hash in half the time, but it makes hashes of one lane only, and does not read all that there
are. argon2-cffi makes the hashes, and has the last word wherever libsodium says neither yes
nor no.
"""

from __future__ import annotations

import errno
import re
import secrets
from dataclasses import dataclass

import argon2
import nacl.pwhash
from _cffi_backend import FFI
from argon2.low_level import Type, hash_secret, verify_secret
from nacl.exceptions import CryptoError

from restante.auth.schemes.check import NEVER, Check, UnknownScheme, is_locked

MAX_ARGON2_MEMORY = 256 * 1024
"""Kibibytes that one verification may take."""
MAX_ARGON2_WORK = 2 * 1024 * 1024
"""Kibibytes times passes: two seconds by the slower of the two libraries."""
MAX_ARGON2_LANES = 16

SALT_SIZE = 16
"""Octets of salt in a new hash (RFC 9106 §3.1)."""
HASH_SIZE = 32
"""Octets of a new hash."""


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What a hash costs to make and to check."""

    passes: int = 3
    memory: int = 64 * 1024
    """Kibibytes."""
    lanes: int = 4


RECOMMENDED = Argon2Cost()
"""RFC 9106 §4, second recommended option, for where 2 GiB a login are too much.

Its four lanes are computed one after the other where there are fewer cores; they are
kept because that is the option as it was analysed.
"""

_ARGON2 = re.compile(  # version 1.0, which is also meant where there is none, and 1.3
    r"\$argon2(id|i)(?:\$v=(16|19))?\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,8})"
    r"\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)


def read_argon2(text: str) -> Check:
    """The check of $argon2i$ or $argon2id$; raises UnknownScheme."""
    if is_locked(text):
        return NEVER
    parts = _ARGON2.fullmatch(text)
    if parts is None:
        raise UnknownScheme(
            "the stored argon2 hash is malformed, of an unknown version, "
            "or neither argon2id nor argon2i"
        )
    memory, passes, lanes = int(parts[3]), int(parts[4]), int(parts[5])
    if memory > MAX_ARGON2_MEMORY or memory * passes > MAX_ARGON2_WORK or lanes > MAX_ARGON2_LANES:
        raise UnknownScheme(
            "the stored argon2 hash asks for more memory, passes or lanes than allowed"
        )
    kind = Type.ID if parts[1] == "id" else Type.I
    stored = text.encode("ascii")
    return Check(lambda password: _matches(password, stored, kind), cheap=False)


def make_argon2id(password: bytes, cost: Argon2Cost) -> str:
    """A new salted hash, ``$argon2id$...``."""
    salt = secrets.token_bytes(SALT_SIZE)
    made = hash_secret(password, salt, cost.passes, cost.memory, cost.lanes, HASH_SIZE, Type.ID)
    return made.decode("ascii")


def is_as_dear(text: str, cost: Argon2Cost) -> bool:
    """Whether ``text`` is argon2id of the current version, and no cheaper than ``cost``.

    Lanes do not count: they divide the same work.
    """
    parts = _ARGON2.fullmatch(text)
    if parts is None or parts[1] != "id" or parts[2] != "19":
        return False
    memory, passes = int(parts[3]), int(parts[4])
    return memory >= cost.memory and memory * passes >= cost.memory * cost.passes


_LAST_CALL = FFI()
"""Its ``errno`` is what the last call of this thread to a library behind cffi has left.

``cffi.FFI`` gives the same, but brings a parser of C.
"""


def _matches(password: bytes, stored: bytes, kind: Type) -> bool:
    """Ask libsodium; then argon2-cffi, unless that was an answer.

    libsodium refuses to read a hash of another version than 1.3, or that ends in fewer than 16
    octets, and PyNaCl one of more than 127 characters; and memory may be lacking. libsodium
    tells all of that as a wrong password, except in errno.
    """
    _LAST_CALL.errno = 0
    try:
        return nacl.pwhash.verify(stored, password)
    except CryptoError:
        if _LAST_CALL.errno == errno.EINVAL:
            return False
    return _matches_by_argon2_cffi(password, stored, kind)


def _matches_by_argon2_cffi(password: bytes, stored: bytes, kind: Type) -> bool:
    try:
        return verify_secret(stored, password, kind)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.VerificationError as error:
        raise UnknownScheme(f"the stored argon2 hash cannot be checked: {error}") from None
