"""Tries what waits in the queue: routes each recipient anew and delivers it, or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from restante.address import Address, fold
from restante.directory import Directory
from restante.envelope import Content, delivered_to_field
from restante.mda import Delivery, MailboxWriter
from restante.queue import (
    LOCAL_LANE,
    Answer,
    Attempted,
    BackOff,
    Expanded,
    Lanes,
    Moved,
    QueuedMessage,
    Target,
    Untried,
)
from restante.relay import Parcel, Recipient, Relay
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    NoSuchUser,
    Remote,
    Unknown,
)
from restante.routing.expand import Act, children, settle
from restante.routing.instructions import instruction_line
from restante.routing.reply import CANNOT_KNOW, MISCONFIGURED, NO_SUCH_USER
from restante.routing.router import Router
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure

LOOPING = Reply(554, "4.6", "The message is looping: it came by this address before")
NOT_SUPPORTED = Reply(451, "3.5", "The mailbox is delivered in a way that is not available yet")


_Planned = Answer | Delivery | Recipient
"""An answer, or what is to be done before there is one."""


@dataclass(frozen=True, slots=True)
class WaysOut:
    """Where mail for other hosts goes."""

    lanes: Lanes
    relay: Relay


class MailCourier:
    """The queue's Courier: by way of a mailbox writer here, by way of a relay elsewhere."""

    def __init__(
        self, router: Router, directory: Directory, writer: MailboxWriter, out: WaysOut
    ) -> None:
        self._router = router
        self._directory = directory
        self._writer = writer
        self._out = out

    async def attempt(self, message: QueuedMessage) -> Attempted:
        """One answer for each recipient, out of one look-up.

        There is one delivery for all that are here, or one transaction for those elsewhere that
        came by the same aliases: a message's recipients are of one lane, and whoever is not is
        told to move.
        """
        targets = [recipient.target for recipient in message.recipients]
        addresses = [Address.from_stored(target.address) for target in targets]
        decisions = await self._router.route_many(addresses, self._directory)
        planned = [
            self._plan(message, target, decision)
            for target, decision in zip(targets, decisions, strict=True)
        ]
        outcomes, back_off = await self._carry_out(message, planned)
        given = iter(outcomes)
        answers = [
            next(given) if isinstance(each, Delivery | Recipient) else each for each in planned
        ]
        return Attempted(answers, back_off)

    def _plan(self, message: QueuedMessage, target: Target, decision: Decision) -> _Planned:
        """What is to be done for one recipient, or an answer where nothing is."""
        if isinstance(decision, Remote) and not target.instruction:
            lane = self._out.lanes.of(decision.address.domain)
            return Recipient(decision.address, target.dsn) if lane == message.lane else Moved(lane)
        if message.lane != LOCAL_LANE:
            return Moved(LOCAL_LANE)
        return self._plan_here(message, target, decision)

    def _plan_here(
        self, message: QueuedMessage, target: Target, decision: Decision
    ) -> Answer | Delivery:
        address = Address.from_stored(target.address)
        if isinstance(decision, Instructions) and not target.instruction:
            return self._expand(message, target, decision)
        final = settle(address, decision, target.instruction) if target.instruction else decision
        match final:
            case Mailbox():
                return copy_for(final, target.via)
            case NoSuchUser(_, why):
                return PermanentFailure(NO_SUCH_USER, why)
            case Unknown(_, why):
                return TemporaryFailure(CANNOT_KNOW, why)
            case Act(_, _, action, _):
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
        self, message: QueuedMessage, planned: Sequence[_Planned]
    ) -> tuple[Sequence[Answer], BackOff | None]:
        """The outcomes of all that is not answered yet, in its order."""
        deliveries = [each for each in planned if isinstance(each, Delivery)]
        if deliveries:
            outcomes = await self._writer.deliver_each(
                message.envelope, message.content, deliveries, again=message.again
            )
            return outcomes, None
        leaving = [
            (each, recipient.target.via)
            for each, recipient in zip(planned, message.recipients, strict=True)
            if isinstance(each, Recipient)
        ]
        return await self._send(message, leaving) if leaving else ((), None)

    async def _send(
        self, message: QueuedMessage, leaving: Sequence[tuple[Recipient, tuple[str, ...]]]
    ) -> tuple[Sequence[Answer], BackOff | None]:
        """One transaction for those that came by the same aliases as the first; others wait.

        Their copy bears the aliases, so that one that comes back here is known to be looping.
        """
        came_by = leaving[0][1]
        together = tuple(recipient for recipient, via in leaving if via == came_by)
        parcel = Parcel(message.envelope, _bearing(came_by, message), together)
        attempted = await self._out.relay.send(message.lane, parcel)
        given = iter(attempted.answers)
        answers = [next(given) if via == came_by else Untried() for _, via in leaving]
        return answers, attempted.back_off


def _bearing(came_by: tuple[str, ...], message: QueuedMessage) -> Content:
    """The message with a Delivered-To field of each alias, where its header may hold the name."""
    content = message.content
    fields = [
        delivered_to_field(alias)
        for alias in came_by
        if alias.isascii() or message.envelope.smtputf8
    ]
    return replace(content, trace=b"".join((*fields, content.trace)))


def copy_for(mailbox: Mailbox, via: tuple[str, ...]) -> Delivery:
    """The copy for a mailbox to which a message came by the aliases ``via``."""
    return Delivery(mailbox.maildir, mailbox.account, (mailbox.delivered_to, *via))
