"""Password schemes: the three types of the ``mailbox`` table, and ``{SCHEME}`` prefixes.

Three answers: the password is right, it is not, or the stored hash cannot be judged
(``UnknownScheme``). The last is a fault of the row, never a wrong password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import argon2
import bcrypt
from argon2.low_level import Type, hash_secret, verify_secret

from restante.auth.libcrypt import crypt
from restante.errors import RestanteError

MAX_PASSWORD = 1024
"""Octets of a password; a longer one is never right."""
MAX_STORED = 1024
"""Octets of a stored hash that are looked at; a longer one is malformed."""
MAX_CRYPT_ROUNDS = 1_000_000
"""``rounds=`` of $5$ and $6$: about half a second."""
MAX_BCRYPT_COST = 15
"""The logarithm of bcrypt's rounds: about two seconds."""
MAX_ARGON2_MEMORY = 256 * 1024
"""Kibibytes that one verification may take."""
MAX_ARGON2_WORK = 2 * 1024 * 1024
"""Kibibytes times passes: some two seconds."""
MAX_ARGON2_LANES = 16

SALT_SIZE = 16
"""Octets of salt in a new hash (RFC 9106 §3.1)."""
BCRYPT_PASSWORD = 72
"""Octets that bcrypt looks at; it is defined to ignore the rest."""


class UnknownScheme(RestanteError):
    """The stored hash is of no scheme known here, malformed, or too costly to be tried."""


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What a new hash costs to make and to check."""

    passes: int = 3
    memory: int = 64 * 1024
    """Kibibytes."""
    lanes: int = 4


RECOMMENDED = Argon2Cost()
"""RFC 9106 §4, second recommended option, for where 2 GiB a login are too much.

Its four lanes are computed one after the other where there are fewer cores; they are
kept because that is the option as it was analysed.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """A stored hash that has been read and found usable."""

    matches: Callable[[bytes], bool]
    cheap: bool
    """It takes microseconds: not worth a thread."""


_NEVER = Check(lambda _password: False, cheap=True)


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
    salt = secrets.token_bytes(SALT_SIZE)
    made = hash_secret(octets, salt, cost.passes, cost.memory, cost.lanes, 32, Type.ID)
    return "{ARGON2ID}" + made.decode("ascii")


# Which scheme a stored hash is of

_PREFIX = re.compile(r"\{([A-Za-z0-9-]+)(?:\.([A-Za-z0-9]+))?\}(.*)", re.DOTALL)
Reader = Callable[[str], Check]


def _read(stored: str, password_type: str | None) -> Check:
    if len(stored) > MAX_STORED:
        raise UnknownScheme(f"the stored hash has more than {MAX_STORED} characters")
    kind = _read_type(password_type)
    prefixed = _PREFIX.fullmatch(stored)
    if prefixed is not None:
        return _read_prefixed(prefixed, named=kind is not _plain)
    return kind(stored)


def _read_type(password_type: str | None) -> Reader:
    name = (password_type or "").strip().lower()
    if name not in _TYPES:
        raise UnknownScheme("the password_type is none of " + ", ".join(PASSWORD_TYPES))
    return _TYPES[name]


def _read_prefixed(prefixed: re.Match[str], *, named: bool) -> Check:
    """``named``: the prefix is no part of a clear-text password, so errors may show it."""
    scheme, encoding, text = prefixed[1].upper(), (prefixed[2] or "").upper(), prefixed[3]
    if scheme in _DIGESTS:
        return _digest(_DIGESTS[scheme], text, encoding)
    if scheme not in _PREFIXED or encoding:
        shown = f" {{{scheme[:32]}}}" if named else ""
        raise UnknownScheme(f"the stored hash has an unknown scheme prefix{shown}")
    return _PREFIXED[scheme](text)


def _is_locked(text: str) -> bool:
    """``!`` and ``*`` in place of a hash lock an account, as in shadow(5)."""
    return not text or text[0] in "!*"


# Clear text and MySQL


