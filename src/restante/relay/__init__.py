"""Mail to other hosts: where to, over which connection, and what they said.

This page is the contract. A ``Relay`` takes what leaves by one lane in one transaction;
lanes are named by ``routes.Routes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from restante.address import Address
from restante.envelope import NO_DSN, Content, Envelope, RecipientDsn
from restante.queue import Attempted


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient at another host."""

    address: Address
    dsn: RecipientDsn = NO_DSN


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, and those of its recipients that are told to the next hop together."""

    envelope: Envelope
    content: Content
    recipients: tuple[Recipient, ...]
    came_by: tuple[str, ...] = ()
    """The aliases here that led to these recipients, latest first."""


class Relay(Protocol):
    """Hands mail to other hosts."""

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        """Try once, at as many hosts of the lane as it takes; never raises what it foresees.

        One outcome for each recipient, in their order.
        """
        ...
