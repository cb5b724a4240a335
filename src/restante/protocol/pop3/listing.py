"""The maildrop as the session numbers it, with the deletion marks (RFC 1939 §5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import count, islice
from operator import add
from typing import Protocol

LINES = 1000
"""Messages whose lines of LIST and UIDL are made at a time, some 50 KiB: all whose numbers differ
in the last three digits alone."""

_FIRST = tuple(b"%d " % number for number in range(1, LINES))
_ENDS = tuple(b"%03d " % number for number in range(LINES))
"""Of numbers, before what is told of a message."""


_NONE: frozenset[int] = frozenset()


class Strings(Protocol):
    """Octet strings in order."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __getitem__(self, place: int, /) -> bytes: ...


class Listed(Protocol):
    """What the client is told of the messages, numbered from 0 here, from 1 on the wire."""

    @property
    def uids(self) -> Strings:
        """Their unique ids (RFC 1939 §7, UIDL)."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Their sizes in octets with CRLF line ends (RFC 1939 §11)."""
        ...


class Listing:
    """Messages and which of them are marked."""

    __slots__ = ("_all_octets", "_deleted", "_messages", "octets")

    def __init__(self, messages: Listed) -> None:
        self._messages = messages
        self._deleted: Set[int] = _NONE
        self._all_octets = sum(messages.sizes)
        self.octets = self._all_octets
        """The size of the messages that are not marked."""

    @property
    def count(self) -> int:
        """Messages that are not marked."""
        return len(self._messages.sizes) - len(self._deleted)

    @property
    def deleted(self) -> tuple[int, ...]:
        """The marked messages, in order."""
        return tuple(sorted(self._deleted))

    def has(self, index: int) -> bool:
        """Whether there is such a message and it is not marked."""
        return 0 <= index < len(self._messages.sizes) and index not in self._deleted

    def size(self, index: int) -> int:
        """The size of a message that is there."""
        return self._messages.sizes[index]

    def uid(self, index: int) -> bytes:
        """The unique id of a message that is there."""
        return self._messages.uids[index]

    def sizes(self) -> Iterator[bytes]:
        """The lines of LIST, each with its CRLF, of so many messages at a time."""
        return self._lines(map(b"%d".__mod__, self._messages.sizes))

    def uids(self) -> Iterator[bytes]:
        """The lines of UIDL, each with its CRLF, of so many messages at a time."""
        return self._lines(iter(self._messages.uids))

    def mark(self, index: int) -> None:
        """Mark a message that is there for deletion."""
        if isinstance(self._deleted, set):
            self._deleted.add(index)
        else:
            self._deleted = {index}
        self.octets -= self._messages.sizes[index]

    def unmark_all(self) -> None:
        """Take all marks away."""
        self._deleted = _NONE
        self.octets = self._all_octets

    def _lines(self, told: Iterator[bytes]) -> Iterator[bytes]:
        if not self._deleted:
            return _blocks(told)
        return _blocks_without(self._deleted, enumerate(told, start=1))


def _blocks(told: Iterator[bytes]) -> Iterator[bytes]:
    """All lines; what their numbers have in common is put between them by ``join``."""
    if block := b"\r\n".join(map(add, _FIRST, islice(told, len(_FIRST)))):
        yield block + b"\r\n"
    for thousands in count(1):
        common = b"%d" % thousands
        block = (b"\r\n" + common).join(map(add, _ENDS, islice(told, LINES)))
        if not block:
            return
        yield common + block + b"\r\n"


def _blocks_without(marked: Set[int], numbered: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """Where all are marked, a block is empty: to look at so many takes its time as well."""
    while some := list(islice(numbered, LINES)):
        yield b"".join([b"%d %b\r\n" % line for line in some if line[0] - 1 not in marked])
