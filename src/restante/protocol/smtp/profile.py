"""What an SMTP server offers and allows, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from restante.protocol import sasl
from restante.protocol.smtp import replies
from restante.protocol.smtp.grammar import Verb
from restante.status import Reply


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may ask of this server; 0 is no limit where that is said."""

    max_command_line: int = 4096
    """Octets in a command line with its CRLF (RFC 5321 §4.5.3.1.4)."""
    max_text_line: int = 1024 * 1024
    """Octets in a line of content with its CRLF (RFC 5321 §4.5.3.1.6)."""
    databytes: int = 0
    """Octets in a content with CRLF line ends (RFC 5321 §4.5.3.1.7); 0: no limit."""
    max_recipients: int = 1000
    """Recipients accepted for one message (RFC 5321 §4.5.3.1.8)."""
    max_errors: int = 20
    """Replies of 5xx that a session may get since its last accepted message."""
    max_refused_logins: int = 3
    """Logins refused for good after which a session is closed (RFC 4954 §9: 3 or more)."""


class Extension(Enum):
    """The service extensions that can be offered."""

    PIPELINING = "PIPELINING"
    SIZE = "SIZE"
    EIGHT_BIT = "8BITMIME"
    SMTPUTF8 = "SMTPUTF8"
    ENHANCED_STATUS = "ENHANCEDSTATUSCODES"
    CHUNKING = "CHUNKING"
    DSN = "DSN"
    STARTTLS = "STARTTLS"
    """Needs a driver that can do the handshake (RFC 3207)."""
    AUTH = "AUTH"
    """Needs a driver that can check a password (RFC 4954)."""


BASIC = tuple(each for each in Extension if each not in {Extension.STARTTLS, Extension.AUTH})
"""What every server offers: the extensions that need nothing of its driver."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who this server is and what it offers."""

    hostname: str
    """The name it greets with."""
    greeting: str = ""
    """The text after the name in the 220 greeting; empty: ``ESMTP``."""
    limits: Limits = Limits()
    extensions: tuple[Extension, ...] = BASIC
    plaintext_auth: bool = False
    """AUTH is offered without TLS too: passwords may be read on the way."""
    requires_auth: bool = False
    """Nobody sends mail here without logging in first (RFC 6409 §4.3)."""
    mechanisms: tuple[str, ...] = sasl.DEFAULT_MECHANISMS
    """How a client may log in; what needs a channel binding is offered where there is one."""
    hellos: Mapping[tuple[bool, tuple[str, ...]], bytes] = field(
        init=False, repr=False, compare=False
    )
    """The replies to EHLO, by whether there is TLS and which mechanisms may be used now."""
    short_hello: Reply = field(init=False, repr=False, compare=False)
    """The reply to HELO."""
    opening: bytes = field(init=False, repr=False, compare=False)
    """The greeting that opens a session (RFC 5321 §4.3.1)."""
    longest_line: int = field(init=False, repr=False, compare=False)
    """Octets in a line that is not content; AUTH has longer ones (RFC 4954 §4)."""

    def __post_init__(self) -> None:
        """Make ready what every session needs."""
        unbound = sasl.offered(self.mechanisms, sasl.NO_BINDINGS)
        hellos = {
            (tls, usable): self._hello(tls, usable)
            for tls in (False, True)
            for usable in ((), unbound, self.mechanisms)
        }
        greeting = Reply(220, "", f"{self.hostname} {self.greeting or 'ESMTP'}")
        longest = sasl.MAX_LINE if Extension.AUTH in self.extensions else 0
        object.__setattr__(self, "hellos", hellos)
        object.__setattr__(self, "short_hello", Reply(250, "", self.hostname))
        object.__setattr__(self, "opening", greeting.encode())
        object.__setattr__(self, "longest_line", max(self.limits.max_command_line, longest))

    def _hello(self, tls: bool, mechanisms: tuple[str, ...]) -> bytes:
        """The keywords with their parameters (RFC 5321 §4.1.1.1)."""
        words = {
            Extension.SIZE: f"SIZE {self.limits.databytes}",
            Extension.AUTH: f"AUTH {' '.join(mechanisms)}",
        }
        offered = {Extension.STARTTLS: not tls, Extension.AUTH: bool(mechanisms)}
        keywords = [words.get(each, each.value) for each in self.extensions if offered.get(each, 1)]
        return Reply(250, "", "\n".join((self.hostname, *keywords, "HELP"))).encode()


class State(Enum):
    """Where a session is (RFC 5321 §4.1.4)."""

    __hash__ = object.__hash__  # as Verb has it

    CONNECTED = auto()
    """No HELO or EHLO yet."""
    IDLE = auto()
    """Between two transactions."""
    ENVELOPE = auto()
    """MAIL was accepted; recipients are named."""
    CHUNKS = auto()
    """The content has begun with BDAT."""
    CONTENT = auto()
    """The content is read after DATA, or complete and not answered yet."""
    CLOSED = auto()


_NEEDS_HELLO = {State.CONNECTED: replies.HELLO_FIRST}
_NEEDS_MAIL = {**_NEEDS_HELLO, State.IDLE: replies.MAIL_FIRST}
OUT_OF_ORDER: Mapping[Verb, Mapping[State, Reply]] = {
    Verb.MAIL: {
        **_NEEDS_HELLO,
        State.ENVELOPE: replies.MAIL_NESTED,
        State.CHUNKS: replies.MAIL_NESTED,
    },
    Verb.RCPT: {**_NEEDS_MAIL, State.CHUNKS: replies.CHUNKS_BEGUN},
    Verb.DATA: {**_NEEDS_MAIL, State.CHUNKS: replies.CHUNKS_BEGUN},
    Verb.BDAT: _NEEDS_MAIL,
    Verb.STARTTLS: _NEEDS_HELLO,
    # RFC 4954 §4: not in a transaction.
    Verb.AUTH: {
        **_NEEDS_HELLO,
        State.ENVELOPE: replies.NO_AUTH_NOW,
        State.CHUNKS: replies.NO_AUTH_NOW,
    },
}
"""What a command is told in a state where it has no place; all else may come at any time."""
