"""Final delivery: this page is the contract between the mailbox writer and those who use it.

A ``Delivery`` says where one copy of a message goes. Its file name is derived
from the queue id and the delivery address, so that a retry after a crash finds
what it already delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from restante.envelope import Content, Envelope
from restante.status import Outcome


@dataclass(frozen=True, slots=True)
class Delivery:
    """One copy of a message, for one Maildir."""

    maildir: str
    """Absolute path; made on first delivery, mode 0700."""
    uid: int
    gid: int
    delivered_to: tuple[str, ...]
    """Delivered-To values to prepend: the final address first, then the aliases it came by."""


class MailboxWriter(Protocol):
    """Puts messages into Maildirs, durably, many at a time."""

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        """Every delivery or none of them: Delivered means all are durable.

        After anything but Delivered no mailbox shows the message.
        """
        ...

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        """Each delivery for itself, with its own outcome, in the order given.

        ``again``: an earlier attempt may have delivered without having been recorded (a
        crash, a lost answer); a copy that is found in ``new`` or ``cur`` counts as delivered.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun and stop."""
        ...
