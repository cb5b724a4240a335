"""Whether everything that ``check`` looks at can listen where the settings say."""

from __future__ import annotations

from restante.cli.check.findings import Findings
from restante.cli.check.listener_holder import holder_of
from restante.cli.greetings import METRICS_ANSWER, greeting, greets
from restante.config import Settings
from restante.config.listeners import LISTENERS, Listening
from restante.config.tree import HostPort

_SYSTEMD = "systemd"
"""The name of the process that holds sockets for services."""


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
    """A port that this instance's own server holds is as it should be, if that serves.

    Where it cannot be seen whose the port is, its greeting has to do. Of others none is asked for:
    systemd would start a server that is stopped.
    """
    holder = holder_of(address, settings.directory)
    if holder is not None and not holder.is_ours:
        if holder.name == _SYSTEMD:
            findings.advice.append(
                f"{address} is systemd's, which starts what the socket is for at the next "
                "connection; systemctl list-sockets names it"
            )
            return
        findings.problems.append(
            f"{problem}; it is {holder.name} (process {holder.pid}), not a server of this instance"
        )
        return
    said = greeting(listening, address)
    if greets(listening, said) and (holder is not None or _is_named(settings, said)):
        findings.advice.append(f"{address} is served by {_server(settings, said)}")
    elif holder is not None:
        heard = f"says {said!r}" if said else "does not answer"
        findings.problems.append(
            f"the server of this instance has {address} for {listening.name}, and {heard}; its log "
            "may say why"
        )
    else:
        findings.problems.append(problem)


def _is_named(settings: Settings, said: str) -> bool:
    return said == METRICS_ANSWER or settings.hostname in said


def _server(settings: Settings, said: str) -> str:
    if said == METRICS_ANSWER:
        return "a restante already: its metrics"
    return f"{settings.hostname} already: {said}"
