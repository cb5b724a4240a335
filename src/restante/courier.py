"""Tries what waits in the queue: routes each recipient anew and delivers it, or says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from restante.address import Address, ReversePath, fold, sender_for
from restante.directory import Directory
from restante.labels import name_forms
from restante.mda import (
    Delivery,
    MailboxWriter,
    MboxDelivery,
    ProgramDelivery,
    Ran,
    most_copies,
)
from restante.queue import (
    LOCAL_LANE,
    Answer,
    Attempted,
    BackOff,
    Expanded,
    Lanes,
    Moved,
    Partly,
    QueuedMessage,
    Target,
    Untried,
    account_lane,
    is_here,
)
from restante.relay import Parcel, Recipient, Relay
from restante.routing.decision import (
    Decision,
    Destination,
    Instructions,
    Mailbox,
    Misconfigured,
    NoSuchUser,
    Remote,
    ToMbox,
    ToProgram,
    Unknown,
)
from restante.routing.expand import Act, children, settle
from restante.routing.instructions import BadInstruction, resolve_path
from restante.routing.owner import sender_of_list
from restante.routing.reply import CANNOT_KNOW, MISCONFIGURED, NO_SUCH_USER
from restante.routing.router import Router
from restante.routing.sequence import Step, from_text, is_sequence, next_step, to_text
from restante.routing.strangers import Strangers
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure


@dataclass(frozen=True, slots=True)
class WaysOut:
    """Where mail for other hosts goes."""

    lanes: Lanes
    relay: Relay


@dataclass(frozen=True, slots=True)
class _Obey:
    """The instruction of a list whose turn it is."""

    target: Target
    list: Instructions
    step: Step
    work: Delivery | MboxDelivery | ProgramDelivery

    @property
    def lane(self) -> str:
        """Where it is done."""
        return account_lane(self.work.account.name)


FIRST_PORTION = 16
"""Recipients here that are looked up together at first: more than nearly all messages have."""

_T = TypeVar("_T")
_Planned = Answer | Delivery | Recipient | _Obey
"""An answer, or what is to be done before there is one."""


class MailCourier:
    """The queue's Courier: by way of a mailbox writer here, by way of a relay elsewhere."""

    def __init__(
        self,
        router: Router,
        directory: Directory,
        writer: MailboxWriter,
        out: WaysOut,
        strangers: Strangers,
    ) -> None:
        """``strangers``: what whoever accepts messages for this courier has seen."""
        self._router = router
        self._strangers = strangers
        self._directory = directory
        self._writer = writer
        self._out = out

    async def attempt(self, message: QueuedMessage) -> Attempted:
        """One answer for each recipient.

        There is one delivery for all Maildirs here, one instruction for each list that is obeyed
        in its order, or one transaction for those elsewhere that came by the same aliases: a
        message's recipients are of one lane, and whoever is not is told to move.
        """
        if is_here(message.lane):
            return await self._attempt(message)
        numbers = _of_one_transaction(message)
        if len(numbers) == len(message.recipients):
            return await self._attempt(message)
        together = tuple(message.recipients[number] for number in numbers)
        attempted = await self._attempt(replace(message, recipients=together))
        answers: list[Answer] = [Untried()] * len(message.recipients)
        for number, answer in zip(numbers, attempted.answers, strict=True):
            answers[number] = answer
        return Attempted(answers, attempted.back_off)

    async def _attempt(self, message: QueuedMessage) -> Attempted:
        planned = await self._plan_all(message)
        given: dict[int, Answer] = {}
        given |= await self._deliver(message, _only(Delivery, planned))
        given |= await self._obey(message, _only(_Obey, planned))
        sent, back_off = await self._send(message, _only(Recipient, planned))
        given |= sent
        answers = [
            given[number] if isinstance(each, Delivery | _Obey | Recipient) else each
            for number, each in enumerate(planned)
        ]
        return Attempted(answers, back_off)

    # What is to be done

    async def _plan_all(self, message: QueuedMessage) -> list[_Planned]:
        """What is to be done for each recipient.

        Aliases are expanded as far as one attempt has room for what they lead to: whoever names a
        large one a thousand times holds up nobody else for longer than one. So it is with copies
        here of a large message, which the writer is to make in one go. The others are next,
        and those behind their portion are not looked up before their turn. As no portion but the
        first is larger than all before it, hardly more is looked up in vain than is of use.
        """
        targets = [recipient.target for recipient in message.recipients]
        first = FIRST_PORTION if is_here(message.lane) else len(targets)
        most, taken = self._router.max_alias_targets, 0
        copies = most_copies(message.content)
        planned: list[_Planned] = []
        while len(planned) < len(targets) and Untried() not in planned:
            portion = targets[len(planned) :][: max(first, len(planned))]
            for target, decision in zip(portion, await self._route(portion), strict=True):
                size = len(decision.actions) if isinstance(decision, Instructions) else 0
                if taken and taken + size > most:
                    planned.append(Untried())
                    continue
                each = self._plan(message, target, decision)
                taken += len(each.targets) if isinstance(each, Expanded) else 0
                copies -= isinstance(each, Delivery)
                planned.append(each if copies >= 0 else Untried())
        return planned + [Untried()] * (len(targets) - len(planned))

    async def _route(self, targets: Sequence[Target]) -> Sequence[Decision]:
        addresses = [Address.from_stored(target.address) for target in targets]
        return await self._strangers.route_many(self._router, addresses, self._directory)

    def _plan(self, message: QueuedMessage, target: Target, decision: Decision) -> _Planned:
        """What is to be done for one recipient, or an answer where nothing is."""
        if isinstance(decision, Remote) and not target.instruction:
            lane = self._out.lanes.of(decision.address.domain)
            return Recipient(decision.address, target.dsn) if lane == message.lane else Moved(lane)
        if not is_here(message.lane):
            return Moved(LOCAL_LANE)
        planned = self._plan_here(message, _as_of_now(target, decision), decision)
        if isinstance(planned, _Obey) and planned.lane != message.lane:
            return Moved(planned.lane)
        return planned

    def _plan_here(self, message: QueuedMessage, target: Target, decision: Decision) -> _Planned:
        match decision:
            case Mailbox() if not target.instruction:
                return copy_for(decision, target.via)
            case Mailbox() | Instructions() if target.instruction:
                return self._plan_rest(message, target, decision)
            case Instructions():
                return self._plan_list(message, target, decision)
            case NoSuchUser(_, why):
                return PermanentFailure(NO_SUCH_USER, why)
            case Unknown(_, why):
                return TemporaryFailure(CANNOT_KNOW, why)
        return TemporaryFailure(MISCONFIGURED, getattr(decision, "why", ""))

    def _plan_rest(
        self, message: QueuedMessage, target: Target, decision: Mailbox | Instructions
    ) -> _Planned:
        """What is left of an address's instructions, with the rights that its account has now."""
        try:
            actions = from_text(target.instruction)
        except BadInstruction as error:
            return TemporaryFailure(MISCONFIGURED, str(error))
        if isinstance(decision, Mailbox):  # they have gone from where they were written
            account, delivered_to = decision.account, decision.delivered_to
            left = Instructions(account, delivered_to, actions, Destination(account.name))
        else:
            left = replace(decision, actions=actions)
        return self._plan_step(message, target, left)

    def _plan_list(
        self, message: QueuedMessage, target: Target, decision: Instructions
    ) -> _Planned:
        """The alias's targets or its first instruction, unless the message came by it before.

        Here, or on another host, whose Delivered-To says so.
        """
        here = decision.delivered_to
        came_by = message.content.facts.delivered_to | {fold(each) for each in target.via}
        if not came_by.isdisjoint(name_forms(fold(here))):
            return PermanentFailure(looping(here, target.via), f"came by {here} before")
        if len(target.via) >= self._router.max_alias_depth:
            return PermanentFailure(too_deep(here, target.via), "see routing.max_alias_depth")
        if not decision.actions:
            return Delivered(f"thrown away, as the instructions of {here} say")
        if is_sequence(decision.actions):
            return self._plan_step(message, target, decision)
        return Expanded(self._children(message, target, decision))

    def _plan_step(self, message: QueuedMessage, target: Target, left: Instructions) -> _Planned:
        """The next instruction of a list that is obeyed in its order."""
        step = next_step(left.actions)
        if step is None:
            return Expanded(self._children(message, target, left))
        final = settle(Address.from_stored(target.address), left, step.action)
        match final:
            case Mailbox() if not step.rest:
                return copy_for(final, target.via)
            case Mailbox():
                return _Obey(target, left, step, copy_for(final, target.via))
            case Act():
                sender = target.envelope(message.envelope).reverse_path
                return _Obey(target, left, step, _work_of(final, target.via, sender))
            case Misconfigured(_, why):
                return TemporaryFailure(MISCONFIGURED, why)

    def _children(
        self, message: QueuedMessage, target: Target, alias: Instructions
    ) -> tuple[Target, ...]:
        """The alias's targets, each with the sender that it has from now on."""
        address = Address.from_stored(target.address)
        sender = target.envelope(message.envelope).reverse_path
        return tuple(
            Target(
                str(whole),
                child.instruction,
                child.via,
                reverse_path=sender_for(child.new_sender, whole) or target.reverse_path,
                account=_name(alias) if child.instruction else "",
            )
            for child in children(address, alias, target.via, sender)
            for whole in [self._router.qualified(child.address)]
        )

    # Here

    async def _deliver(
        self, message: QueuedMessage, deliveries: Mapping[int, Delivery]
    ) -> dict[int, Answer]:
        """All Maildirs: together, as far as they have the sender in common.

        Who was delivered to by another address, before an alias led here or while this one was put
        off, has the message under the name that this copy would have, and gets no other. A copy
        from a list's owner is another one.
        """
        if not deliveries:
            return {}
        by_sender: dict[str | None, list[int]] = {}
        for number in deliveries:
            sender = message.recipients[number].target.reverse_path
            by_sender.setdefault(sender, []).append(number)
        outcomes = await asyncio.gather(
            *(
                self._writer.deliver_each(
                    message.recipients[numbers[0]].target.envelope(message.envelope),
                    message.content,
                    [deliveries[number] for number in numbers],
                    again=message.again or (message.has_copies and sender is None),
                )
                for sender, numbers in by_sender.items()
            )
        )
        answers: dict[int, Answer] = {}
        for numbers, each in zip(by_sender.values(), outcomes, strict=True):
            answers.update(zip(numbers, each, strict=True))
        return answers

    async def _obey(self, message: QueuedMessage, lists: Mapping[int, _Obey]) -> dict[int, Answer]:
        """One instruction of each list; in practice there is one list in an attempt."""
        if not lists:
            return {}
        answers = await asyncio.gather(*(self._take_step(message, each) for each in lists.values()))
        return dict(zip(lists, answers, strict=True))

    async def _take_step(self, message: QueuedMessage, obey: _Obey) -> Answer:
        ran = await self._work(message, obey)
        if not isinstance(ran.outcome, Delivered):
            return ran.outcome
        rest = obey.step.rest_of_last if ran.is_last else obey.step.rest
        if not rest:
            return ran.outcome
        if next_step(rest) is not None:
            return Partly(to_text(rest), obey.work.account.name, ran.outcome.detail)
        targets = self._children(message, obey.target, replace(obey.list, actions=rest))
        return Expanded(targets, here=ran.outcome.detail or obey.list.delivered_to)

    async def _work(self, message: QueuedMessage, obey: _Obey) -> Ran:
        envelope, content = obey.target.envelope(message.envelope), message.content
        again = message.again
        match obey.work:
            case ProgramDelivery() as program:
                return await self._writer.run(envelope, content, program)
            case MboxDelivery() as mbox:
                return Ran(await self._writer.append(envelope, content, mbox, again=again))
            case Delivery() as copy:
                (outcome,) = await self._writer.deliver_each(envelope, content, [copy], again=again)
                return Ran(outcome)

    # Elsewhere

    async def _send(
        self, message: QueuedMessage, leaving: Mapping[int, Recipient]
    ) -> tuple[dict[int, Answer], BackOff | None]:
        """One transaction for all."""
        if not leaving:
            return {}, None
        first = message.recipients[0].target
        envelope = first.envelope(message.envelope)
        parcel = Parcel(envelope, message.content, tuple(leaving.values()), first.via)
        attempted = await self._out.relay.send(message.lane, parcel)
        return dict(zip(leaving, attempted.answers, strict=True)), attempted.back_off


