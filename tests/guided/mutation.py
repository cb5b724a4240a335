"""Inputs made of others by chance, for want of anything better."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.guided.target import Target

MOST_CHANGES = 6
"""In one input."""


def mutations(target: Target, chance: random.Random, count: int) -> Iterator[bytes]:
    """So many inputs; the same ones for the same chance."""
    for _ in range(count):
        data = chance.choice(target.seeds)
        for _ in range(chance.randint(1, MOST_CHANGES)):
            data = chance.choice(_CHANGES)(data, target, chance)
        yield data[: target.longest]


def _replace_octet(data: bytes, _target: Target, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


def _insert_word(data: bytes, target: Target, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(target.words or (b"\0",)) + data[place:]


def _remove(data: bytes, _target: Target, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _repeat(data: bytes, _target: Target, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def _splice(data: bytes, target: Target, chance: random.Random) -> bytes:
    other = chance.choice(target.seeds)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_CHANGES: tuple[Callable[[bytes, Target, random.Random], bytes], ...] = (
    _replace_octet,
    _insert_word,
    _remove,
    _repeat,
    _splice,
)
