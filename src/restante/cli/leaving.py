"""Which way mail for another host leaves, as far as the settings and the queue know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restante.cli.output import one_line, remark
from restante.cli.queues.record import alone_record
from restante.cli.queues.showing import left_alone
from restante.config.nexthop import NextHop
from restante.queue import QueueUnusable
from restante.queue.reader import LaneAlone, QueueReader
from restante.relay.routes import Destination, Routes, destination
from restante.relay.tls import SUBMISSIONS_PORT, TlsPolicies
from restante.routing.decision import Remote
from restante.tally.owner import as_owner

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.routing.explanation import Explanation


@dataclass(frozen=True, slots=True)
class Way:
    """A lane, and how its hosts are met."""

    address: str
    lane: str
    by_route: bool
    """routing.smtproutes names the next hop; else the DNS does."""
    tls_policy: str
    login: str
    """As whom this host logs in there; empty: not at all."""
    alone: LaneAlone | None

    def __str__(self) -> str:
        """One line for a terminal."""
        parts = [f"lane {self.lane}, {self._named_by()}", f"TLS: {self.tls_policy}"]
        if self.login:
            parts.append(f"logs in as {self.login}")
        if self.alone is not None:
            parts.append(left_alone(self.alone))
        return one_line(f"{self.address} by {'; '.join(parts)}")

    def _named_by(self) -> str:
        if self.by_route:
            return "which routing.smtproutes names"
        return "an address" if self.lane.startswith("[") else "to the hosts that the DNS names"


def ways(settings: Settings, found: Explanation) -> list[Way]:
    """Those of all remote addresses that an explanation leads to."""
    addresses = [each.address for each in found.ends if isinstance(each, Remote)]
    routes = Routes(settings.routing.smtproutes)
    lanes = {address.to_mailbox(): routes.of(address.domain) for address in addresses}
    if not lanes:
        return []
    alone = _left_alone(settings, set(lanes.values()))
    logins = {str(NextHop.parse(hop)): login for hop, login in settings.relay.credentials.items()}
    policies = TlsPolicies(settings.relay.tls_policy, logins)
    return [
        Way(
            address,
            lane,
            isinstance(destination(lane), NextHop),
            _policy(policies, destination(lane)),
            logins.get(lane, "").partition(":")[0],
            alone.get(lane),
        )
        for address, lane in lanes.items()
    ]


def _left_alone(settings: Settings, lanes: set[str]) -> dict[str, LaneAlone]:
    """As the queues have it; where one cannot be read, the rest is worth telling all the same."""
    root = settings.path(settings.queue.root)
    reader, found = QueueReader(root), dict[str, LaneAlone]()
    try:
        with as_owner(root):
            found = reader.left_alone(lanes)
        reader.failures.check()
    except QueueUnusable as error:
        remark(f"whether hosts are left alone is not known: {error}")
    return found


def _policy(policies: TlsPolicies, where: Destination) -> str:
    """What is in force: where TLS comes first there is no clear text, whatever is allowed."""
    policy = policies.of(where)
    comes_first = isinstance(where, NextHop) and where.port == SUBMISSIONS_PORT
    return "encrypt" if comes_first and policy in ("none", "may") else policy


def way_record(way: Way) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "address": way.address,
        "lane": way.lane,
        "by_route": way.by_route,
        "tls_policy": way.tls_policy,
        "login": way.login or None,
        "left_alone": alone_record(way.alone),
    }