def _plain(text: str) -> Check:
    if not text:
        return _NEVER
    expected = text.encode("utf-8", "surrogateescape")
    return Check(lambda password: hmac.compare_digest(password, expected), cheap=True)


_MYSQL_41 = re.compile(r"\*[0-9A-Fa-f]{40}")
_MYSQL_16 = re.compile(r"[0-9A-Fa-f]{16}")


def _mysql(text: str) -> Check:
    """``PASSWORD()``: since MySQL 4.1 ``*`` and 40 hex digits, before that 16."""
    if _MYSQL_41.fullmatch(text):
        return _fixed(lambda password: _sha1(_sha1(password)), bytes.fromhex(text[1:]))
    if _MYSQL_16.fullmatch(text):
        return _fixed(mysql_old_hash, bytes.fromhex(text))
    if _is_locked(text):
        return _NEVER
    raise UnknownScheme("the stored hash is no MySQL PASSWORD(), which its password_type says")


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def mysql_old_hash(password: bytes) -> bytes:
    """The 8 octets of MySQL's ``OLD_PASSWORD()``; blanks and tabs do not count."""
    mask = 0xFFFFFFFF
    first, second, add = 0x50305735, 0x12345671, 7
    for octet in password:
        if octet in b" \t":
            continue
        first ^= (((first & 63) + add) * octet + (first << 8)) & mask
        second = (second + ((second << 8) ^ first)) & mask
        add += octet
    return (first & 0x7FFFFFFF).to_bytes(4, "big") + (second & 0x7FFFFFFF).to_bytes(4, "big")


def _fixed(digest: Callable[[bytes], bytes], expected: bytes) -> Check:
    return Check(lambda password: hmac.compare_digest(digest(password), expected), cheap=True)


# Digests, salted and not


@dataclass(frozen=True, slots=True)
class _Digest:
    algorithm: str
    size: int
    salted: bool


_DIGESTS: Mapping[str, _Digest] = {
    "SHA": _Digest("sha1", 20, salted=False),
    "SHA1": _Digest("sha1", 20, salted=False),
    "SHA256": _Digest("sha256", 32, salted=False),
    "SHA512": _Digest("sha512", 64, salted=False),
    "SSHA": _Digest("sha1", 20, salted=True),
    "SSHA256": _Digest("sha256", 32, salted=True),
    "SSHA512": _Digest("sha512", 64, salted=True),
}


def _digest(scheme: _Digest, text: str, encoding: str) -> Check:
    """The digest, then the salt; base64, or hex where that is said or shown by the length."""
    if _is_locked(text):
        return _NEVER
    raw = _decode(text, encoding or ("HEX" if len(text) == 2 * scheme.size else "B64"))
    expected, salt = raw[: scheme.size], raw[scheme.size :]
    if len(expected) != scheme.size or bool(salt) != scheme.salted:
        raise UnknownScheme(f"the stored {scheme.algorithm} digest has a wrong length")
    return _fixed(
        lambda password: hashlib.new(scheme.algorithm, password + salt).digest(), expected
    )


def _decode(text: str, encoding: str) -> bytes:
    try:
        if encoding == "HEX":
            return bytes.fromhex(text)
        if encoding in ("B64", "BASE64"):
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise UnknownScheme("the stored digest is neither base64 nor hex") from None
    raise UnknownScheme("the stored digest has an unknown encoding; .HEX and .B64 are known")


# crypt(3)

_ROUNDS = re.compile(r"\$[56]\$rounds=([0-9]+)\$")
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_YESCRYPT = re.compile(r"\$y\$j[./0-9A-D]T\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{43}")
"""libxcrypt's default at costs 1 to 11; its next ones take 512 MiB and more."""
_CRYPT = re.compile(
    r"\$1\$[^$:]{0,8}\$[./A-Za-z0-9]{22}"
    r"|\$5\$(?:rounds=[0-9]+\$)?[^$:]{0,16}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(?:rounds=[0-9]+\$)?[^$:]{0,16}\$[./A-Za-z0-9]{86}"
    r"|[./A-Za-z0-9]{13}"
)


