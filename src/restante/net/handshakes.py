"""TLS in a session: who we are, how long a handshake may take, and what the log is told."""

from __future__ import annotations

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

    async def start(self, connection: Connection, session: str, announce: bytes) -> None:
        """Go on in TLS after ``announce``, the answer to STARTTLS or STLS; raises TlsFailed."""
        try:
            tls = await connection.start_tls(self.contexts, announce, self.timeout)
        except TlsFailed as failure:
            maillog.tls_failed(session, connection.peer, str(failure))
            raise
        tell(session, tls)


def tell(session: str, tls: TlsSession) -> None:
    """Log what a handshake came to."""
    maillog.tls_started(session, tls.version, tls.cipher, tls.server_name)
