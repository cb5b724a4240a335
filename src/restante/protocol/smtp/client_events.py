"""What the driver of an SMTP client gives it to send, and what the client tells its driver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from restante.address import Address, ReversePath
from restante.envelope import NO_DSN, RecipientDsn
from restante.status import Reply


class ClientWait(Enum):
    """Why there is no event now. Before any of them, send ``outgoing``."""

    NEED_DATA = auto()
    """The peer is to answer: ``receive`` within ``timeout`` seconds, or ``receive_eof``."""
    NEED_CONTENT = auto()
    """``content`` or ``end_content``. The peer may say something all the same."""
    NEED_ACTION = auto()
    """Nothing is under way: ``send``, ``start_tls``, ``authenticate`` or ``quit``."""
    NEED_HANDSHAKE = auto()
    """After StartTls: ``tls_started``, or ``receive_eof`` if it failed."""


@dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    """One recipient, and what its sender wants to be told of it."""

    address: Address
    dsn: RecipientDsn = NO_DSN


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """All that is said of a message before its content."""

    reverse_path: ReversePath
    recipients: tuple[OutgoingRecipient, ...]
    size: int
    """Octets of the content with CRLF line ends (RFC 1870 §3)."""
    eight_bit: bool = False
    """The content holds octets beyond ASCII (RFC 6152)."""
    smtputf8: bool = False
    """The header may hold UTF-8 (RFC 6531); of the addresses the client sees by itself."""
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: str = ""
    """Not yet encoded as xtext (RFC 3461 §4.4)."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the peer said it can do."""

    extended: bool = False
    """It knows EHLO; without, all else is empty."""
    pipelining: bool = False
    """RFC 2920."""
    size: int | None = None
    """Octets it takes at most (RFC 1870); 0: it names no limit; None: not offered."""
    eight_bit: bool = False
    """8BITMIME (RFC 6152)."""
    smtputf8: bool = False
    """RFC 6531."""
    chunking: bool = False
    """RFC 3030."""
    dsn: bool = False
    """RFC 3461."""
    starttls: bool = False
    """RFC 3207."""
    auth: frozenset[str] = frozenset()
    """Names of SASL mechanisms, in upper case (RFC 4954)."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recipient."""

    reply: Reply
    command: str
    """What was answered, or was to be: ``RCPT TO:<x@example.com>``, ``end of data``."""
    local: bool = False
    """The words are the client's own: the peer was not asked, or its answer never came."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Greeting and EHLO (or HELO) are done; after ``tls_started`` once more."""

    extensions: Extensions


@dataclass(frozen=True, slots=True)
class StartTls:
    """The peer awaits the handshake: ``receive`` nothing before it, then say ``tls_started``."""


@dataclass(frozen=True, slots=True)
class TlsRefused:
    """The peer does not want STARTTLS now; the session goes on in clear text."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The peer knows who this is."""


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """The peer does not believe it, or cannot tell now; the session goes on without."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TransactionDone:
    """What became of the message sent, one result a recipient in their order."""

    results: tuple[Result, ...]
    dsn: bool
    """The peer takes part in RFC 3461, so that reports of success are its duty now."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over: send ``outgoing``, if it still goes, and close. The last event."""

    reply: Reply | None
    """The peer's last words, if it had any."""
    command: str
    """What they answered, or what was awaited: ``greeting``, ``EHLO mx.example``, ``idle``."""
    why: str
    """In words for a log or a report; what came, if it was no reply."""


ClientEvent = Ready | StartTls | TlsRefused | Authenticated | AuthRefused | TransactionDone | Closed
