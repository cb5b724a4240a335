"""crypt(3): every method of the system's libcrypt that databases of mail accounts hold.

DES, BSDi, MD5, SHA-1, SHA-256, SHA-512, bcrypt, scrypt, yescrypt and gost-yescrypt, as
crypt(5) writes them. A method that this system's library lacks is an unknown scheme.
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable, Mapping

import bcrypt

from restante.auth.libcrypt import crypt
from restante.auth.schemes.argon import read_argon2
from restante.auth.schemes.check import NEVER, Check, UnknownScheme, is_locked

MAX_SHA_ROUNDS = 1_000_000
"""Rounds of $5$, $6$ and $sha1$: about half a second."""
MAX_BSDI_ROUNDS = 4_194_304
"""Rounds of BSDi's DES: about half a second."""
MIN_BCRYPT_COST = 4
MAX_BCRYPT_COST = 15
"""The logarithm of bcrypt's rounds: about two seconds."""
MAX_SCRYPT_MEMORY = 256 * 1024 * 1024
"""Octets that one scrypt or yescrypt may take."""
MAX_SCRYPT_WORK = 1024 * 1024 * 1024
"""Octets times passes and lanes: some two seconds."""
MAX_CRYPT_PASSWORD = 511
"""Octets of a password that crypt(3) takes (crypt(3), CRYPT_MAX_PASSPHRASE_SIZE is 512)."""
BCRYPT_PASSWORD = 72
"""Octets that bcrypt looks at; it is defined to ignore the rest."""