def looping(here: str, via: Sequence[str]) -> Reply:
    """What the sender is told of a message that came by the alias ``here`` before.

    ``via``: the aliases it came by on this host, latest first.
    """
    came_by = [fold(alias) for alias in via]
    circle = via[: came_by.index(fold(here)) + 1] if fold(here) in came_by else ()
    text = f"The message is looping: it came by {here} before"
    return Reply(554, "4.6", f"{text}, and then by {_way(here, circle)}" if circle else text)


def too_deep(here: str, via: Sequence[str]) -> Reply:
    """What the sender is told of aliases that lead from one to the next without end."""
    return Reply(554, "4.6", f"The message went by too many aliases: {_way(here, via)}")


def copy_for(mailbox: Mailbox, via: tuple[str, ...]) -> Delivery:
    """The copy for a mailbox to which a message came by the aliases ``via``."""
    return Delivery(mailbox.maildir, mailbox.account, (mailbox.delivered_to, *via))


def lane_here(decision: Decision) -> str:
    """By which lane mail for an address of this host is tried first."""
    if isinstance(decision, Instructions) and is_sequence(decision.actions) and decision.account:
        return account_lane(decision.account.name)
    return LOCAL_LANE


def _as_of_now(target: Target, decision: Decision) -> Target:
    """The target, as a whole where its instructions are of an account whose it is no more.

    Whose address it was may have written commands, or named files, for whose it is now.
    """
    if isinstance(decision, Mailbox | Instructions) and target.account not in ("", _name(decision)):
        return replace(target, instruction="", account="")
    return target


