"""Maildrops in memory: a MailStore for tests that need mail to read and no disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field

from restante.directory import Account
from restante.store import MaildropInUse, MaildropUnavailable, MessageGone, Messages

PIECE = 1000
"""Octets in the pieces that ``read`` gives."""


@dataclass(slots=True)
class MemoryStore:
    """Maildrops by account name; tests put messages in and take them away."""

    mail: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By account name, then by UID, in order of arrival."""
    unavailable: bool = False
    """Everything fails as if the disk were away."""
    in_use: set[str] = field(default_factory=set)

    def add(self, account: Account, uid: str, content: bytes) -> None:
        """A message arrives."""
        self.mail.setdefault(account.name, {})[uid] = content

    def take_away(self, account: Account, uid: str) -> None:
        """Another program removes a message."""
        del self.mail[account.name][uid]

    async def open(self, account: Account) -> MemoryDrop:
        """See ``MailStore.open``."""
        self.check()
        if account.name in self.in_use:
            raise MaildropInUse(account.name)
        self.in_use.add(account.name)
        return MemoryDrop(self, account.name)

    def check(self) -> None:
        """Raise MaildropUnavailable if the disk is away."""
        if self.unavailable:
            raise MaildropUnavailable("the disk is away")


class MemoryDrop:
    """An open maildrop of a MemoryStore."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name
        self._mail = store.mail.get(name, {})
        self._uids = list(self._mail)
        self.messages = Messages(
            [uid.encode("ascii") for uid in self._uids], list(map(_wire_size, self._mail.values()))
        )
        """See ``Maildrop.messages``."""

    def at_hand(self, index: int) -> bytes | None:
        """See ``Maildrop.at_hand``: nothing is read ahead."""
        return None

    async def read(self, index: int) -> AsyncGenerator[bytes, None]:
        """See ``Maildrop.read``."""
        self._store.check()
        content = self._mail.get(self._uids[index])
        if content is None:
            raise MessageGone
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]

    async def remove(self, indexes: Collection[int]) -> None:
        """See ``Maildrop.remove``."""
        self._store.check()
        for index in indexes:
            self._mail.pop(self._uids[index], None)

    def close(self) -> None:
        """See ``Maildrop.close``."""
        self._store.in_use.discard(self._name)


def _wire_size(content: bytes) -> int:
    wire = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return len(wire) if not wire or wire.endswith(b"\n") else len(wire) + 2
