"""Domains of which the rows knew nothing a moment ago: mail for them needs no look-up of its own.

A message that is relayed is routed twice within milliseconds, when it is accepted and when it
leaves, and so are all others for the same domain. What is remembered here is about rows alone;
settings are asked each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from restante.address import Address
from restante.directory import Directory
from restante.routing.decision import Decision, Remote
from restante.routing.router import Router

TRUST = 0.8
"""Seconds from the look-up on: a row that is changed by hand counts within a second, for every
message (as a control file does, see ``config.live``)."""
MOST_DOMAINS = 10_000
"""Domains that are remembered; with more of them all are looked up anew."""


class Strangers:
    """What one process has seen of other hosts' domains."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds and never goes back."""
        self.now = clock
        """What ``note`` is to be told; ask before the look-up."""
        self._seen: dict[str, float] = {}

    def note(self, decisions: Iterable[Decision], asked: float) -> None:
        """Remember what look-ups that began when it was ``asked`` say of other hosts' domains."""
        for decision in decisions:
            if isinstance(decision, Remote):
                if len(self._seen) >= MOST_DOMAINS:
                    self._seen.clear()
                self._seen[decision.address.domain] = asked

    def decisions(self, router: Router, addresses: Sequence[Address]) -> tuple[Remote, ...] | None:
        """The decisions, if the domains of all addresses are remembered and all are remote."""
        oldest = self.now() - TRUST
        found = []
        for address in addresses:
            remote = router.remote_without_rows(address)
            if remote is None or self._seen.get(remote.address.domain, oldest) <= oldest:
                return None
            found.append(remote)
        return tuple(found)

    async def route_many(
        self, router: Router, addresses: Sequence[Address], directory: Directory
    ) -> tuple[Decision, ...]:
        """As ``Router.route_many``, which is asked unless all is remembered."""
        known = self.decisions(router, addresses)
        if known is not None:
            return known
        asked = self.now()
        decisions = await router.route_many(addresses, directory)
        self.note(decisions, asked)
        return decisions
