"""Whether everything that ``check`` looks at can listen where the settings say."""

from __future__ import annotations

from restante.cli.findings import Findings
from restante.cli.greetings import METRICS_ANSWER, greeting, greets
from restante.config import Settings
from restante.config.listeners import LISTENERS, Listening
from restante.config.tree import HostPort


def examine_listeners(settings: Settings, findings: Findings) -> None:
    """Probe every address."""
    from restante.service.listeners import PortTaken, probe

    if not any(each.addresses(settings) for each in LISTENERS if each.name != "metrics"):
        findings.problems.append("smtp.listen and pop3.listen are empty: there is nothing to serve")
    for listening in LISTENERS:
        for address in listening.addresses(settings):
            try:
                probe(listening.name, address)
            except PortTaken as error:
                _explain_taken(settings, listening, address, str(error), findings)


def _explain_taken(
    settings: Settings, listening: Listening, address: HostPort, problem: str, findings: Findings
) -> None:
    """A port that this host's own server holds is as it should be."""
    said = greeting(listening, address)
    if not greets(listening, said):
        findings.problems.append(problem)
    elif said == METRICS_ANSWER:
        findings.advice.append(f"{address} is served by a restante already: its metrics")
    elif settings.hostname in said:
        findings.advice.append(f"{address} is served by {settings.hostname} already: {said}")
    else:
        findings.problems.append(problem)
