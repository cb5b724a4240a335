"""What the SMTP server core tells its driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

from restante.address import Address, ReversePath
from restante.envelope import NO_DSN, RecipientDsn
from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof
from restante.records import record
from restante.status import Reply


class Wait(Enum):
    """Why there is no event now."""

    NEED_DATA = auto()
    """Everything received is used up: ``receive`` more, or ``receive_eof``."""
    NEED_REPLY = auto()
    """An earlier event must be answered first: ``reply``, or for StartTls ``tls_started``."""
    NEED_SEND = auto()
    """Many replies have gathered: take ``outgoing`` and let the peer read it first."""


NEED_DATA: Final = Wait.NEED_DATA
"""What is said after every command: it takes Python 3.11 100 ns to find it in its class."""


class CloseReason(Enum):
    """Why a session ended."""

    QUIT = "quit"
    LOST = "lost"
    """The peer ended the stream without QUIT."""
    TOO_MANY_ERRORS = "too many errors"
    NOT_SMTP = "not SMTP"
    """The peer speaks another protocol."""
    OUT_OF_SYNC = "out of sync"
    """A malformed BDAT: nobody knows where its octets end. Or commands behind STARTTLS."""
    REFUSED = "refused"
    """The driver closed the session with a reply."""


@record
class MailParameters:
    """The parameters of MAIL."""

    size: int | None = None
    """Octets that the client declared (RFC 1870)."""
    eight_bit: bool = False
    """BODY=8BITMIME was given (RFC 6152)."""
    smtputf8: bool = False
    """SMTPUTF8 was given (RFC 6531)."""
    ret: Literal["", "FULL", "HDRS"] = ""
    """RET was given (RFC 3461 §4.3)."""
    envid: str = ""
    """ENVID, decoded (RFC 3461 §4.4)."""
    auth: bool = False
    """AUTH was given (RFC 4954 §5). Whom it names is ignored, as by a server that trusts no
    client's word."""


NO_PARAMETERS = MailParameters()
"""None was given."""


@record
class Mail:
    """A transaction wants to begin; await ``reply``."""

    reverse_path: ReversePath
    helo: str
    """The name the client gave in HELO or EHLO: printable ASCII without spaces."""
    protocol: str
    """The ``with`` of a Received field: SMTP, ESMTPSA, ... (RFC 3848, RFC 6531 §4.3)."""
    parameters: MailParameters = NO_PARAMETERS


@record
class Rcpt:
    """A recipient is named; await ``reply``. Several may come before the first is answered."""

    address: Address
    dsn: RecipientDsn = NO_DSN


@dataclass(frozen=True, slots=True)
class MailRefused:
    """MAIL was refused by the core; not for being out of order, of which there is no event."""

    reverse_path: str
    """As ``str`` of an address has it, or as the client wrote it where it is none."""
    reply: Reply


@dataclass(frozen=True, slots=True)
class RcptRefused:
    """RCPT was refused by the core, as MailRefused is; for too many recipients once a message."""

    forward_path: str
    reply: Reply


@record
class BodyChunk:
    """The next piece of the content, with LF line ends and dots unstuffed."""

    data: bytes
    lines: int
    """Line ends in it."""


@record
class EndOfMessage:
    """The content is complete; await ``reply``, a success of which takes responsibility."""


@dataclass(frozen=True, slots=True)
class BodyRefused:
    """The content broke a rule and the core has said so; the transaction is over.

    Drop the pieces that came before.
    """

    reply: Reply


@dataclass(frozen=True, slots=True)
class StartTls:
    """Send ``outgoing``, do the handshake, then say ``tls_started``; if it fails, hang up.

    Octets that were received before the handshake are to be thrown away (RFC 3207 §4.2).
    """


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Somebody logs in; await ``reply`` (RFC 4954 §4)."""

    login: str
    password: str = field(repr=False)
    mechanism: str
    """``PLAIN`` or ``LOGIN``."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The client gave up the transaction (RSET, a new EHLO, STARTTLS, QUIT)."""


@record
class Closed:
    """The session is over, and its transaction if one was open: send ``outgoing``, then close."""

    reason: CloseReason


AuthEvent = Authenticate | ScramBegun | ScramProof | ScramDone
"""What AUTH comes to: a password, or SCRAM step by step; await ``reply`` or what they say."""

CommandRefused = MailRefused | RcptRefused
"""What an operator is asked about when somebody's mail is refused at once."""

Event = (
    Mail
    | Rcpt
    | CommandRefused
    | BodyChunk
    | EndOfMessage
    | BodyRefused
    | Reset
    | StartTls
    | AuthEvent
    | Closed
)
