"""All of routing for one address, with its trace: what ``restante explain`` tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from restante.address import Address
from restante.directory import Directory
from restante.errors import TemporaryError
from restante.routing.decision import Decision, Instructions, Unknown
from restante.routing.expand import Final, Leaf, expand
from restante.routing.reply import CANNOT_KNOW, reply_to, reply_to_stranger
from restante.routing.router import Router
from restante.routing.trace import Trace, TracedLookups
from restante.status import Reply


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of an address, and why."""

    address: Address
    accepted: bool | None
    """Decision 1; None: the database could not be asked."""
    decision: Decision
    reply: Reply
    """What a stranger would hear at RCPT."""
    reply_to_user: Reply
    """What somebody would hear who may send anywhere."""
    trace: Trace
    leaves: tuple[Leaf, ...]
    """Where an address with instructions leads; empty for any other."""

    @property
    def ends(self) -> tuple[Decision | Final, ...]:
        """The decision, and those that its instructions lead to."""
        return self.decision, *(leaf.decision for leaf in self.leaves)

    @property
    def is_known(self) -> bool:
        """Whether everything that was to be asked gave an answer."""
        is_missing = any(isinstance(each, Unknown) for each in self.ends)
        return self.accepted is not None and not is_missing


async def explain(
    router: Router,
    directory: Directory,
    address: Address,
    clock: Callable[[], float] = time.perf_counter,
    *,
    verify: bool = True,
) -> Explanation:
    """Route ``address`` question by question; never raises what it foresees.

    ``verify``: whether recipients who are nobody are refused (receiver.verify_recipients).
    """
    trace = Trace()
    lookups = TracedLookups(directory, trace, clock)
    accepted: bool | None = None
    try:
        accepted = await router.accepts(address.domain, lookups, trace)
    except TemporaryError as error:
        trace.note("1", "cannot know: %s", error)
    decision = await router.route(address, lookups, trace)
    reply = (
        CANNOT_KNOW
        if accepted is None
        else reply_to_stranger(decision, accepted=accepted, verify=verify)
    )
    leaves: tuple[Leaf, ...] = ()
    if isinstance(decision, Instructions):
        leaves = await expand(router, directory, [(address, decision)])
    to_user = reply_to(decision, verify=verify)
    return Explanation(address, accepted, decision, reply, to_user, trace, leaves)
