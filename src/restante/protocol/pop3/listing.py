"""The maildrop as the session numbers it, with the deletion marks (RFC 1939 §5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Listed(Protocol):
    """What the client is told of a message."""

    @property
    def uid(self) -> str:
        """Its unique id (RFC 1939 §7, UIDL)."""
        ...

    @property
    def wire_size(self) -> int:
        """Its size in octets with CRLF line ends (RFC 1939 §11)."""
        ...


class Listing:
    """Messages numbered from 0 here, from 1 on the wire."""

    def __init__(self, messages: Sequence[Listed]) -> None:
        self._messages = messages
        self._deleted: set[int] = set()
        self._all_octets = sum(message.wire_size for message in messages)
        self._octets = self._all_octets

    @property
    def count(self) -> int:
        """Messages that are not marked."""
        return len(self._messages) - len(self._deleted)

    @property
    def octets(self) -> int:
        """The size of the messages that are not marked."""
        return self._octets

    @property
    def deleted(self) -> tuple[int, ...]:
        """The marked messages, in order."""
        return tuple(sorted(self._deleted))

    def has(self, index: int) -> bool:
        """Whether there is such a message and it is not marked."""
        return 0 <= index < len(self._messages) and index not in self._deleted

    def size(self, index: int) -> int:
        """The size of a message that is there."""
        return self._messages[index].wire_size

    def uid(self, index: int) -> str:
        """The unique id of a message that is there."""
        return self._messages[index].uid

    def sizes(self) -> str:
        """The lines of LIST, each with its CRLF."""
        return "".join([f"{n} {message.wire_size}\r\n" for n, message in self._numbered()])

    def uids(self) -> str:
        """The lines of UIDL, each with its CRLF."""
        return "".join([f"{n} {message.uid}\r\n" for n, message in self._numbered()])

    def mark(self, index: int) -> None:
        """Mark a message that is there for deletion."""
        self._deleted.add(index)
        self._octets -= self._messages[index].wire_size

    def unmark_all(self) -> None:
        """Take all marks away."""
        self._deleted.clear()
        self._octets = self._all_octets

    def _numbered(self) -> Iterable[tuple[int, Listed]]:
        numbered = enumerate(self._messages, start=1)
        if not self._deleted:
            return numbered
        return [(n, message) for n, message in numbered if n - 1 not in self._deleted]
