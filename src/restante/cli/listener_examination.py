"""Whether everything that ``check`` looks at can listen where the settings say."""

from __future__ import annotations

import socket
import ssl

from restante.cli.findings import Findings
from restante.config import Settings
from restante.config.listeners import LISTENERS, Listening
from restante.config.tree import HostPort

GREETING_TIMEOUT = 3.0
"""Seconds for a server that holds a port to greet."""
MAX_GREETING = 512
METRICS_REQUEST = b"GET /metrics HTTP/1.0\r\n\r\n"
_GREETINGS = {"smtp": "220", "submission": "220", "pop3": "+OK"}


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
    if listening.name == "metrics":
        if "restante_" in _said(address, METRICS_REQUEST):
            findings.advice.append(f"{address} is served by a restante already: its metrics")
        else:
            findings.problems.append(problem)
        return
    greeting = _said(address, tls=listening.tls)
    expected = _GREETINGS[listening.setting[0]]
    if greeting.startswith(expected) and settings.hostname in greeting:
        findings.advice.append(f"{address} is served by {settings.hostname} already: {greeting}")
    else:
        findings.problems.append(problem)


def _said(address: HostPort, request: bytes = b"", *, tls: bool = False) -> str:
    """What whatever listens there says first, or to a request; empty if nothing is said."""
    try:
        with _connected(address, tls=tls) as connection:
            connection.sendall(request)
            data = connection.recv(MAX_GREETING)
            if request:
                data += connection.recv(MAX_GREETING)
    except OSError:
        return ""
    return data.decode("utf-8", "replace").strip()


def _connected(address: HostPort, *, tls: bool) -> socket.socket:
    plain = socket.create_connection((address.host, address.port), timeout=GREETING_TIMEOUT)
    if not tls:
        return plain
    # Whose certificate it is does not matter: nothing is told to it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(plain)
    except OSError:
        plain.close()
        raise
