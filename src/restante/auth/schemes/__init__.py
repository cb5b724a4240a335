"""Password schemes: the three types of the ``mailbox`` table, and ``{SCHEME}`` prefixes.

Three answers: the password is right, it is not, or the stored hash cannot be judged
(``UnknownScheme``). The last is a fault of the row, never a wrong password. The
prefixes and their suffixes are Dovecot's; they count whatever the type says.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping

from restante.auth.schemes.argon import (
    RECOMMENDED,
    Argon2Cost,
    is_as_dear,
    make_argon2id,
    read_argon2,
)
from restante.auth.schemes.check import NEVER, Check, UnknownScheme, is_locked
from restante.auth.schemes.crypts import read_bcrypt, read_crypt
from restante.auth.schemes.derived import (
    ScramKeys,
    parse_scram,
    read_pbkdf2,
    read_scram_sha_1,
    read_scram_sha_256,
)
from restante.auth.schemes.digests import DIGESTS, decode, read_cram_md5, read_digest
from restante.auth.schemes.mysql import read_mysql

__all__ = [
    "MAX_PASSWORD",
    "MAX_STORED",
    "PASSWORD_TYPES",
    "RECOMMENDED",
    "Argon2Cost",
    "ScramKeys",
    "UnknownScheme",
    "hash_password",
    "is_cheap",
    "is_current",
    "scram_source",
    "verify",
]

MAX_PASSWORD = 1024
"""Octets of a password; a longer one is never right."""
MAX_STORED = 1024
"""Octets of a stored hash that are looked at; a longer one is malformed."""
MAX_NAMED = 32
"""Characters of an unknown scheme's name that an error shows."""

PASSWORD_TYPES = ("MySQL-Password", "Crypt-Password", "Password")


def verify(password: str, stored: str | None, password_type: str | None) -> bool:
    """Whether ``password`` is the one that ``stored`` was made from; in constant time.

    An empty hash and an empty password never match. Raises UnknownScheme.
    """
    if not stored or not password:
        return False
    check = _read(stored, password_type)
    try:
        octets = password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(octets) <= MAX_PASSWORD and check.matches(octets)


def is_cheap(stored: str | None, password_type: str | None) -> bool:
    """Whether ``verify`` takes microseconds for this hash; raises UnknownScheme."""
    return not stored or _read(stored, password_type).cheap


def hash_password(clear: str, cost: Argon2Cost = RECOMMENDED) -> str:
    """A new salted hash, ``{ARGON2ID}$argon2id$...``; ValueError for an unusable password."""
    octets = clear.encode("utf-8", "surrogateescape")
    if not 0 < len(octets) <= MAX_PASSWORD:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} octets")
    return "{ARGON2ID}" + make_argon2id(octets, cost)


def is_current(stored: str) -> bool:
    """Whether ``hash_password`` would make nothing better than the hash that is stored."""
    prefixed = _PREFIX.fullmatch(stored)
    return is_as_dear(stored if prefixed is None else prefixed["text"], RECOMMENDED)


def scram_source(stored: str | None, password_type: str | None) -> ScramKeys | str | None:
    """What SCRAM-SHA-256 can be done with: stored keys, or the clear text that keys come from.

    None where the hash allows neither. Raises UnknownScheme.
    """
    if not stored:
        return None
    _read(stored, password_type)
    prefixed = _PREFIX.fullmatch(stored)
    if prefixed is None:
        return stored if _read_type(password_type) is _read_plain else None
    name, text = prefixed["scheme"].upper(), _decoded(prefixed)
    if _TEXTS.get(name) is _read_plain:
        return text
    if name == "SCRAM-SHA-256" and not is_locked(text):
        return parse_scram("sha256", text)
    return None


# Which scheme a stored hash is of

_PREFIX = re.compile(
    r"\{(?P<scheme>[A-Za-z0-9-]+)(?:\.(?P<encoding>[A-Za-z0-9]+))?\}(?P<text>.*)", re.DOTALL
)
TextReader = Callable[[str], Check]


def _read(stored: str, password_type: str | None) -> Check:
    if len(stored) > MAX_STORED:
        raise UnknownScheme(f"the stored hash has more than {MAX_STORED} characters")
    prefixed = _PREFIX.fullmatch(stored)
    if prefixed is None:
        return _read_type(password_type)(stored)
    kind = _type_of(password_type)
    return _read_prefixed(prefixed, named=kind is not None and kind is not _read_plain)


def _read_type(password_type: str | None) -> TextReader:
    kind = _type_of(password_type)
    if kind is None:
        raise UnknownScheme("the password_type is none of " + ", ".join(PASSWORD_TYPES))
    return kind


def _type_of(password_type: str | None) -> TextReader | None:
    return _TYPES.get((password_type or "").strip().lower())


def _read_prefixed(prefixed: re.Match[str], *, named: bool) -> Check:
    """``named``: the prefix is no part of a clear-text password, so errors may show it."""
    scheme, encoding = prefixed["scheme"].upper(), (prefixed["encoding"] or "").upper()
    if scheme in DIGESTS:
        return read_digest(DIGESTS[scheme], prefixed["text"], encoding)
    if scheme in _CRAM_MD5:
        return read_cram_md5(prefixed["text"], encoding)
    if scheme not in _TEXTS:
        shown = f" {{{scheme[:MAX_NAMED]}}}" if named else ""
        raise UnknownScheme(f"the stored hash has an unknown scheme prefix{shown}")
    return _TEXTS[scheme](_decoded(prefixed))


def _decoded(prefixed: re.Match[str]) -> str:
    """The text behind a prefix, which any scheme may have encoded."""
    encoding = prefixed["encoding"]
    if not encoding:
        return prefixed["text"]
    return decode(prefixed["text"], encoding.upper()).decode("utf-8", "surrogateescape")


def _read_plain(text: str) -> Check:
    if not text:
        return NEVER
    expected = text.encode("utf-8", "surrogateescape")
    return Check(lambda password: hmac.compare_digest(password, expected), cheap=True)


_TYPES: Mapping[str, TextReader] = {
    "": read_mysql,
    "mysql-password": read_mysql,
    "crypt-password": read_crypt,
    "password": _read_plain,
}
_CRAM_MD5 = frozenset({"CRAM-MD5", "HMAC-MD5"})
_TEXTS: Mapping[str, TextReader] = {
    "ARGON2ID": read_argon2,
    "ARGON2I": read_argon2,
    "BLF-CRYPT": read_bcrypt,
    "BCRYPT": read_bcrypt,
    "SHA512-CRYPT": read_crypt,
    "SHA256-CRYPT": read_crypt,
    "MD5-CRYPT": read_crypt,
    "MD5": read_crypt,
    "DES-CRYPT": read_crypt,
    "CRYPT": read_crypt,
    "PBKDF2": read_pbkdf2,
    "SCRAM-SHA-1": read_scram_sha_1,
    "SCRAM-SHA-256": read_scram_sha_256,
    "PLAIN": _read_plain,
    "CLEAR": _read_plain,
    "CLEARTEXT": _read_plain,
}
