"""Which way mail for a domain leaves: a route of control/smtproutes, else the domain's own MX.

A way out is called a lane; its name is the next hop. Lanes of routes always bear a
port (``smart.example:25``), those of domains never do (``example.net``,
``[192.0.2.1]``): so a host that is both is not mistaken for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from restante.address import domain_keys, fold
from restante.config.nexthop import NextHop
from restante.relay.names import NoDomainName, to_ascii


@dataclass(frozen=True, slots=True)
class ByMx:
    """The hosts that the DNS names for a domain, or the address of a literal."""

    domain: str
    """In A-labels and lower case where that is possible."""

    def __str__(self) -> str:
        return self.domain


Destination = NextHop | ByMx


def destination(lane: str) -> Destination:
    """Where a lane leads; one that nobody can have made is a domain that does not exist."""
    if ":" in lane and not lane.endswith("]"):
        with contextlib.suppress(ValueError):
            return NextHop.parse(lane)
    return ByMx(lane)


class Routes:
    """``queue.Lanes`` by ``routing.smtproutes``, with qmail-control(5)'s precedence.

    The domain itself, then its ``.suffixes``, the longest first, then the empty
    key. An empty value means the domain's MX, whatever wider keys say.
    """

    def __init__(self, smtproutes: Mapping[str, str]) -> None:
        """``smtproutes`` as the settings have it, where it was checked."""
        self._table = {
            key_in_ascii(domain): str(NextHop.parse(relay)) if relay else ""
            for domain, relay in smtproutes.items()
        }

    def of(self, domain: str) -> str:
        """The lane for mail to ``domain``, which is folded."""
        name = _ascii_if_possible(domain)
        return self._route(name) or name

    def _route(self, domain: str) -> str:
        for key in (*domain_keys(domain), ""):
            relay = self._table.get(key)
            if relay is not None:
                return relay
        return ""


def key_in_ascii(domain: str) -> str:
    """A key of a table, as ``domain_keys`` of a name in A-labels gives it."""
    dot = "." if domain.startswith(".") else ""
    return dot + _ascii_if_possible(domain.removeprefix("."))


def _ascii_if_possible(domain: str) -> str:
    """What has no A-labels keeps its name; who looks it up will find that it cannot exist."""
    try:
        return to_ascii(domain)
    except NoDomainName:
        return fold(domain)
