"""What the POP3 core tells its driver, and what the driver may say of a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof
from restante.records import record


class Need(Enum):
    """Why there is no event now."""

    DATA = auto()
    """Send what is outgoing, then give more of the client's octets."""
    ANSWER = auto()
    """The last event has to be answered first."""
    FLUSH = auto()
    """Send what is outgoing and let the client take it, then ask again."""


class ResponseCode(StrEnum):
    """Why a command failed, for the client's program (RFC 2449 §8, RFC 3206)."""

    IN_USE = "IN-USE"
    """Another session has the maildrop."""
    SYS_TEMP = "SYS/TEMP"
    """A system failure that will pass."""
    AUTH = "AUTH"
    """The credentials are wrong."""


class CloseReason(StrEnum):
    """Why a session ended."""

    QUIT = "quit"
    LOST = "lost"
    """The client closed the connection without QUIT: nothing is deleted."""
    TOO_MANY_ERRORS = "too many errors"
    REFUSED_LOGINS = "refused logins"
    OUT_OF_SYNC = "out of sync"
    """Commands behind STLS: they came in clear text, and may be anybody's."""
    INCOMPLETE = "message incomplete"
    """A message failed after a part of it was sent; only closing can say so."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Send ``outgoing``, do the handshake, then say ``tls_started``; if it fails, hang up.

    Octets that were received before the handshake are to be thrown away (RFC 2595 §4).
    """


@record
class Login:
    """Somebody asks for a maildrop; answer ``login_accepted`` or ``login_refused``."""

    login: str
    password: str = field(repr=False)
    mechanism: str
    """``USER``, ``PLAIN`` or ``LOGIN``."""


@record
class Retrieve:
    """Send a message: ``send_message_chunk`` as often as needed, then ``end_message``.

    ``send_message`` alone where the message is here as a whole; ``message_unavailable`` instead,
    if it cannot be had.
    """

    index: int
    """Counted from 0."""
    body_lines: int | None
    """For TOP, the lines of the body that will be sent; None for RETR: all."""


@record
class Update:
    """The client said QUIT: delete these messages, then answer ``updated``."""

    deleted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over; send what is outgoing and close the connection."""

    reason: CloseReason


LoginEvent = Login | ScramBegun | ScramProof | ScramDone
"""Somebody logs in with a password, or by SCRAM step by step; ``login_refused`` answers each.

Besides that Login and ScramDone are answered by ``login_accepted``, ScramBegun by
``scram_salt`` and ScramProof by ``scram_signature``.
"""
Event = StartTls | LoginEvent | Retrieve | Update | Closed
