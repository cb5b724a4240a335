"""TLS and authentication of one session: what may be used, and what came of it.

RFC 3207 (STARTTLS) and RFC 4954 (AUTH). Passwords are the driver's to check, and
handshakes the driver's to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from restante.protocol import sasl
from restante.protocol.smtp import replies
from restante.protocol.smtp.events import Authenticate, AuthEvent
from restante.protocol.smtp.grammar import Refused
from restante.protocol.smtp.profile import Extension, Profile
from restante.status import CHALLENGE, Reply


@dataclass(slots=True)
class Security:
    """How far a session is protected, and whether its client is known."""

    profile: Profile
    tls: bool
    """The octets go through TLS."""
    bindings: sasl.Bindings
    """What the connection can be recognised by (RFC 5929)."""
    authenticated: bool = False
    refused_logins: int = 0
    exchange: sasl.Exchange | None = None
    """The AUTH command to which the next line, or the driver's answer, belongs."""

    def after_handshake(self, bindings: sasl.Bindings) -> Security:
        """Nothing that a client said before the handshake counts, but for wrong guesses."""
        return Security(self.profile, True, bindings, refused_logins=self.refused_logins)

    @property
    def hello(self) -> bytes:
        """The reply to EHLO as things stand now."""
        return self.profile.hellos[self.tls, self._mechanisms]

    @property
    def help(self) -> Reply:
        """The reply to HELP, which names the commands that EHLO's reply offers, and no others."""
        extensions = self.profile.extensions
        usable = {
            "STARTTLS": Extension.STARTTLS in extensions and not self.tls,
            "AUTH": Extension.AUTH in extensions and bool(self._mechanisms),
            "BDAT": Extension.CHUNKING in extensions,
        }
        return replies.help_without({name for name, is_usable in usable.items() if not is_usable})

    def check_starttls(self) -> None:
        """Raises Refused unless a handshake may begin."""
        if Extension.STARTTLS not in self.profile.extensions:
            raise Refused(replies.NOT_IMPLEMENTED)
        if self.tls:
            raise Refused(replies.TLS_ALREADY)

    def check_mail(self) -> None:
        """Raises Refused where a client has to log in before it sends mail, and has not."""
        if self.authenticated or not self.profile.requires_auth:
            return
        if self._may_send_passwords or Extension.STARTTLS not in self.profile.extensions:
            raise Refused(replies.AUTH_FIRST)
        raise Refused(replies.STARTTLS_FIRST)

    @property
    def protocol_suffix(self) -> str:
        """What the protocol's name in a Received field ends in (RFC 3848)."""
        return ("S" if self.tls else "") + ("A" if self.authenticated else "")

    # The exchange that AUTH begins

    def begin(self, argument: str) -> Reply | AuthEvent:
        """Obey AUTH: a challenge or something to be judged; raises Refused (RFC 4954 §4)."""
        if Extension.AUTH not in self.profile.extensions:
            raise Refused(replies.NOT_IMPLEMENTED)
        if self.authenticated:
            raise Refused(replies.AUTH_ALREADY)
        mechanism, space, initial = argument.partition(" ")
        if not mechanism:
            raise Refused(replies.AUTH_SYNTAX)
        exchange = sasl.exchange(mechanism, self.profile.mechanisms, self.bindings)
        if exchange is None:
            raise Refused(replies.NO_MECHANISM)
        if not self._may_send_passwords:
            raise Refused(replies.AUTH_NEEDS_TLS)
        return self._step(exchange, exchange.start(initial.encode() if space else None))

    def respond(self, line: bytes) -> Reply | AuthEvent:
        """Take the next line of the exchange with its line end; an empty one was too long."""
        assert self.exchange is not None
        exchange, self.exchange = self.exchange, None
        if not line:
            return replies.RESPONSE_TOO_LONG
        return self._step(exchange, exchange.respond(line.removesuffix(b"\r\n")))

    def salted(self, salt: bytes, iterations: int) -> Reply:
        """The driver's answer to ScramBegun, if it is not a reply."""
        assert isinstance(self.exchange, sasl.ScramExchange)
        return _challenge(self.exchange.salted(salt, iterations))

    def proved(self, signature: bytes) -> Reply:
        """The driver's answer to ScramProof, if it is not a reply."""
        assert isinstance(self.exchange, sasl.ScramExchange)
        return _challenge(self.exchange.proved(signature))

    def settle(self, reply: Reply) -> None:
        """The driver's reply to an event of AUTH, which ends the exchange."""
        self.exchange = None
        self.authenticated = reply.is_success
        self.refused_logins += not (reply.is_success or reply.is_temporary)

    @property
    def is_guessing(self) -> bool:
        """Whether as many logins were refused as a session may try."""
        return self.refused_logins >= self.profile.limits.max_refused_logins

    def _step(self, exchange: sasl.Exchange, step: sasl.Step) -> Reply | AuthEvent:
        match step:
            case sasl.Challenge():
                self.exchange = exchange
                return _challenge(step)
            case sasl.SaslFailure(text, cancelled):
                return replies.AUTH_CANCELLED if cancelled else replies.auth_malformed(text)
            case sasl.SaslCredentials(login, password):
                return Authenticate(login, password, exchange.mechanism)
            case sasl.ScramBegun() | sasl.ScramProof() | sasl.ScramDone():
                self.exchange = exchange
                return step

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        """Those by which the client may log in now."""
        may_log_in = self._may_send_passwords and not self.authenticated
        return sasl.offered(self.profile.mechanisms, self.bindings) if may_log_in else ()

    @property
    def _may_send_passwords(self) -> bool:
        return self.tls or self.profile.plaintext_auth


def _challenge(challenge: sasl.Challenge) -> Reply:
    """The 334 that asks for the next line."""
    return Reply(CHALLENGE, "", challenge.line.decode())
