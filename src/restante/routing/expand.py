"""Following aliases to where they end: one bulk look-up for each level of aliases.

An alias that contains itself fails for that branch, and so does one with more targets than an
alias may have; the rest goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from restante.address import Address, ReversePath, fold
from restante.directory import Account, Directory
from restante.routing.decision import (
    Decision,
    Destination,
    Instructions,
    Mailbox,
    Misconfigured,
    NoSuchUser,
    Remote,
    ToForward,
    ToMaildir,
    ToMbox,
    ToProgram,
    Unknown,
)
from restante.routing.instructions import instruction_line, resolve_path
from restante.routing.owner import sender_of_list
from restante.routing.router import Router
from restante.routing.sequence import is_sequence
from restante.routing.users import NO_ALIAS_ACCOUNT


@dataclass(frozen=True, slots=True)
class Act:
    """An mbox or a program: what is done with the account's rights and is not a Maildir."""

    account: Account
    delivered_to: str
    action: ToMbox | ToProgram
    destination: Destination


@dataclass(frozen=True, slots=True)
class Looping:
    """An alias contains itself, or aliases are nested too deeply (554 5.4.6)."""

    address: Address
    why: str


Final = Mailbox | Act | Remote | NoSuchUser | Unknown | Misconfigured | Looping
"""What is left when all forwards to addresses here have been followed."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place where a recipient's mail ends."""

    original: Address
    """The recipient that it comes from."""
    address: Address
    """The address that was routed last."""
    decision: Final
    via: tuple[str, ...] = ()
    """Delivered-To values of the aliases it came by, latest first."""
    instruction: str = ""
    """The line of ``address`` that this leaf is; empty where it is the address as a whole."""
    new_sender: str = ""
    """The owner of the last list by which it came, as in ``Destination``; empty: there is none."""
    after: tuple[str, ...] = ()
    """The lists with programs that send it on: when all else in them is done."""


@dataclass(frozen=True, slots=True)
class Child:
    """What replaces an alias in the queue: another address, or one instruction of this one."""

    address: Address
    instruction: str = ""
    via: tuple[str, ...] = ()
    new_sender: str = ""
    """Whom the copy is from, if that is a list's owner; empty: whom the alias's was from.

    As in ``Destination``: see ``address.sender_for``.
    """


class TooManyTargets(Exception):
    """More was to be followed than there is time for."""


async def expand(
    router: Router,
    directory: Directory,
    recipients: Sequence[tuple[Address, Decision]],
    most: float = math.inf,
) -> tuple[Leaf, ...]:
    """Where the mail of all ``recipients``, already routed, ends; each place once.

    The same mailbox under the same delivery address is one leaf, of the first recipient
    that leads to it. No leaf at all: the instructions throw the message away. Never raises
    what it foresees, but for TooManyTargets: their aliases have more than ``most`` together.
    """
    known = {address.folded: decision for address, decision in recipients}
    room = _Room(most)
    growing = [_Expansion(router, address, room) for address in _beginnings(recipients)]
    while missing := _missing(growing, known):
        decisions = await router.route_many(tuple(missing.values()), directory)
        known.update(zip(missing, decisions, strict=True))
    places: dict[tuple[str, ...], Leaf] = {}
    for leaf in (leaf for each in growing for leaf in each.leaves()):
        places.setdefault(_place(leaf), leaf)
    return tuple(places.values())


def children(
    address: Address,
    instructions: Instructions,
    via: tuple[str, ...],
    sender: ReversePath,
) -> tuple[Child, ...]:
    """One level of an expansion: what the queue is to try instead of ``address``.

    ``sender``: whom the message is from that goes to ``address``.
    """
    below = (instructions.delivered_to, *via)
    new_sender = sender_of_list(instructions.destination.new_sender, sender)
    return tuple(
        Child(action.address, via=below, new_sender=new_sender)
        if isinstance(action, ToForward)
        else Child(address, instruction_line(action), via)
        for action in instructions.actions
    )


def settle(
    address: Address, instructions: Instructions, action: ToMaildir | ToMbox | ToProgram
) -> Mailbox | Act | Misconfigured:
    """Where one of the ``instructions`` of ``address`` ends, with the rights that it has now."""
    account = instructions.account
    if account is None:
        line = instruction_line(action)
        return Misconfigured(address, f"{line!r}: {NO_ALIAS_ACCOUNT}")
    delivered_to = instructions.delivered_to
    if isinstance(action, ToMaildir):
        return Mailbox(account, delivered_to, resolve_path(account.home, action.path))
    return Act(account, delivered_to, action, instructions.destination)


_Alias = tuple[str, str, str]
"""Delivered-To, user and extension of an alias: the owners ``info`` and ``info@example.com`` of two
addresses have the first in common."""


@dataclass(frozen=True, slots=True)
class _Branch:
    address: Address
    via: tuple[str, ...] = ()
    new_sender: str = ""
    after: tuple[str, ...] = ()
    parent: _Alias | None = None
    """The alias that it is in."""


@dataclass(slots=True)
class _Node:
    """An alias that was followed, and the aliases in it."""

    branch: _Branch
    below: dict[_Alias, None] = field(default_factory=dict)


class _Room:
    """For so many targets, of all recipients together."""

    def __init__(self, most: float) -> None:
        self._left = most

    def take(self, targets: int) -> None:
        self._left -= targets
        if self._left < 0:
            raise TooManyTargets


