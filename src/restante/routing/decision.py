"""What routing can decide about an address, and the instructions an address may have."""

from __future__ import annotations

from dataclasses import dataclass

from restante.address import Address
from restante.directory import Account
from restante.records import record


@dataclass(frozen=True, slots=True)
class ToMaildir:
    """A path that ends in ``/``, relative to the account's home unless absolute."""

    path: str


@dataclass(frozen=True, slots=True)
class ToMbox:
    """Any other path: an mbox file."""

    path: str


@dataclass(frozen=True, slots=True)
class ToProgram:
    """``|command``."""

    command: str


@dataclass(frozen=True, slots=True)
class ToForward:
    """``&address`` or an address."""

    address: Address


Instruction = ToMaildir | ToMbox | ToProgram | ToForward


@record
class Mailbox:
    """The account's default delivery."""

    account: Account
    delivered_to: str
    """The address from decision 2, as Delivered-To writes it."""
    maildir: str
    """The Maildir's absolute path."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What a program is told of the address that it serves (qmail-command(8))."""

    user: str
    """USER."""
    extension: str = ""
    """EXT."""
    default: str = ""
    """DEFAULT: what ``-default`` in the name of the .qmail file stands for."""
    new_sender: str = ""
    """The reverse-path of what is forwarded (dot-qmail(5)); empty: the sender as it was.

    ``local-owner@host``, or ``local-owner-@host-@[]``: a variable envelope return path, whose
    last part is replaced by each recipient.
    """


@dataclass(frozen=True, slots=True)
class Instructions:
    """What ``alias`` rows or the lines of a .qmail file say is to be done, in their order."""

    account: Account | None
    """Whose rights and home they have; None for the ``alias`` user."""
    delivered_to: str
    actions: tuple[Instruction, ...]
    destination: Destination
    source: str = "alias"
    """The table, or the path of the .qmail file."""


@dataclass(frozen=True, slots=True)
class Remote:
    """The address is for elsewhere."""

    address: Address


@dataclass(frozen=True, slots=True)
class NoSuchUser:
    """The database was asked and has no such address (550 5.1.1)."""

    address: Address
    why: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Rows that cannot be obeyed (451 4.3.5): an operator must mend them; ``why`` says which."""

    address: Address
    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The database could not be asked (451 4.3.0); it may well exist."""

    address: Address
    why: str


Decision = Mailbox | Instructions | Remote | NoSuchUser | Misconfigured | Unknown