def _crypt(text: str) -> Check:
    """Any method of crypt(3) that is known here: MD5, SHA-2, bcrypt, yescrypt, DES, argon2."""
    if _is_locked(text):
        return _NEVER
    if text.startswith("$argon2"):
        return _argon2(text)
    if text.startswith("$2"):
        return _bcrypt(text)
    if not text.isascii() or not (_CRYPT.fullmatch(text) or _YESCRYPT.fullmatch(text)):
        raise UnknownScheme("the stored hash is of no crypt(3) method known here")
    rounds = _ROUNDS.match(text)
    if rounds is not None and int(rounds[1]) > MAX_CRYPT_ROUNDS:
        raise UnknownScheme(f"the stored hash asks for more than {MAX_CRYPT_ROUNDS} rounds")
    return Check(lambda password: _crypt_matches(password, text.encode("ascii")), cheap=False)


def _crypt_matches(password: bytes, stored: bytes) -> bool:
    if b"\0" in password:
        return False  # crypt(3) would look at what stands before it only
    made = crypt(password, stored)
    if made is None:
        raise UnknownScheme("this system's crypt(3) does not know the stored hash's method")
    return hmac.compare_digest(made, stored)


def _bcrypt(text: str) -> Check:
    if _is_locked(text):
        return _NEVER
    parts = _BCRYPT.fullmatch(text)
    if parts is None or int(parts[1]) < 4:
        raise UnknownScheme("the stored bcrypt hash is malformed")
    if int(parts[1]) > MAX_BCRYPT_COST:
        raise UnknownScheme(f"the stored bcrypt hash has a cost over {MAX_BCRYPT_COST}")
    return Check(lambda password: _bcrypt_matches(password, text.encode("ascii")), cheap=False)


def _bcrypt_matches(password: bytes, stored: bytes) -> bool:
    return b"\0" not in password and bcrypt.checkpw(password[:BCRYPT_PASSWORD], stored)


# Argon2 (RFC 9106)

_ARGON2 = re.compile(
    r"\$argon2(id|i)(?:\$v=[0-9]{1,3})?\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,8})"
    r"\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)


def _argon2(text: str) -> Check:
    if _is_locked(text):
        return _NEVER
    parts = _ARGON2.fullmatch(text)
    if parts is None:
        raise UnknownScheme("the stored argon2 hash is malformed, or neither argon2id nor argon2i")
    memory, passes, lanes = int(parts[2]), int(parts[3]), int(parts[4])
    if memory > MAX_ARGON2_MEMORY or memory * passes > MAX_ARGON2_WORK or lanes > MAX_ARGON2_LANES:
        raise UnknownScheme(
            "the stored argon2 hash asks for more memory, passes or lanes than allowed"
        )
    kind = Type.ID if parts[1] == "id" else Type.I
    stored = text.encode("ascii")
    return Check(lambda password: _argon2_matches(password, stored, kind), cheap=False)


def _argon2_matches(password: bytes, stored: bytes, kind: Type) -> bool:
    try:
        return verify_secret(stored, password, kind)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.VerificationError as error:
        raise UnknownScheme(f"the stored argon2 hash cannot be checked: {error}") from None


PASSWORD_TYPES = ("MySQL-Password", "Crypt-Password", "Password")
_TYPES: Mapping[str, Reader] = {
    "": _mysql,
    "mysql-password": _mysql,
    "crypt-password": _crypt,
    "password": _plain,
}
_PREFIXED: Mapping[str, Reader] = {
    "ARGON2ID": _argon2,
    "ARGON2I": _argon2,
    "BLF-CRYPT": _bcrypt,
    "BCRYPT": _bcrypt,
    "SHA512-CRYPT": _crypt,
    "SHA256-CRYPT": _crypt,
    "MD5-CRYPT": _crypt,
    "DES-CRYPT": _crypt,
    "CRYPT": _crypt,
    "PLAIN": _plain,
    "CLEARTEXT": _plain,
}
