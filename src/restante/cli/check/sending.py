"""Settings by which strangers could send here, a thief without end, or nobody by the smarthost."""

from __future__ import annotations

import ipaddress
import socket

from restante.cli.check.findings import Findings
from restante.config.listeners import LISTENERS
from restante.config.nexthop import NextHop
from restante.config.tree import Settings
from restante.network import is_loopback

_DOORS = ("submission", "submissions")


def examine_sending(settings: Settings, findings: Findings) -> None:
    """An open relay is a problem; submission to the world without limits is worth a word."""
    from restante.receiver.limits import limits_of

    for network in settings.receiver.relay_networks:
        if ipaddress.ip_network(network).prefixlen == 0:
            findings.problems.append(
                f"receiver.relay_networks has {network}: everybody in the world may send anywhere "
                "through this host, and soon will; name the networks of your own machines"
            )
    if _users_come_from_afar(settings) and not limits_of(settings.submission).any:
        findings.advice.append(
            "no limit is set in [submission]: who guesses one password may send without end; "
            "recipients_per_hour = 200 is more than a person needs"
        )
    _examine_logins(settings, findings)
    _examine_name(settings, findings)


def _examine_name(settings: Settings, findings: Findings) -> None:
    """The server may ask for it when no resolver answers yet, and many hosts refuse half a name."""
    if settings.control is not None:
        return  # its file ``me`` is told of
    bare = socket.gethostname()
    if not settings.server.me and "." not in bare:
        full = settings.hostname if "." in settings.hostname else f"{bare}.example.com"
        findings.advice.append(
            f"server.me is empty, and this host calls itself {bare}: the rest of its name is what "
            f'the resolver says when the server starts; set it, as in: me = "{full}"'
        )


def _examine_logins(settings: Settings, findings: Findings) -> None:
    """A port that differs is enough, and the smarthost refuses everything."""
    routes = settings.routing.smtproutes.values()
    taken = {str(NextHop.parse(hop)) for hop in routes if hop}
    for hop in settings.relay.credentials:
        if str(NextHop.parse(hop)) not in taken:
            findings.advice.append(
                f"relay.credentials has a login for {hop}, where no route of routing.smtproutes "
                "leads: it is never used; a next hop without a port means port 25"
            )


def _users_come_from_afar(settings: Settings) -> bool:
    """Whether mail can be submitted at an address that other hosts reach."""
    return any(
        not (is_loopback(address.host) or address.host == "localhost")
        for listening in LISTENERS
        if listening.name in _DOORS
        for address in listening.addresses(settings)
    )
