"""Final delivery: this page is the contract between the mailbox writer and those who use it.

A ``Delivery`` says where one copy of a message goes. Its file name is derived
from the queue id and the delivery address, so that a retry after a crash finds
what it already delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from restante.directory import Account
from restante.envelope import Content, Envelope
from restante.records import record
from restante.status import Outcome

MAX_OCTETS = 256 * 1024 * 1024
"""Of copies that are written in one go, if there are several: whoever comes meanwhile waits."""


@record
class Delivery:
    """One copy of a message, for one Maildir."""

    maildir: str
    """Absolute path; made on first delivery, mode 0700."""
    account: Account
    """Whose it is: it is written with the rights of the account's uid and gid."""
    delivered_to: tuple[str, ...]
    """Delivered-To values to prepend: the final address first, then the aliases it came by."""


@dataclass(frozen=True, slots=True)
class MboxDelivery:
    """One copy of a message, for one mbox file (mbox(5))."""

    path: str
    """Absolute path; made on first delivery, mode 0600."""
    account: Account
    delivered_to: tuple[str, ...]
    """As for ``Delivery``."""


@dataclass(frozen=True, slots=True)
class ProgramDelivery:
    """One message for one program (qmail-command(8)), run in the account's home as its user."""

    command: str
    """What ``sh -c`` is given."""
    account: Account
    delivered_to: tuple[str, ...]
    """As for ``Delivery``; the first is RECIPIENT."""
    user: str
    """USER."""
    extension: str = ""
    """EXT."""
    default: str = ""
    """DEFAULT."""
    new_sender: str = ""
    """NEWSENDER; empty: the same as SENDER, which is the envelope's reverse-path."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    outcome: Outcome
    is_last: bool = False
    """It exited with 99: delivered, and the instructions after it do not count."""


def most_copies(content: Content) -> int:
    """How many copies of a message are to be asked for at a time."""
    return max(1, MAX_OCTETS // max(1, content.size))


class MailboxWriter(Protocol):
    """Puts messages where they belong, durably and with the rights of whom they are for.

    All three kinds of work are bounded in time; what cannot be done is an outcome, never an
    exception.
    """

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

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """Add the message to an mbox: all of it, or nothing. ``again`` as for ``deliver_each``."""
        ...

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        """Run the program with the message on its standard input."""
        ...

    async def close(self) -> None:
        """Finish what was begun and stop."""
        ...
