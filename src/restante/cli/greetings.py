"""What whatever listens at an address says first."""

from __future__ import annotations

import socket
import ssl

from restante.config.listeners import Listening
from restante.config.tree import HostPort

GREETING_TIMEOUT = 3.0
"""Seconds for a server that holds a port to greet."""
MAX_GREETING = 512
METRICS_REQUEST = b"GET /metrics HTTP/1.0\r\n\r\n"
METRICS_ANSWER = "metrics"
"""What stands for figures of a restante, which do not greet."""
_GREETINGS = {"smtp": "220", "submission": "220", "pop3": "+OK", "metrics": METRICS_ANSWER}


def greeting(listening: Listening, address: HostPort) -> str:
    """The first line that is said there; empty if nothing is."""
    if listening.name == "metrics":
        figures = _said(address, METRICS_REQUEST)
        return METRICS_ANSWER if "restante_" in figures else figures
    return _said(address, tls=listening.tls)


def greets(listening: Listening, said: str) -> bool:
    """Whether this is how a server of that kind greets that can serve."""
    return said.startswith(_GREETINGS[listening.setting[0]])


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
