"""Whether anybody reads what this host has to say to those who run it."""

from __future__ import annotations

import contextlib

from restante.address import Address, fold
from restante.cli.check.findings import Findings
from restante.cli.context import decision_about
from restante.config.tree import Settings
from restante.errors import RestanteError
from restante.labels import in_a_labels
from restante.relay.routes import Routes


def examine_reports(settings: Settings, findings: Findings) -> None:
    """A bounce of a bounce is the last that is heard of a message, and is not returned itself.

    qmail's default is postmaster at the host's own name, which need not be a domain here.
    """
    from restante.routing.decision import NoSuchUser, Remote

    if not settings.queue.doublebounceto:
        return
    address = Address.parse(settings.queue.doublebounceto)
    with contextlib.suppress(RestanteError):  # named as a problem already
        decision = decision_about(settings, address)
        if isinstance(decision, NoSuchUser):
            what = "whom nobody knows"
        elif isinstance(decision, Remote) and _leads_back(settings, address.domain):
            what = "and this host takes no mail for its own name"
        else:
            return
        findings.advice.append(
            f"bounces that cannot be delivered go to {address}, {what}: nobody reads them; set "
            "queue.doublebounceto (control/doublebounceto and doublebouncehost)"
        )


def _leads_back(settings: Settings, domain: str) -> bool:
    """Whether mail for the domain comes to this host again, unless it is somebody else's by DNS."""
    lane = Routes(settings.routing.smtproutes).of(in_a_labels(domain))
    return lane == fold(settings.hostname)
