"""The front door: may this peer send this, to whom, and where does the message become durable.

Knows envelopes and decisions, not SMTP: the service that speaks a protocol asks
here and passes the replies on.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from restante import maillog
from restante.address import Address, ReversePath, fold
from restante.config import Settings
from restante.config.tree import Receiver as ReceiverSettings
from restante.courier import copy_for
from restante.directory import Directory, Lookups
from restante.envelope import Content, Envelope, Origin, received_field
from restante.errors import TemporaryError
from restante.mda import Delivery, MailboxWriter
from restante.queue import Target
from restante.routing.decision import Decision, Mailbox, NoSuchUser
from restante.routing.expand import Leaf, expand
from restante.routing.reply import CANNOT_KNOW, RECIPIENT_OK, RELAYING_DENIED, reply_to
from restante.routing.router import Router
from restante.spool import Spool, SpoolFailed
from restante.status import Delivered, PermanentFailure, Reply

SENDER_OK = Reply(250, "1.0", "sender ok")
SENDER_REFUSED = Reply(553, "1.8", "this sender is not welcome here")
LOOPING = Reply(554, "4.6", "too many Received fields: the message is looping")
HEADER_TOO_LARGE = Reply(552, "3.4", "the message header is too large")
NO_ROOM = Reply(452, "3.1", "no room to keep the message now, try again later")


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


class Receiver:
    """Decides on senders and recipients, and accepts messages durably."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        directory: Directory,
        writer: MailboxWriter,
        waiting: WaitingRoom,
        ids: Iterator[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._policy = Policy(settings.receiver)
        self._router = router
        self._directory = directory
        self._writer = writer
        self._waiting = waiting
        self._ids = ids
        self._clock = clock

    def client(self, session: str, address: str) -> Client:
        """The peer of a new session and what it may do."""
        return Client(session, address, self._policy.may_relay(address))

    def sender(
        self, client: Client, reverse_path: ReversePath, *, eight_bit: bool, smtputf8: bool
    ) -> tuple[Reply, Transaction | None]:
        """Answer MAIL; with a success comes the transaction that it begins."""
        if self._policy.is_bad_sender(reverse_path):
            maillog.sender_refused(client.session, str(reverse_path), SENDER_REFUSED)
            return SENDER_REFUSED, None
        queue_id = next(self._ids)
        return SENDER_OK, Transaction(queue_id, client, reverse_path, eight_bit, smtputf8)

    async def recipients(
        self, transaction: Transaction, addresses: Sequence[Address]
    ) -> list[Reply]:
        """Answer RCPT for addresses that came together, with one look-up for all of them."""
        pairs = dict.fromkeys(pair for each in addresses for pair in self._router.wanted(each))
        try:
            lookups = await self._directory.prefetch(tuple(pairs))
        except TemporaryError as error:
            return [
                self._answered(transaction, each, CANNOT_KNOW, str(error)) for each in addresses
            ]
        return [await self._recipient(transaction, each, lookups) for each in addresses]

    async def _recipient(
        self, transaction: Transaction, address: Address, lookups: Lookups
    ) -> Reply:
        try:
            accepted = await self._router.accepts(address.domain, lookups)
        except TemporaryError as error:
            return self._answered(transaction, address, CANNOT_KNOW, str(error))
        if not accepted and not transaction.client.may_relay:
            return self._answered(transaction, address, RELAYING_DENIED, "not in rcpthosts")
        decision = await self._router.route(address, lookups)
        reply = reply_to(decision)
        if isinstance(decision, NoSuchUser) and not self._settings.receiver.verify_recipients:
            reply = RECIPIENT_OK
        if reply.is_success:
            transaction.decided[address] = decision
            return reply
        return self._answered(transaction, address, reply, getattr(decision, "why", ""))

    def _answered(
        self, transaction: Transaction, address: Address, reply: Reply, why: str
    ) -> Reply:
        session = transaction.client.session
        maillog.recipient_refused(session, transaction.queue_id, str(address), reply, why)
        return reply

    async def accept(self, transaction: Transaction, origin: Origin, spool: Spool) -> Reply:
        """Answer the end of the content: on a 250 the message is durable, here or in the queue."""
        began = self._clock()
        recipients = tuple(transaction.decided)
        host = self._settings.hostname
        trace = received_field(origin, host, transaction.queue_id, recipients, began)
        envelope = Envelope(
            transaction.queue_id,
            transaction.reverse_path,
            recipients,
            began,
            transaction.eight_bit,
            transaction.smtputf8,
        )
        try:
            content = spool.finish(trace)
            refusal = self._refusal(content, spool)
            if refusal is not None:
                return self.refused(transaction, refusal, "")
            return await self._keep(transaction, envelope, content)
        except SpoolFailed as error:
            return self.refused(transaction, NO_ROOM, str(error))

    def _refusal(self, content: Content, spool: Spool) -> Reply | None:
        if spool.header_too_large:
            return HEADER_TOO_LARGE
        if content.facts.received > self._settings.smtp.max_received:
            return LOOPING
        return None

    async def _keep(self, transaction: Transaction, envelope: Envelope, content: Content) -> Reply:
        deliveries = await self._deliveries(transaction, content)
        if deliveries:
            outcome = await self._writer.deliver_all(envelope, content, deliveries)
            if isinstance(outcome, Delivered):
                self._delivered(transaction, envelope, content, deliveries)
                return _ok(envelope)
            if isinstance(outcome, PermanentFailure) and len(deliveries) == 1:
                return self.refused(transaction, outcome.reply, outcome.detail)
        return await self._enqueue(transaction, envelope, content)

    async def _deliveries(self, transaction: Transaction, content: Content) -> tuple[Delivery, ...]:
        """Where all copies go, if all of them go into Maildirs here; else nothing."""
        decided = transaction.decided
        mailboxes = [each for each in decided.values() if isinstance(each, Mailbox)]
        if len(mailboxes) == len(decided):
            return tuple(copy_for(mailbox, ()) for mailbox in mailboxes)
        leaves = await expand(self._router, self._directory, tuple(decided.items()))
        here = [
            copy_for(leaf.decision, leaf.via)
            for leaf in leaves
            if isinstance(leaf.decision, Mailbox) and not _came_by(leaf, content)
        ]
        return tuple(here) if len(here) == len(leaves) else ()

    def _delivered(
        self,
        transaction: Transaction,
        envelope: Envelope,
        content: Content,
        deliveries: Sequence[Delivery],
    ) -> None:
        self._accepted(transaction, envelope, content, "delivered")
        for delivery in deliveries:
            maillog.delivered(envelope.queue_id, delivery.delivered_to[0], delivery.maildir)

    async def _enqueue(
        self, transaction: Transaction, envelope: Envelope, content: Content
    ) -> Reply:
        targets = tuple(Target(str(address)) for address in envelope.recipients)
        try:
            await self._waiting.add(envelope, content, targets)
        except TemporaryError as error:
            return self.refused(transaction, NO_ROOM, str(error))
        self._accepted(transaction, envelope, content, "queued")
        return _ok(envelope)

    def _accepted(
        self, transaction: Transaction, envelope: Envelope, content: Content, how: str
    ) -> None:
        maillog.message_accepted(
            transaction.client.session,
            envelope.queue_id,
            str(envelope.reverse_path),
            len(envelope.recipients),
            content.size,
            how,
            self._clock() - envelope.received_at,
        )

    def refused(self, transaction: Transaction, reply: Reply, why: str) -> Reply:
        """Record that the content was not accepted; returns ``reply``."""
        session, sender = transaction.client.session, str(transaction.reverse_path)
        maillog.message_refused(session, transaction.queue_id, sender, reply, why)
        return reply


class Policy:
    """What the settings say about peers and senders."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self._networks = [
            ipaddress.ip_network(each, strict=False) for each in settings.relay_networks
        ]
        self._bad_senders = frozenset(map(fold, settings.badmailfrom))

    def may_relay(self, address: str) -> bool:
        """Whether a peer at this IP address may send anywhere."""
        if not self._networks or not address:  # empty: the peer was gone before it was asked for
            return False
        peer = ipaddress.ip_address(address)
        return any(peer in network for network in self._networks)

    def is_bad_sender(self, reverse_path: ReversePath) -> bool:
        """Whether the reverse-path or its domain is listed (qmail-control(5), badmailfrom)."""
        sender = fold(str(reverse_path))
        domain = sender.rpartition("@")[2]
        return bool(sender) and (sender in self._bad_senders or f"@{domain}" in self._bad_senders)


def _ok(envelope: Envelope) -> Reply:
    return Reply(250, "0.0", f"ok {envelope.queue_id}")


def _came_by(leaf: Leaf, content: Content) -> bool:
    """Whether the message bears the Delivered-To of an alias that it comes by now: a loop."""
    return any(fold(alias) in content.facts.delivered_to for alias in leaf.via)
