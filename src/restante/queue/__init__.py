"""The queue: messages that have to wait, durable from the moment they are accepted.

This page is the contract. ``QueueStore`` is durable state, the scheduler decides
when, a ``Courier`` tries, a ``Reporter`` writes the bounce. Legal states of a
recipient, and who may change them, are written in docs/internals.md;
``RecipientState`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from restante.envelope import NO_DSN, Content, Envelope, RecipientDsn
from restante.errors import OperatorError, TemporaryError
from restante.status import Outcome, Peer, Reply, TemporaryFailure


class QueueFailed(TemporaryError):
    """The queue's database or disk fails; nothing of the operation was done."""


class QueueFull(TemporaryError):
    """As many messages wait as ``queue.max_waiting`` allows (452 4.3.1)."""


class DuplicateMessage(TemporaryError):
    """The queue has a message with this id already."""


class QueueUnusable(OperatorError):
    """The queue cannot be opened; the text says which one and why."""


class RecipientState(StrEnum):
    """Where a recipient of a queued message stands; only WAITING ones are ever tried."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    EXPANDED = "expanded"
    """Replaced by the targets of its alias, which are recipients of their own."""
    FAILED = "failed"
    """Given up, and reported to the sender where a report is due."""


LOCAL_LANE = ""
"""The lane of whatever is delivered here, and of what nobody has routed yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a queued copy is for: an address to be routed, or one instruction of an address."""

    address: str
    """The address, as ``str(Address)``."""
    instruction: str = ""
    """One instruction line of the address (a path), when only that remains to be done.

    Such a target is never expanded.
    """
    via: tuple[str, ...] = ()
    """Delivered-To values of the aliases it came by, latest first."""
    lane: str = LOCAL_LANE
    """By which way it leaves: a next hop (see ``Lanes``), or LOCAL_LANE.

    A hint, by which recipients are grouped and destinations kept apart: where it turns out
    to be wrong, the courier answers ``Moved``.
    """
    dsn: RecipientDsn = NO_DSN


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """How the last attempt for a recipient ended, as reports and operators are told."""

    reply: Reply
    detail: str
    """What only operators are told."""
    peer: Peer | None
    """The host whose words ``reply`` has; None: this one's."""
    at: float
    """Seconds since the epoch."""


class Action(StrEnum):
    """What a report says of a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    """To a host that does not take part in RFC 3461."""
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """A target and how its attempts went."""

    id: int
    target: Target
    state: RecipientState
    attempts: int
    next_attempt: float
    """Seconds since the epoch."""
    last_reply: str
    """The last failure, with the detail that only operators see; empty before the first."""
    trail: tuple[str, ...] = ()
    """The aliases it was expanded from, the address as it was accepted first."""


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message in the queue with those of its recipients that an answer is about."""

    envelope: Envelope
    content: Content
    recipients: tuple[QueuedRecipient, ...]
    again: bool
    """An attempt may have been made whose outcome was never recorded."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """An attempt's answer for an alias: try these instead, from now on."""

    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class RemoteDeferral(TemporaryFailure):
    """A temporary failure of another host: it is tried again half as often as a mailbox here."""


Answer = Outcome | Expanded


class Courier(Protocol):
    """Tries to deliver; the scheduler's only way to the world."""

    async def attempt(self, message: QueuedMessage) -> Sequence[Answer]:
        """One answer for each of the message's recipients, in their order.

        Never raises what it foresees.
        """
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A message to be queued, for whom it is to be tried."""

    envelope: Envelope
    content: Content
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A recipient that is given up, and what its sender is told."""

    recipient: QueuedRecipient
    reply: Reply


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Nobody can be told of a failure."""

    why: str


class Reporter(Protocol):
    """Writes the report about recipients that failed together."""

    def report(
        self, message: QueuedMessage, failures: Sequence[Failure], now: float, queue_id: str
    ) -> Submission | Undeliverable:
        """The bounce, under the id ``queue_id``; blocks, for it may read the message's file."""
        ...