class _Expansion:
    """One recipient's aliases, followed level by level."""

    def __init__(self, router: Router, address: Address, room: _Room) -> None:
        self._original = address
        self._room = room
        self._max_depth = router.max_alias_depth
        self._frontier = [_Branch(address)]
        self._nodes: dict[_Alias, _Node] = {}
        self._leaves: list[Leaf] = []

    def advance(self, known: Mapping[str, Decision]) -> list[Address]:
        """Follow all that ``known`` answers; the addresses that must be routed to go on."""
        while self._frontier and all(each.address.folded in known for each in self._frontier):
            level, self._frontier = self._frontier, []
            for branch in level:
                self._take(branch, known[branch.address.folded])
        return [each.address for each in self._frontier if each.address.folded not in known]

    def leaves(self) -> Iterator[Leaf]:
        """All that was found, and a leaf for every alias that contains itself."""
        yield from self._leaves
        for node, alias in _back_edges(self._nodes):
            inner, name = self._nodes[alias].branch.address, alias[0]
            why = f"the alias {name} contains itself by way of {node.branch.address}"
            yield Leaf(self._original, inner, Looping(inner, why), (name, *node.branch.via))

    def _take(self, branch: _Branch, decision: Decision) -> None:
        if not isinstance(decision, Instructions):
            self._leaf(branch, decision)
        elif not self._looping(branch, decision):
            self._follow(branch, decision)

    def _looping(self, branch: _Branch, decision: Instructions) -> bool:
        """Whether the branch ends because it has been at ``decision`` or has come too far."""
        if len(branch.via) >= self._max_depth:
            why = f"aliases are nested more than {self._max_depth} deep (max_alias_depth)"
        elif _alias(decision) in self._nodes:
            return False  # if it contains itself, that is said in the end
        elif fold(decision.delivered_to) in map(fold, branch.via):
            why = f"the message was already delivered to {decision.delivered_to}"
        else:
            return False
        self._leaf(branch, Looping(branch.address, why))
        return True

    def _follow(self, branch: _Branch, decision: Instructions) -> None:
        alias = _alias(decision)
        if branch.parent:
            self._nodes[branch.parent].below[alias] = None
        if alias in self._nodes:
            return
        self._nodes[alias] = _Node(branch)
        self._room.take(len(decision.actions))
        below = _below(branch, alias, decision)
        for action in decision.actions:
            if isinstance(action, ToForward):
                self._frontier.append(_Branch(action.address, *below))
            else:
                final = settle(branch.address, decision, action)
                self._leaf(branch, final, instruction_line(action))

    def _leaf(self, branch: _Branch, final: Final, line: str = "") -> None:
        self._leaves.append(
            Leaf(
                self._original,
                branch.address,
                final,
                branch.via,
                line,
                branch.new_sender,
                branch.after,
            )
        )


def _below(
    branch: _Branch, alias: _Alias, decision: Instructions
) -> tuple[tuple[str, ...], str, tuple[str, ...], _Alias]:
    """What the branches of all forwards of the alias at ``branch`` have in common."""
    via = (decision.delivered_to, *branch.via)
    new_sender = decision.destination.new_sender or branch.new_sender
    own = (str(branch.address),) if is_sequence(decision.actions) else ()
    return via, new_sender, (*branch.after, *own), alias


def _alias(decision: Instructions) -> _Alias:
    served = decision.destination
    return fold(decision.delivered_to), fold(served.user), fold(served.extension)


def _beginnings(recipients: Sequence[tuple[Address, Decision]]) -> list[Address]:
    """The recipients without those that begin with the same alias as an earlier one.

    They lead to the same places, and a stranger may name a thousand: extensions of one address.
    """
    first: dict[_Alias | str, Address] = {}
    for address, decision in recipients:
        begins = _alias(decision) if isinstance(decision, Instructions) else address.folded
        first.setdefault(begins, address)
    return list(first.values())


def _missing(growing: list[_Expansion], known: Mapping[str, Decision]) -> dict[str, Address]:
    """What this level asks for, each address once however many aliases name it."""
    wanted = (address for each in growing for address in each.advance(known))
    return {address.folded: address for address in wanted}


def _back_edges(nodes: Mapping[_Alias, _Node]) -> Iterator[tuple[_Node, _Alias]]:
    """The edges that close a circle, as the alias and the one in it that leads back."""
    done: set[_Alias] = set()
    for root in nodes:
        if root in done:
            continue
        path = [root]
        pending = [iter(nodes[root].below)]
        while pending:
            alias = next(pending[-1], None)
            if alias is None:
                pending.pop()
                done.add(path.pop())
            elif alias in path:
                yield nodes[path[-1]], alias
            elif alias not in done and alias in nodes:
                path.append(alias)
                pending.append(iter(nodes[alias].below))


def _place(leaf: Leaf) -> tuple[str, ...]:
    """What makes two leaves one and the same copy."""
    return (*_ending(leaf), leaf.new_sender)


def _ending(leaf: Leaf) -> tuple[str, ...]:
    match leaf.decision:
        case Mailbox(_, delivered_to, maildir):
            return "mailbox", fold(delivered_to), maildir
        case Act(_, delivered_to, action, served):
            user, extension = fold(served.user), fold(served.extension)
            return "instruction", fold(delivered_to), user, extension, instruction_line(action)
    return type(leaf.decision).__name__, leaf.address.folded, leaf.instruction
