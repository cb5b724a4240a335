"""The front door: may this peer send this, to whom, and where does the message become durable.

Knows envelopes and decisions, not SMTP: the service that speaks a protocol asks
``door.Receiver`` and passes the replies on. This module is the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from restante.address import Address, ReversePath
from restante.directory import Account
from restante.envelope import Content, Envelope
from restante.queue import Target
from restante.routing.decision import Decision

ServiceName = Literal["smtp", "submission"]
"""The doors: where other hosts bring mail (RFC 5321), and where users do (RFC 6409)."""


class WaitingRoom(Protocol):
    """Where messages go that cannot be delivered now."""

    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        """Durable on return; raises TemporaryError."""
        ...


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the door."""

    session: str
    address: str
    """Its IP address."""
    may_relay: bool
    """Whether it may send to addresses that are not here."""
    service: ServiceName = "smtp"
    account: Account | None = None
    """Who it has proved to be (RFC 4954), or None."""


@dataclass(slots=True)
class Transaction:
    """One mail transaction: from MAIL to the end of its content (RFC 5321 §3.3)."""

    queue_id: str
    client: Client
    reverse_path: ReversePath
    eight_bit: bool
    smtputf8: bool
    decided: dict[Address, Decision] = field(default_factory=dict)
    """Accepted recipients, in the order they came, and what routing said of each."""
