"""MD5's compression function (RFC 1321 §3.4), for hashes that are states of MD5 on its way.

hashlib hides those; this is used for nothing else, and is slow.
"""

from __future__ import annotations

import math
import struct

BLOCK = 64
"""Octets that are compressed at once."""
START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
"""The state before the first block (RFC 1321 §3.3)."""

_MASK = 0xFFFFFFFF
_SINES = tuple(int(abs(math.sin(step + 1)) * 2**32) for step in range(64))
_TURNS = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
_STRIDES = ((1, 0), (5, 1), (3, 5), (7, 0))
"""For each round, which word of the block a step takes: factor and offset, modulo 16."""

State = tuple[int, int, int, int]


def compress(state: State, block: bytes) -> State:
    """The state after one block of 64 octets."""
    words = struct.unpack("<16I", block)
    a, b, c, d = state
    for step, sine in enumerate(_SINES):
        factor, offset = _STRIDES[step // 16]
        added = a + _mix(step // 16, b, c, d) + sine + words[(factor * step + offset) % 16]
        a, b, c, d = d, (b + _turned(added & _MASK, _TURNS[step // 16][step % 4])) & _MASK, b, c
    after = (a, b, c, d)
    w, x, y, z = ((old + new) & _MASK for old, new in zip(state, after, strict=True))
    return w, x, y, z


def octets(state: State) -> bytes:
    """A state as a digest is written, little-endian."""
    return struct.pack("<4I", *state)


def _mix(number: int, b: int, c: int, d: int) -> int:
    """The functions F, G, H and I of RFC 1321 §3.4."""
    if number == 0:
        return (b & c) | (~b & _MASK & d)
    if number == 1:
        return (b & d) | (c & ~d & _MASK)
    if number == 2:
        return b ^ c ^ d
    return c ^ (b | (~d & _MASK))


def _turned(word: int, bits: int) -> int:
    return word << bits | word >> 32 - bits
