"""Tries what waits in the queue: routes each recipient anew and delivers it, or says why not."""

from __future__ import annotations

from collections.abc import Sequence

from restante.address import Address, fold
from restante.directory import Directory
from restante.mda import Delivery, MailboxWriter
from restante.queue import Answer, Attempted, Expanded, QueuedMessage, Target
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    NoSuchUser,
    Remote,
    Unknown,
)
from restante.routing.expand import NotYet, children, settle
from restante.routing.instructions import instruction_line
from restante.routing.reply import CANNOT_KNOW, MISCONFIGURED, NO_SUCH_USER
from restante.routing.router import Router
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure

NO_RELAY = Reply(451, "4.0", "This host does not send mail to other hosts yet")
LOOPING = Reply(554, "4.6", "The message is looping: it came by this address before")
NOT_SUPPORTED = Reply(451, "3.5", "The mailbox is delivered in a way that is not available yet")


class LocalCourier:
    """A queue.Courier for addresses of this host; mail for elsewhere waits for a relay."""

    def __init__(self, router: Router, directory: Directory, writer: MailboxWriter) -> None:
        self._router = router
        self._directory = directory
        self._writer = writer

    async def attempt(self, message: QueuedMessage) -> Attempted:
        """One answer for each recipient, out of one look-up and one delivery for all of them."""
        targets = [recipient.target for recipient in message.recipients]
        addresses = [Address.from_stored(target.address) for target in targets]
        decisions = await self._router.route_many(addresses, self._directory)
        planned = [
            self._plan(message, target, decision)
            for target, decision in zip(targets, decisions, strict=True)
        ]
        return Attempted(await self._carry_out(message, planned))

    def _plan(
        self, message: QueuedMessage, target: Target, decision: Decision
    ) -> Answer | Delivery:
        """What is to be done for one recipient: a delivery, or an answer that needs none."""
        address = Address.from_stored(target.address)
        if isinstance(decision, Instructions) and not target.instruction:
            return self._expand(message, target, decision)
        final = settle(address, decision, target.instruction) if target.instruction else decision
        match final:
            case Mailbox():
                return copy_for(final, target.via)
            case Remote():
                return TemporaryFailure(NO_RELAY)
            case NoSuchUser(_, why):
                return PermanentFailure(NO_SUCH_USER, why)
            case Unknown(_, why):
                return TemporaryFailure(CANNOT_KNOW, why)
            case NotYet(_, _, action):
                return TemporaryFailure(NOT_SUPPORTED, instruction_line(action))
        return TemporaryFailure(MISCONFIGURED, getattr(final, "why", ""))

    def _expand(self, message: QueuedMessage, target: Target, decision: Instructions) -> Answer:
        """The alias's targets, unless the message came by it before, here or on another host."""
        here = decision.delivered_to
        come_by = {fold(each) for each in target.via} | message.content.facts.delivered_to
        if fold(here) in come_by or len(target.via) >= self._router.max_alias_depth:
            return PermanentFailure(LOOPING, f"came by {here} before")
        if not decision.actions:
            return Delivered(f"thrown away, as the instructions of {here} say")
        if len(decision.actions) > self._router.max_alias_targets:
            return TemporaryFailure(MISCONFIGURED, f"{here} has more targets than are allowed")
        below = children(Address.from_stored(target.address), decision, target.via)
        return Expanded(
            tuple(Target(str(each.address), each.instruction, each.via) for each in below)
        )

    async def _carry_out(
        self, message: QueuedMessage, planned: Sequence[Answer | Delivery]
    ) -> list[Answer]:
        deliveries = [each for each in planned if isinstance(each, Delivery)]
        outcomes = iter(
            await self._writer.deliver_each(
                message.envelope, message.content, deliveries, again=message.again
            )
            if deliveries
            else ()
        )
        return [next(outcomes) if isinstance(each, Delivery) else each for each in planned]


def copy_for(mailbox: Mailbox, via: tuple[str, ...]) -> Delivery:
    """The copy for a mailbox to which a message came by the aliases ``via``."""
    account = mailbox.account
    return Delivery(mailbox.maildir, account.uid, account.gid, (mailbox.delivered_to, *via))
