"""The end of a message's content: it becomes durable, in mailboxes here or in the queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from restante import maillog
from restante.address import Address, fold
from restante.completion import Author, missing_fields, split_header
from restante.config import Settings
from restante.courier import copy_for, lane_here, looping
from restante.directory import Directory
from restante.envelope import Content, Envelope, Origin, received_field
from restante.errors import TemporaryError
from restante.labels import name_forms, name_in_a_labels
from restante.mda import Delivery, MailboxWriter, most_copies
from restante.queue import Lanes, Target
from restante.receiver import Allowance, Transaction, WaitingRoom
from restante.receiver.trust import Trust
from restante.routing.decision import Decision, Instructions, Mailbox, Remote
from restante.routing.expand import Leaf, TooManyTargets, expand
from restante.routing.router import Router
from restante.spool import Spool, SpoolFailed
from restante.status import Delivered, PermanentFailure, Reply

LOOPING = Reply(554, "4.6", "too many Received fields: the message is looping")
HEADER_TOO_LARGE = Reply(552, "3.4", "the message header is too large")
NO_ROOM = Reply(452, "3.1", "no room to keep the message now, try again later")

HIDDEN_CLIENT = "client.invalid"
"""Stands for a user's machine in Received fields, which must name one (RFC 5321 §4.4; RFC 2606)."""


_Copy = tuple[Address, Delivery]
"""One that is delivered before the message is acknowledged, and its recipient as the sender named
it: what people ask the log for."""


class Acceptance:
    """Takes whole messages; what it answers with 250 is durable."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        directory: Directory,
        writer: MailboxWriter,
        waiting: WaitingRoom,
        lanes: Lanes,
        trust: Trust,
    ) -> None:
        self._settings = settings
        self._hostname = settings.hostname
        self._router = router
        self._directory = directory
        self._writer = writer
        self._waiting = waiting
        self._lanes = lanes
        self._trust = trust

    async def accept(self, transaction: Transaction, origin: Origin, spool: Spool) -> Reply:
        """Answer the end of the content: on a 250 the message is durable, here or in the queue."""
        began = time.time()
        recipients = tuple(transaction.decided)
        is_users = transaction.client.account is not None
        shown = self._shown(origin) if is_users else origin
        trace = received_field(shown, self._hostname, transaction.queue_id, recipients, began)
        envelope = Envelope(
            transaction.queue_id,
            transaction.reverse_path,
            recipients,
            began,
            transaction.eight_bit,
            transaction.smtputf8,
            transaction.ret,
            transaction.envid,
        )
        try:
            if spool.is_large:
                await spool.spill()
            if is_users:
                trace += self._completion(transaction, spool.header, began)
            content = spool.finish(trace)
            refusal = self._refusal(content, spool) or await self._trust.settle(transaction)
            if refusal is not None:
                return self.refused(transaction, refusal, "")
            if transaction.allowance is None:
                return await self._keep(transaction, envelope, content)
            return await self._count_and_keep(transaction.allowance, transaction, envelope, content)
        except SpoolFailed as error:
            return self.unkept(transaction, error)

    def unkept(self, transaction: Transaction, failure: TemporaryError) -> Reply:
        """Record that there is no place for the content; the reply."""
        maillog.message_not_kept(transaction.queue_id, str(failure))
        return self.refused(transaction, NO_ROOM, str(failure))

    def refused(self, transaction: Transaction, reply: Reply, why: str) -> Reply:
        """Record that the content was not accepted; returns ``reply`` as the client can read it."""
        if not transaction.smtputf8:
            reply = _in_ascii(reply)
        maillog.message_refused(
            transaction.client.session,
            transaction.queue_id,
            str(transaction.reverse_path),
            map(str, transaction.decided),
            reply,
            why,
        )
        return reply

    def _completion(self, transaction: Transaction, header: bytes, began: float) -> bytes:
        """What a user's message lacks of a header (RFC 6409 §§ 8.2, 8.3; RFC 5322 §3.6).

        It stands in front of the message. One that has no header at all gets the empty line too.
        """
        fields, _ = split_header(header)
        sender = transaction.reverse_path
        if not isinstance(sender, Address):
            sender = self._router.qualified(Address.from_stored(transaction.client.account_name))
        author = Author(sender.local, sender.domain)
        message_id = f"{transaction.queue_id}@{self._hostname}"
        missing = missing_fields(fields, author, began, message_id)
        return missing + b"\n" if header and not fields else missing

    def _shown(self, origin: Origin) -> Origin:
        """What everybody may read of where a user's message came from (RFC 5321 §7.6)."""
        if self._settings.submission.received_client:
            return origin
        return replace(origin, helo=HIDDEN_CLIENT, address="")

    def _refusal(self, content: Content, spool: Spool) -> Reply | None:
        if spool.header_too_large:
            return HEADER_TOO_LARGE
        if content.facts.received > self._settings.smtp.max_received:
            return LOOPING
        return None

    async def _count_and_keep(
        self,
        allowance: Allowance,
        transaction: Transaction,
        envelope: Envelope,
        content: Content,
    ) -> Reply:
        """A message counts for its account before it is kept, and no longer if it is not kept.

        So sessions that end their messages at the same moment do not exceed a limit together.
        """
        refusal = await allowance.take(len(envelope.recipients))
        if refusal is not None:
            return self.refused(transaction, refusal.reply, refusal.why)
        kept = False
        try:
            reply = await self._keep(transaction, envelope, content)
            kept = reply.is_success
        finally:
            if not kept:
                await allowance.give_back()
        return reply

    async def _keep(self, transaction: Transaction, envelope: Envelope, content: Content) -> Reply:
        if content.facts.delivered_to and (here := _looping_as_a_whole(transaction, content)):
            return self.refused(transaction, looping(here, ()), f"came by {here} before")
        if transaction.reports_success:
            # What was delivered and what has to be reported are durable together in the queue.
            return await self._enqueue(transaction, envelope, content)
        copies = [
            (recipient, copy_for(decision, ()))
            for recipient, decision in transaction.decided.items()
            if isinstance(decision, Mailbox)
        ]
        if len(copies) != len(transaction.decided):
            copies = await self._expanded(transaction, content)
        deliveries = [delivery for _, delivery in copies]
        if deliveries and _go_together(deliveries, content):
            outcome = await self._writer.deliver_all(envelope, content, deliveries)
            if isinstance(outcome, Delivered):
                self._delivered(transaction, envelope, content, copies)
                return _ok(envelope)
            if isinstance(outcome, PermanentFailure) and len(deliveries) == 1:
                return self.refused(transaction, outcome.reply, outcome.detail)
        return await self._enqueue(transaction, envelope, content)

    async def _expanded(self, transaction: Transaction, content: Content) -> list[_Copy]:
        """Where all copies go, by way of aliases, if all go into Maildirs here; else nothing.

        What has another sender on its way, because a list has an owner, is made in the queue, and
        so is what would keep everybody else waiting.
        """
        decided = transaction.decided
        if any(isinstance(each, Remote) for each in decided.values()):
            return []
        most = self._router.max_alias_targets
        try:
            leaves = await expand(self._router, self._directory, tuple(decided.items()), most)
        except TooManyTargets:
            return []
        here = [
            (leaf.original, copy_for(leaf.decision, leaf.via))
            for leaf in leaves
            if isinstance(leaf.decision, Mailbox)
            and not leaf.new_sender
            and not _came_by(leaf, content)
        ]
        return here if len(here) == len(leaves) else []

    def _delivered(
        self,
        transaction: Transaction,
        envelope: Envelope,
        content: Content,
        copies: Sequence[_Copy],
    ) -> None:
        self._accepted(transaction, envelope, content, "delivered")
        for recipient, delivery in copies:
            maillog.delivered(envelope.queue_id, str(recipient), delivery.maildir)

    async def _enqueue(
        self, transaction: Transaction, envelope: Envelope, content: Content
    ) -> Reply:
        qualified = self._router.qualified  # reports name addresses, and those have a domain
        targets = tuple(
            Target(str(qualified(address)), lane=self._lane(decision), dsn=transaction.dsn[address])
            for address, decision in transaction.decided.items()
        )
        try:
            await self._waiting.add(envelope, content, targets)
        except TemporaryError as error:
            return self.unkept(transaction, error)
        self._accepted(transaction, envelope, content, "queued")
        return _ok(envelope)

    def _lane(self, decision: Decision) -> str:
        """So that what is for elsewhere waits for its own way out, and for no other."""
        if isinstance(decision, Remote):
            return self._lanes.of(decision.address.domain)
        return lane_here(decision)

    def _accepted(
        self, transaction: Transaction, envelope: Envelope, content: Content, how: str
    ) -> None:
        maillog.message_accepted(
            transaction.client.session,
            envelope.queue_id,
            str(envelope.reverse_path),
            transaction.client.account_name,
            len(envelope.recipients),
            content.size,
            how,
            time.time() - envelope.received_at,
        )


