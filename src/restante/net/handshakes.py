"""TLS in a session: who we are, how long a handshake may take, and what the log is told."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from restante import maillog
from restante.net.connection import Connection, TlsFailed
from restante.tls import HandshakeContexts, TlsSession


@dataclass(frozen=True, slots=True)
class Handshakes:
    """What all handshakes of this host have in common."""

    contexts: HandshakeContexts
    timeout: float
    """Seconds that one may take."""

    async def accept(self, connection: Connection, session: str) -> None:
        """Begin with TLS (RFC 8314 §3); raises TlsFailed or Stopping."""
        await _told(connection, session, connection.accept_tls(self.contexts, self.timeout))

    async def start(self, connection: Connection, session: str, announce: bytes) -> None:
        """Go on in TLS after ``announce``, the answer to STARTTLS or STLS.

        Raises TlsFailed or Stopping.
        """
        begun = connection.start_tls(self.contexts, announce, self.timeout)
        await _told(connection, session, begun)


async def _told(connection: Connection, session: str, begun: Awaitable[TlsSession]) -> None:
    """Log what a handshake comes to."""
    try:
        tls = await begun
    except TlsFailed as failure:
        maillog.tls_failed(session, connection.peer, str(failure))
        raise
    maillog.tls_started(session, tls.version, tls.cipher, tls.server_name)
