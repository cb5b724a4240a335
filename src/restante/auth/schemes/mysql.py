"""MySQL's ``PASSWORD()``, before and since version 4.1."""

from __future__ import annotations

import hashlib
import re

from restante.auth.schemes.check import NEVER, Check, UnknownScheme, fixed, is_locked

_MYSQL_41 = re.compile(r"\*[0-9A-Fa-f]{40}")
_CUT_SHORT = re.compile(r"\*[0-9A-Fa-f]{8,39}")
"""What a column made for the 16 digits of old keeps of a new hash; no mark of a locked account."""
_MYSQL_16 = re.compile(r"[0-9A-Fa-f]{16}")


def read_mysql(text: str) -> Check:
    """``*`` and 40 hex digits since MySQL 4.1, 16 before that; raises UnknownScheme."""
    if _MYSQL_41.fullmatch(text):
        return fixed(lambda password: _sha1(_sha1(password)), bytes.fromhex(text[1:]))
    if _MYSQL_16.fullmatch(text):
        return fixed(_old_hash, bytes.fromhex(text))
    if _CUT_SHORT.fullmatch(text):
        raise UnknownScheme("the stored MySQL PASSWORD() was cut short by its column")
    if is_locked(text):
        return NEVER
    raise UnknownScheme("the stored hash is no MySQL PASSWORD(), which its password_type says")


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _old_hash(password: bytes) -> bytes:
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
