"""Keys derived by PBKDF2 (RFC 8018 §5.2): Dovecot's PBKDF2 scheme, and the keys of SCRAM."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from restante.auth.saslprep import NotPrepared, saslprep
from restante.auth.schemes.check import NEVER, Check, UnknownScheme, fixed, is_locked

MAX_ITERATIONS = 1_000_000
"""Iterations of one derivation: about a third of a second."""

_PBKDF2 = re.compile(r"\$1\$([^$]{1,64})\$([0-9]{1,9})\$([0-9A-Fa-f]{40})")
_SCRAM = re.compile(r"([0-9]{1,9}),([A-Za-z0-9+/=]{1,400}),([A-Za-z0-9+/=]+),([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps of a password for SCRAM (RFC 5802 §3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        """Without the keys: whoever has the one for the server can pose as it."""
        return f"ScramKeys({self.iterations})"


def read_pbkdf2(text: str) -> Check:
    """``$1$salt$iterations$hex``, by HMAC-SHA-1; raises UnknownScheme."""
    if is_locked(text):
        return NEVER
    parts = _PBKDF2.fullmatch(text)
    if parts is None:
        raise UnknownScheme("the stored PBKDF2 hash is malformed")
    salt, iterations = parts[1].encode("utf-8", "surrogateescape"), _iterations(parts[2])
    return fixed(
        lambda password: hashlib.pbkdf2_hmac("sha1", password, salt, iterations),
        bytes.fromhex(parts[3]),
        cheap=False,
    )


def read_scram_sha_1(text: str) -> Check:
    """``iterations,salt,StoredKey,ServerKey`` of SCRAM-SHA-1; raises UnknownScheme."""
    return _read_scram("sha1", text)


def read_scram_sha_256(text: str) -> Check:
    """``iterations,salt,StoredKey,ServerKey`` of SCRAM-SHA-256; raises UnknownScheme."""
    return _read_scram("sha256", text)


def parse_scram(algorithm: str, text: str) -> ScramKeys:
    """The keys as they are stored; raises UnknownScheme."""
    parts = _SCRAM.fullmatch(text)
    if parts is None:
        raise UnknownScheme("the stored SCRAM keys are malformed")
    iterations = _iterations(parts[1])
    try:
        salt, stored, server = (
            base64.b64decode(part, validate=True) for part in parts.groups()[1:]
        )
    except binascii.Error:
        raise UnknownScheme("the stored SCRAM keys are not base64") from None
    if {len(stored), len(server)} != {hashlib.new(algorithm).digest_size}:
        raise UnknownScheme("the stored SCRAM keys have a wrong length")
    return ScramKeys(iterations, salt, stored, server)


def make_scram(algorithm: str, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a password (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return ScramKeys(iterations, salt, hashlib.new(algorithm, client_key).digest(), server_key)


def _read_scram(algorithm: str, text: str) -> Check:
    if is_locked(text):
        return NEVER
    keys = parse_scram(algorithm, text)
    return Check(lambda password: _has_keys(algorithm, password, keys), cheap=False)


def _has_keys(algorithm: str, password: bytes, keys: ScramKeys) -> bool:
    """As it is, for Dovecot does not prepare passwords; then prepared, as RFC 5802 §2.2 has it."""
    return any(
        hmac.compare_digest(
            make_scram(algorithm, form, keys.salt, keys.iterations).stored_key, keys.stored_key
        )
        for form in _forms(password)
    )


def _forms(password: bytes) -> list[bytes]:
    try:
        prepared = saslprep(password.decode()).encode()
    except (UnicodeDecodeError, NotPrepared):
        return [password]
    return [password] if prepared in (password, b"") else [password, prepared]


def _iterations(digits: str) -> int:
    iterations = int(digits)
    if not 0 < iterations <= MAX_ITERATIONS:
        raise UnknownScheme(f"the stored hash asks for none or over {MAX_ITERATIONS} iterations")
    return iterations
