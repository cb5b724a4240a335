"""The front door: may this peer send this, to whom, and where does the message become durable.

Knows envelopes and decisions, not SMTP: the service that speaks a protocol asks
``door.Receiver`` and passes the replies on. This module is the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from restante.address import Address, NullReversePath, ReversePath
from restante.directory import Account
from restante.envelope import Content, Envelope, Notify, RecipientDsn
from restante.queue import Target
from restante.records import record
from restante.routing.decision import Decision
from restante.status import Reply

ServiceName = Literal["smtp", "submission"]
"""The doors: where other hosts bring mail (RFC 5321), and where users do (RFC 6409)."""


class WaitingRoom(Protocol):
    """Where messages go that cannot be delivered now."""

    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        """Durable on return; raises TemporaryError."""
        ...


@record
class Client:
    """Who is at the door."""

    session: str
    may_relay: bool
    """Whether it may send to addresses that are not here."""
    service: ServiceName = "smtp"
    account: Account | None = None
    """Who it has proved to be (RFC 4954), or None."""

    @property
    def account_name(self) -> str:
        """The account's name, or empty, as the log has it."""
        return self.account.name if self.account else ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client hears, and why, which only the log is told."""

    reply: Reply
    why: str = ""


class Allowance(Protocol):
    """What an account may still send, as one transaction sees it."""

    def room_for(self, recipients: int) -> Refusal | None:
        """Why the message may not have so many recipients, or None."""
        ...

    async def take(self, recipients: int) -> Refusal | None:
        """Count the message for the account; or why there is no room for it any more."""
        ...

    async def give_back(self) -> None:
        """What was taken was not accepted after all."""
        ...


@dataclass(slots=True)
class OnTrust:
    """Recipients of a transaction who were taken before they were asked about."""

    waiting: list[Address] = field(default_factory=list)
    """Who are yet to be asked about."""
    asked: int = 0
    """About how many the others are."""
    questions: list[asyncio.Task[list[Reply]]] = field(default_factory=list)
    """What RCPT would have been answered to those."""

    @property
    def is_answered(self) -> bool:
        """Whether no question is under way."""
        return all(question.done() for question in self.questions)


@dataclass(slots=True)
class Transaction:
    """One mail transaction: from MAIL to the end of its content (RFC 5321 §3.3)."""

    queue_id: str
    client: Client
    reverse_path: ReversePath
    eight_bit: bool
    smtputf8: bool
    ret: Literal["", "FULL", "HDRS"] = ""
    """As in ``Envelope``."""
    envid: str = ""
    """As in ``Envelope``."""
    decided: dict[Address, Decision] = field(default_factory=dict)
    """Accepted recipients, in the order they came, and what routing said of each."""
    dsn: dict[Address, RecipientDsn] = field(default_factory=dict)
    """Of what the sender asks to be told, for each accepted recipient."""
    allowance: Allowance | None = None
    """None: nothing limits what this client sends."""
    on_trust: OnTrust | None = None
    """None: all have been asked about."""

    @property
    def reports_success(self) -> bool:
        """Whether the sender, if there is one, is to be told of a success."""
        for each in self.dsn.values():
            if each.notify is not None and each.wants(Notify.SUCCESS):
                return not isinstance(self.reverse_path, NullReversePath)
        return False
