"""What a target is, and how its octets become decisions, pieces and text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """One parser, and from where to look for what it does not keep."""

    run: Callable[[bytes], None]
    """Raises whatever a promise that is not kept comes to; its docstring says what is promised."""
    seeds: Sequence[bytes]
    """Inputs that lead far into the parser."""
    words: Sequence[bytes] = ()
    """What inputs are made of."""
    longest: int = 512
    """Octets of an input at the most."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.run.__name__


class Choices:
    """Takes decisions from the beginning of an input; without end, for what is lacking is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def octet(self) -> int:
        """The next one."""
        self._place += 1
        return self._data[self._place - 1] if self._place <= len(self._data) else 0

    def one_of(self, values: Sequence[T]) -> T:
        """One of several."""
        return values[self.octet() % len(values)]

    def take(self, most: int) -> bytes:
        """Some octets, as many as the next one says."""
        length = self.octet() % (most + 1)
        self._place += length
        return self._data[self._place - length : self._place]

    @property
    def rest(self) -> bytes:
        """All that is left."""
        return self._data[self._place :]


def cut(octets: bytes, size: int) -> Iterator[bytes]:
    """Pieces of ``size`` octets; the whole if that is 0, which is no piece if it is empty."""
    for start in range(0, len(octets), size or len(octets) or 1):
        yield octets[start : start + (size or len(octets))]


def text_of(octets: bytes) -> str:
    """As text that comes from a file or a command line: what is no UTF-8 is kept."""
    return octets.decode("utf-8", "surrogateescape")
