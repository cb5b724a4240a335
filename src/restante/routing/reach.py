"""Whether mail for an address reaches an account: the reverse of routing, found by routing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from restante.address import Address, fold
from restante.directory import Account, Directory
from restante.errors import CannotKnow, TemporaryError
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    Misconfigured,
    ToForward,
    Unknown,
)
from restante.routing.router import Router

MAX_FOLLOWED = 1000
"""Addresses that are looked at for one answer: who gets mail by a longer list is not searched."""


class RowsAreWrong(TemporaryError):
    """Rows on the way cannot be obeyed, so nobody can say where it leads; the text says which."""


async def reaches(router: Router, directory: Directory, address: Address, account: Account) -> bool:
    """Whether ``account`` gets mail for ``address``, directly or by way of aliases.

    Its own instructions count as getting it, whatever they do with it: an account that
    forwards its mail still has its addresses. Aliases are followed as deeply as delivery
    follows them, and no further than ``MAX_FOLLOWED`` addresses. Raises CannotKnow and
    RowsAreWrong, unless the answer is yes without what could not be looked up.
    """
    seen = {address.folded}
    level = [address]
    doubts: list[Unknown | Misconfigured] = []
    for _ in range(router.max_alias_depth + 1):
        decisions = await router.route_many(level, directory)
        if any(_is_of(account, decision) for decision in decisions):
            return True
        doubts += (each for each in decisions if isinstance(each, Unknown | Misconfigured))
        level = list(islice(_unseen(_forwards(decisions), seen), MAX_FOLLOWED - len(seen)))
        if not level:
            break
    if doubts:
        raise _doubt(doubts[0])
    return False


def _is_of(account: Account, decision: Decision) -> bool:
    if not isinstance(decision, Mailbox | Instructions) or decision.account is None:
        return False
    return fold(decision.account.name) == fold(account.name)


def _forwards(decisions: Iterable[Decision]) -> Iterator[Address]:
    for decision in decisions:
        if isinstance(decision, Instructions):
            yield from (each.address for each in decision.actions if isinstance(each, ToForward))


def _unseen(addresses: Iterable[Address], seen: set[str]) -> Iterator[Address]:
    for address in addresses:
        if address.folded not in seen:
            seen.add(address.folded)
            yield address


def _doubt(decision: Unknown | Misconfigured) -> TemporaryError:
    kind = CannotKnow if isinstance(decision, Unknown) else RowsAreWrong
    return kind(decision.why)