LONG_NUMBER = 48
"""The digit of yescrypt from which on a number has more digits."""
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The digits of numbers in base 64, from 0 on."""


def read_crypt(text: str) -> Check:
    """The check of any method that is known here; raises UnknownScheme."""
    if is_locked(text):
        return NEVER
    if text.startswith("$argon2"):
        return read_argon2(text)
    if text.startswith("$2"):
        return read_bcrypt(text)
    _check_method(text)
    stored = text.encode("ascii")
    return Check(lambda password: _crypt_matches(password, stored), cheap=False)


def read_bcrypt(text: str) -> Check:
    """The check of $2a$, $2b$, $2x$ or $2y$; raises UnknownScheme."""
    if is_locked(text):
        return NEVER
    parts = _BCRYPT.fullmatch(text)
    if parts is None or int(parts[2]) < MIN_BCRYPT_COST:
        raise UnknownScheme("the stored bcrypt hash is malformed")
    if int(parts[2]) > MAX_BCRYPT_COST:
        raise UnknownScheme(f"the stored bcrypt hash has a cost over {MAX_BCRYPT_COST}")
    matches, stored = _BCRYPT_VARIANTS[parts[1]], _canonical(text).encode("ascii")
    return Check(lambda password: matches(password, stored), cheap=False)


def _crypt_matches(password: bytes, stored: bytes) -> bool:
    if b"\0" in password or len(password) > MAX_CRYPT_PASSWORD:
        return False  # crypt(3) would look at what stands before the NUL, or refuse to work
    made = crypt(password, stored)
    if made is None:
        raise UnknownScheme("this system's crypt(3) does not know the stored hash's method")
    return hmac.compare_digest(made, stored)


# bcrypt

_BCRYPT_DIGITS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BCRYPT = re.compile(r"\$2([abxy])\$([0-9]{2})\$[./A-Za-z0-9]{53}")


def _canonical(text: str) -> str:
    """Without the bits beyond salt and hash that some programs have set, and libraries refuse."""
    salt, hashed = text[:29], text[29:]
    return _masked(salt, 0b110000) + _masked(hashed, 0b111100)


def _masked(text: str, mask: int) -> str:
    return text[:-1] + _BCRYPT_DIGITS[_BCRYPT_DIGITS.index(text[-1]) & mask]


def _bcrypt_matches(password: bytes, stored: bytes) -> bool:
    return b"\0" not in password and bcrypt.checkpw(password[:BCRYPT_PASSWORD], stored)


def _bcrypt_a_matches(password: bytes, stored: bytes) -> bool:
    """OpenBSD's $2a$; then crypt_blowfish's, which differs for some passwords beyond ASCII."""
    if _bcrypt_matches(password, stored):
        return True
    if password.isascii():
        return False
    try:
        return _crypt_matches(password, stored)
    except UnknownScheme:
        return False  # a system without crypt_blowfish


_BCRYPT_VARIANTS: Mapping[str, Callable[[bytes, bytes], bool]] = {
    "a": _bcrypt_a_matches,
    "b": _bcrypt_matches,
    "x": _crypt_matches,  # octets were taken for signed: the library for bcrypt cannot do it
    "y": _bcrypt_matches,
}


# What the other methods look like and what they may cost


def _check_method(text: str) -> None:
    """Raises UnknownScheme unless the method is known and the cost bearable."""
    for pattern, check_cost in _METHODS:
        found = pattern.fullmatch(text)
        if found is not None and text.isascii():
            check_cost(found)
            return
    raise UnknownScheme("the stored hash is of no crypt(3) method known here")


def _check_rounds(found: re.Match[str]) -> None:
    if int(found["rounds"] or 0) > MAX_SHA_ROUNDS:
        raise UnknownScheme(f"the stored hash asks for more than {MAX_SHA_ROUNDS} rounds")


def _check_bsdi(found: re.Match[str]) -> None:
    if _number(found["rounds"]) > MAX_BSDI_ROUNDS:
        raise UnknownScheme(f"the stored hash asks for more than {MAX_BSDI_ROUNDS} rounds")


def _check_scrypt(found: re.Match[str]) -> None:
    """``N``, ``r`` and ``p`` of RFC 7914 §2."""
    _check_memory(_number(found["log_n"]), _number(found["r"]), _number(found["p"]))


def _check_yescrypt(found: re.Match[str]) -> None:
    """A flavor, ``N`` and ``r``; then, where there is more, what it is.

    Numbers of more than one digit would be beyond every bound.
    """
    numbers = [_number(digit) for digit in found["parameters"]]
    _, log_n, r, *others = numbers
    given, *values = others or [-1]
    # Bits of ``given``, which counts from 1: lanes, passes; upgrades and a ROM are not for us.
    if max(numbers) >= LONG_NUMBER or given > 2 or len(values) != (given + 1).bit_count():
        raise _too_dear()
    _check_memory(log_n + 1, r + 1, math.prod(value + 2 for value in values))


def _check_memory(log_n: int, r: int, passes: int) -> None:
    memory = (128 * r) << min(log_n, 63)
    if memory > MAX_SCRYPT_MEMORY or memory * passes > MAX_SCRYPT_WORK:
        raise _too_dear()


def _too_dear() -> UnknownScheme:
    return UnknownScheme("the stored scrypt hash asks for more memory or passes than allowed")


def _number(digits: str) -> int:
    """A number whose lowest digit comes first."""
    return sum(_DIGITS.index(digit) << 6 * place for place, digit in enumerate(digits))


def _no_cost(_found: re.Match[str]) -> None:
    """The method has one cost, and that is low."""


_METHODS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], None]], ...] = (
    (re.compile(r"[./A-Za-z0-9]{13}"), _no_cost),
    (re.compile(r"_(?P<rounds>[./A-Za-z0-9]{4})[./A-Za-z0-9]{15}"), _check_bsdi),
    (re.compile(r"\$1\$[^$:]{0,8}\$[./A-Za-z0-9]{22}"), _no_cost),
    (
        re.compile(r"\$5\$(?:rounds=(?P<rounds>[0-9]{1,9})\$)?[^$:]{0,16}\$[./A-Za-z0-9]{43}"),
        _check_rounds,
    ),
    (
        re.compile(r"\$6\$(?:rounds=(?P<rounds>[0-9]{1,9})\$)?[^$:]{0,16}\$[./A-Za-z0-9]{86}"),
        _check_rounds,
    ),
    (
        re.compile(r"\$sha1\$(?P<rounds>[0-9]{1,9})\$[./A-Za-z0-9]{1,64}\$[./A-Za-z0-9]{28}"),
        _check_rounds,
    ),
    (
        re.compile(
            r"\$7\$(?P<log_n>[./A-Za-z0-9])(?P<r>[./A-Za-z0-9]{5})(?P<p>[./A-Za-z0-9]{5})"
            r"[./A-Za-z0-9]{0,86}\$[./A-Za-z0-9]{43}"
        ),
        _check_scrypt,
    ),
    (
        re.compile(
            r"\$g?y\$(?P<parameters>[./A-Za-z0-9]{3,6})"
            r"\$[./A-Za-z0-9]{0,86}\$[./A-Za-z0-9]{43}"
        ),
        _check_yescrypt,
    ),
)
