"""Plain digests, salted and not, and CRAM-MD5: a few microseconds each."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from restante.auth.schemes import md5
from restante.auth.schemes.check import NEVER, Check, UnknownScheme, fixed, is_locked


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest of the password, or of the password and a salt, which is stored behind it."""

    algorithm: str
    size: int
    """Octets of the digest."""
    salted: bool


DIGESTS: Mapping[str, Digest] = {
    "SHA": Digest("sha1", 20, salted=False),
    "SHA1": Digest("sha1", 20, salted=False),
    "SHA256": Digest("sha256", 32, salted=False),
    "SHA512": Digest("sha512", 64, salted=False),
    "SSHA": Digest("sha1", 20, salted=True),
    "SSHA256": Digest("sha256", 32, salted=True),
    "SSHA512": Digest("sha512", 64, salted=True),
    "SMD5": Digest("md5", 16, salted=True),
    "LDAP-MD5": Digest("md5", 16, salted=False),
    "PLAIN-MD5": Digest("md5", 16, salted=False),
}

CRAM_SIZE = 32
"""Octets of a CRAM-MD5 hash: two states of MD5."""


def read_digest(scheme: Digest, text: str, encoding: str) -> Check:
    """The digest, then the salt, in the encoding that is named or shows; raises UnknownScheme."""
    if is_locked(text):
        return NEVER
    # The length tells hex from base64 only where there is no salt to make up the difference.
    raw = _decoded(text, encoding, 0 if scheme.salted else scheme.size)
    expected, salt = raw[: scheme.size], raw[scheme.size :]
    if len(expected) != scheme.size or bool(salt) != scheme.salted:
        raise UnknownScheme(f"the stored {scheme.algorithm} digest has a wrong length")
    return fixed(lambda password: _digest(scheme.algorithm, password + salt), expected)


def read_cram_md5(text: str, encoding: str) -> Check:
    """The states of HMAC-MD5 (RFC 2104) after its key: the outer one, then the inner one."""
    if is_locked(text):
        return NEVER
    expected = _decoded(text, encoding, CRAM_SIZE)
    if len(expected) != CRAM_SIZE:
        raise UnknownScheme("the stored CRAM-MD5 hash has a wrong length")
    return fixed(_cram_md5, expected)


def decode(text: str, encoding: str) -> bytes:
    """The octets that ``text`` stands for in ``HEX``, ``B64`` or ``BASE64``.

    Raises UnknownScheme.
    """
    try:
        if encoding == "HEX":
            return bytes.fromhex(text)
        if encoding in ("B64", "BASE64"):
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise UnknownScheme("the stored hash is neither base64 nor hex") from None
    raise UnknownScheme("the stored hash has an unknown encoding; .HEX, .B64 and .BASE64 are known")


def _decoded(text: str, encoding: str, size: int) -> bytes:
    return decode(text, encoding or ("HEX" if len(text) == 2 * size else "B64"))


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _cram_md5(password: bytes) -> bytes:
    key = password if len(password) <= md5.BLOCK else _digest("md5", password)
    key = key.ljust(md5.BLOCK, b"\0")
    states = (md5.compress(md5.START, bytes(octet ^ pad for octet in key)) for pad in (0x5C, 0x36))
    return b"".join(md5.octets(state) for state in states)
