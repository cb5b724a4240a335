"""Many short octet strings in the memory that a few long ones take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import methodcaller
from typing import Self

BLOCK = 16
"""Strings in one block, which is taken apart to give one of them: in larger ones that takes
longer than to open a file, and smaller ones would hardly save memory."""

_apart = methodcaller("split", b"\0")


class Column:
    """Strings that stay as they are; in a list they would take twice as much, and more.

    None of them has a NUL in it, as no name of a file has.
    """

    __slots__ = ("_blocks", "_length")

    def __init__(self, strings: Iterable[bytes] = ()) -> None:
        self._blocks: list[bytes] = []
        self._length = 0
        self.extend(strings)

    def extend(self, strings: Iterable[bytes]) -> None:
        """Add strings."""
        begun = self._length % BLOCK
        fresh = [*self._blocks.pop().split(b"\0"), *strings] if begun else list(strings)
        starts = range(0, len(fresh), BLOCK)
        self._blocks += [b"\0".join(fresh[start : start + BLOCK]) for start in starts]
        self._length += len(fresh) - begun

    def __len__(self) -> int:
        return self._length

    @classmethod
    def of_text(cls, strings: Sequence[str]) -> Self:
        """Of octets that are characters, in Latin-1."""
        column = cls()
        starts = range(0, len(strings), BLOCK)
        column._blocks = ["\0".join(strings[at : at + BLOCK]).encode("latin-1") for at in starts]
        column._length = len(strings)
        return column

    @property
    def octets(self) -> int:
        """What it takes in memory, about."""
        return sum(map(len, self._blocks))

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(map(_apart, self._blocks))

    def __getitem__(self, place: int, /) -> bytes:
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self._blocks[place // BLOCK].split(b"\0")[place % BLOCK]