def _name(decision: Mailbox | Instructions) -> str:
    """The name of its account; empty: it has none."""
    return decision.account.name if decision.account else ""


def _only(kind: type[_T], planned: Sequence[object]) -> dict[int, _T]:
    return {number: each for number, each in enumerate(planned) if isinstance(each, kind)}


def _work_of(act: Act, via: tuple[str, ...], sender: ReversePath) -> MboxDelivery | ProgramDelivery:
    account, delivered_to = act.account, (act.delivered_to, *via)
    match act.action:
        case ToMbox(path):
            return MboxDelivery(resolve_path(account.home, path), account, delivered_to)
        case ToProgram(command):
            served = act.destination
            return ProgramDelivery(
                command,
                account,
                delivered_to,
                served.user,
                served.extension,
                served.default,
                sender_of_list(served.new_sender, sender),
            )


def _way(here: str, via: Sequence[str]) -> str:
    return " > ".join((*reversed(via), here))


def _of_one_transaction(message: QueuedMessage) -> list[int]:
    """The recipients that came by the same aliases, from the same sender, as the first.

    The others wait, and are not looked up before their turn: of a list whose members have a
    sender each, there may be a hundred in an attempt.
    """
    origins = [(each.target.via, each.target.reverse_path) for each in message.recipients]
    return [number for number, origin in enumerate(origins) if origin == origins[0]]