def _ok(envelope: Envelope) -> Reply:
    return Reply(250, "0.0", f"ok {envelope.queue_id}")


def _in_ascii(reply: Reply) -> Reply:
    """As a client has it that did not say SMTPUTF8 (RFC 5321 §4.2, RFC 6531 §3.7.4.2)."""
    if reply.text.isascii():
        return reply
    words = map(name_in_a_labels, reply.text.split(" "))
    return Reply(reply.code, reply.topic, " ".join(words).encode("ascii", "replace").decode())


def _go_together(deliveries: Sequence[Delivery], content: Content) -> bool:
    """Whether all can be written in one go, and with the same rights: all of them or none."""
    if len(deliveries) == 1:
        return True
    if len(deliveries) > most_copies(content):
        return False
    first = deliveries[0].account
    for delivery in deliveries:
        account = delivery.account
        if account.uid != first.uid or account.gid != first.gid:
            return False
    return True


def _looping_as_a_whole(transaction: Transaction, content: Content) -> str:
    """A recipient's Delivered-To, if the message bears that of each of them; else nothing.

    It would come back from all of them, to a sender who may be forged, and the field too: so the
    host that has it is told. Where anybody is to have it, it is taken, as that host would ask for
    nobody a second time.
    """
    decided = transaction.decided.values()
    looping = [
        each
        for each in decided
        if isinstance(each, Mailbox | Instructions) and _was_at(each, content)
    ]
    return looping[0].delivered_to if len(looping) == len(decided) else ""


def _was_at(decision: Mailbox | Instructions, content: Content) -> bool:
    """Whether it is looping there, as whoever would deliver it will say."""
    here = fold(decision.delivered_to)
    names = (here,) if isinstance(decision, Mailbox) else name_forms(here)
    return not content.facts.delivered_to.isdisjoint(names)


def _came_by(leaf: Leaf, content: Content) -> bool:
    """Whether the message bears the Delivered-To of an alias that it comes by now: a loop."""
    seen = content.facts.delivered_to
    return any(not seen.isdisjoint(name_forms(fold(alias))) for alias in leaf.via)
