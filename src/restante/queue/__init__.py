"""The queue: messages that have to wait, durable from the moment they are accepted.

This page is the contract. ``QueueStore`` is durable state, the scheduler decides
when, a ``Courier`` tries, a ``Reporter`` writes what senders are told. Legal states
of a recipient, and who may change them, are written in docs/internals.md;
``RecipientState`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from restante.address import NULL_REVERSE_PATH, Address, ReversePath, fold
from restante.envelope import NO_DSN, Content, Envelope, RecipientDsn
from restante.errors import OperatorError, TemporaryError
from restante.status import Outcome, Peer, Reply


class QueueFailed(TemporaryError):
    """The queue's database or disk fails; nothing of the operation was done."""


class QueueFull(TemporaryError):
    """As many messages wait as ``queue.max_waiting`` allows (452 4.3.1)."""


class DuplicateMessage(TemporaryError):
    """The queue has a message with this id already."""


class QueueUnusable(OperatorError):
    """The queue cannot be opened; the text says which one and why."""


class QueueTaken(QueueUnusable):
    """Another process has the queue."""


class QueueWithoutRoom(QueueUnusable):
    """The disk is full: the queue can be opened when there is room again."""


class RecipientState(StrEnum):
    """Where a recipient of a queued message stands; only WAITING ones are ever tried."""

    WAITING = "waiting"
    HELD = "held"
    """Not tried until an operator releases it."""
    DELIVERED = "delivered"
    """In its mailbox here, or accepted by another host."""
    EXPANDED = "expanded"
    """Replaced by the targets of its alias, which are recipients of their own."""
    FAILED = "failed"
    """Given up, and reported to the sender where a report is due."""
    REMOVED = "removed"
    """Taken out by an operator, without a word to the sender."""


LOCAL_LANE = ""
"""The lane of whatever is put into Maildirs here, and of what nobody has routed yet."""

OF_ACCOUNT = "|"
"""How the names of lanes begin that are accounts; no domain does."""


def account_lane(account: str) -> str:
    """The lane of programs and mboxes of an account here: they may take minutes, each time.

    So they wait for one another, account by account, and nobody else for them. In such a lane
    one recipient is tried at a time: what was done is recorded before more is done.
    """
    return OF_ACCOUNT + fold(account)


def is_account_lane(lane: str) -> bool:
    """Whether ``account_lane`` has named it."""
    return lane.startswith(OF_ACCOUNT)


def is_here(lane: str) -> bool:
    """Whether what leaves by the lane stays on this host."""
    return lane == LOCAL_LANE or is_account_lane(lane)


class Lanes(Protocol):
    """By which way mail leaves: a lane is a next hop, with a fate of its own."""

    def of(self, domain: str) -> str:
        """The lane of mail for ``domain``, a domain of another host; never one of those here."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a queued copy is for: an address to be routed, or instructions of an address."""

    address: str
    """The address, as ``str(Address)``."""
    instruction: str = ""
    """Instruction lines of the address, when only these remain to be done.

    One line, or several that are obeyed in their order. Such a target is never routed to
    anything but these lines, obeyed with the rights that ``account`` has then; where the address
    is another account's by then, they count no more, and what that one's say does.
    """
    via: tuple[str, ...] = ()
    """Delivered-To values of the aliases it came by, latest first."""
    lane: str = LOCAL_LANE
    """By which way it leaves: a next hop (see ``Lanes``), LOCAL_LANE, or an ``account_lane``.

    A hint, by which recipients are grouped and destinations kept apart: where it turns out
    to be wrong, the courier answers ``Moved``.
    """
    dsn: RecipientDsn = NO_DSN
    reverse_path: str | None = None
    """Whom this copy is from, and who is told of its fate: the owner of the list by which it
    came, as ``str(ReversePath)``. None: the envelope's."""
    account: str = ""
    """Whose instructions they are, as in ``Account.name``; empty: there are none, or they are the
    alias user's, who had no account."""

    def envelope(self, accepted: Envelope) -> Envelope:
        """The envelope of this copy of a message that was accepted with ``accepted``.

        Where a list has put its owner in the sender's place, what the sender asked of reports
        has come to its end (RFC 3461 §5.2.7.1).
        """
        if self.reverse_path is None:
            return accepted
        sender = reverse_path_of(self.reverse_path)
        return replace(accepted, reverse_path=sender, ret="", envid="", by_list=True)


