"""Reading mailboxes: the contract of a maildrop as POP3 sees it.

Storage errors speak no protocol; POP3 translates them at its edge.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from restante.directory import Account
from restante.errors import TemporaryError


class MaildropInUse(TemporaryError):
    """Another session has the maildrop (RFC 2449 §8.1.2, IN-USE)."""


class MaildropUnavailable(TemporaryError):
    """The maildrop cannot be read now: permissions, I/O errors, a disk that is away."""


class MessageGone(Exception):
    """The message vanished under the session: another program moved or removed it."""


class Strings(Protocol):
    """Octet strings in order; ``columns`` has one that takes little memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def __getitem__(self, place: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages as they were when the session opened, numbered from 0 in order of arrival.

    In columns: there may be a million of them, and a thousand sessions that only wait.
    """

    uids: Strings = ()
    """Each stays the same for ever: 1 to 70 characters, 0x21 to 0x7E (RFC 1939 §7)."""
    sizes: Sequence[int] = ()
    """Octets with CRLF line ends, without dot-stuffing (RFC 1939 §11).

    As far as the store knows: what it was told may be wrong, and what is read counts.
    """

    def __len__(self) -> int:
        return len(self.sizes)


class Maildrop(Protocol):
    """An exclusively opened maildrop; a snapshot."""

    @property
    def messages(self) -> Messages:
        """What the session sees; mail that arrives later is not in it."""
        ...

    def at_hand(self, index: int) -> bytes | None:
        """The whole message as it is stored, if that takes no wait; None is no answer."""
        ...

    def read(self, index: int) -> AsyncGenerator[bytes, None]:
        """The message as it is stored, in pieces; raises MessageGone or MaildropUnavailable.

        Lines end with LF, or with CRLF if another program wrote it so. Whoever stops
        before the end closes the generator (``contextlib.aclosing``).
        """
        ...

    async def remove(self, indexes: Collection[int]) -> None:
        """Delete these messages, durably on return; one that is already gone counts as deleted.

        Raises MaildropUnavailable if any could not be deleted; the others are deleted, and its
        text says how many are.
        """
        ...

    def close(self) -> None:
        """Let the next session in; does not wait, and may be done again."""
        ...


class MailStore(Protocol):
    """Where accounts' maildrops are."""

    async def open(self, account: Account) -> Maildrop:
        """Open exclusively; raises MaildropInUse or MaildropUnavailable.

        A maildrop that does not exist yet is an empty one.
        """
        ...
