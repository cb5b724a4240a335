"""What a POP3 server offers and allows."""

from __future__ import annotations

from dataclasses import dataclass

from restante.protocol import sasl


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may do."""

    max_command_line: int = 255
    """Octets in a command with its CRLF (RFC 2449 §4)."""
    max_auth_line: int = sasl.MAX_LINE
    """Octets in AUTH with its initial response, and in the lines of its exchange (RFC 5034 §4)."""
    max_errors: int = 20
    """Commands that may fail before the session is closed."""
    max_refused_logins: int = 3
    """Refused logins after which the session is closed."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who this server is and what it offers."""

    hostname: str
    """The name it greets with."""
    limits: Limits = Limits()
    stls: bool = False
    """STLS is offered: the driver can do the handshake (RFC 2595 §4)."""
    plaintext_logins: bool = False
    """Logins are accepted without TLS too: passwords may be read on the way."""
    mechanisms: tuple[str, ...] = sasl.DEFAULT_MECHANISMS
    """How a client may log in by AUTH; USER and PASS are offered where PLAIN is."""

    @property
    def takes_passwords(self) -> bool:
        """Whether USER and PASS are offered."""
        return "PLAIN" in self.mechanisms