def reverse_path_of(text: str) -> ReversePath:
    """The reverse-path that ``str`` wrote."""
    return Address.from_stored(text) if text else NULL_REVERSE_PATH


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
    put_off: bool = False
    """The attempt was a temporary failure, whatever the code: 554 as a greeting, for example."""

    @property
    def is_temporary(self) -> bool:
        """Whether the recipient is tried again after it, or was until its time was up."""
        return self.put_off or self.reply.is_temporary

    def __str__(self) -> str:
        """One line for operators."""
        return f"{self.reply} ({self.detail})" if self.detail else str(self.reply)


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
    born: float
    """From when its time counts: when its message came, in seconds since the epoch."""
    next_attempt: float
    """Seconds since the epoch."""
    last: LastAnswer | None
    """How its last attempt ended; None before the first."""
    trail: tuple[str, ...] = ()
    """The aliases it was expanded from, the address as it was accepted first."""
    delay_told: bool = False
    """The moment for a notice of delay has come; there is one at most."""


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message in the queue with those of its recipients that are tried together.

    They are due, and leave by the same lane; others of the message may be in motion
    at the same time.
    """

    envelope: Envelope
    content: Content
    recipients: tuple[QueuedRecipient, ...]
    again: bool
    """An attempt may have been made whose outcome was never recorded."""
    lane: str = LOCAL_LANE
    has_copies: bool = False
    """There are some in mailboxes here, from the message's own sender, which may be those of these
    recipients: one mailbox may have several addresses."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """An attempt's answer for an alias: try these instead, from now on.

    What the sender asked to be told of the alias is handed on by the queue, not by the courier.
    """

    targets: tuple[Target, ...]
    here: str = ""
    """What was also delivered here, for operators; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An attempt's answer for a recipient of another lane: try it there; this was no attempt."""

    lane: str


@dataclass(frozen=True, slots=True)
class Untried:
    """An attempt's answer for a recipient that it had no place for: it is due as before.

    Only beside recipients that were tried, or the message would be handed out without end.
    """


@dataclass(frozen=True, slots=True)
class Partly:
    """An attempt's answer for a target whose first instruction was done, and others are left.

    What was done is not done again: from now on the target is ``instruction`` alone, which is
    tried at once.
    """

    instruction: str
    """As in ``Target``; fewer lines than before, or the first ones that are kept."""
    account: str
    """As in ``Target``."""
    detail: str
    """What was done, for operators."""


Answer = Outcome | Expanded | Moved | Untried | Partly


@dataclass(frozen=True, slots=True)
class BackOff:
    """The next hop as a whole is to be left alone for a while: it is down, or says so (421, 450).

    The scheduler decides for how long; each further failure doubles it, a success ends it.
    """

    why: str
    """For operators, and for senders whose mail is given up while the lane is left alone.

    It names no recipient: it is told about all that wait in the lane.
    """
    minimum: float = 0.0
    """Seconds that it lasts at least."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt."""

    answers: Sequence[Answer]
    """One for each of the message's recipients, in their order."""
    back_off: BackOff | None = None
    """None: the lane works, whatever became of these recipients."""


class Courier(Protocol):
    """Tries to deliver; the scheduler's only way to the world."""

    async def attempt(self, message: QueuedMessage) -> Attempted:
        """Try each of the message's recipients once; never raises what it foresees."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A message to be queued, for whom it is to be tried."""

    envelope: Envelope
    content: Content
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a sender is to be told of a recipient."""

    recipient: QueuedRecipient
    """Its ``last`` has the words, its ``target.dsn`` what was asked for.

    FAILED with a temporary answer: it was given up, the lifetime being over (RFC 3463,
    X.4.7: the code of the actual problem is to be told rather than that time is over).
    """
    action: Action


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Nobody can be told."""

    why: str


class Reporter(Protocol):
    """Writes the report about recipients whose fates became known together."""

    def report(
        self, message: QueuedMessage, notices: Sequence[Notice], now: float, queue_id: str
    ) -> Submission | Undeliverable:
        """One report of all ``notices``, under the id ``queue_id``.

        ``message.recipients`` is empty, and its envelope has whom it is for as the reverse-path.
        Blocks, for it may read the message's file. A message from the null reverse-path has
        FAILED notices only.
        """
        ...
