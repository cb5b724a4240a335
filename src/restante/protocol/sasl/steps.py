"""What comes of each of a client's lines in an exchange, and what lines may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

MAX_LINE = 12_288
"""Octets in one line of an exchange, with its CRLF (RFC 4954 §4)."""
MAX_FIELD = 1020
"""Octets in a name or password: 255 characters of UTF-8 (RFC 4616 §2)."""

Bindings = Mapping[str, bytes]
"""What a TLS connection can be recognised by at both ends, by type (RFC 5929)."""
NO_BINDINGS: Bindings = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server asks for one more line; ``line`` is base64, without the protocol's prefix."""

    line: bytes


@dataclass(frozen=True, slots=True)
class SaslCredentials:
    """The exchange is over; these are to be checked."""

    login: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SaslFailure:
    """The exchange is over without credentials; ``text`` is fit for the peer."""

    text: str
    cancelled: bool = False
    """The client sent ``*``."""


@dataclass(frozen=True, slots=True)
class ScramBegun:
    """Somebody means to prove a password; the exchange's ``salted`` goes on."""

    login: str
    """The name as it was sent, without SASLprep."""


@dataclass(frozen=True, slots=True)
class ScramProof:
    """The proof is to be checked; the exchange's ``proved`` goes on (RFC 5802 §3)."""

    message: bytes
    """AuthMessage: what both sides have said."""
    proof: bytes = field(repr=False)
    """ClientProof."""


@dataclass(frozen=True, slots=True)
class ScramDone:
    """The exchange is over: the client takes the server's proof for good, and is logged in."""


Step = Challenge | SaslCredentials | SaslFailure | ScramBegun | ScramProof | ScramDone


class Exchange(Protocol):
    """One authentication; ``start`` once, then ``respond`` to each line until it is over."""

    @property
    def mechanism(self) -> str:
        """Its name, in upper case."""
        ...

    def start(self, initial: bytes | None) -> Step:
        """The first step; ``initial`` is the initial response, base64 or ``=`` for an empty one."""
        ...

    def respond(self, line: bytes) -> Step:
        """The step that follows the client's line, which comes without its CRLF."""
        ...


class Malformed(Exception):
    """What the client sent is no step of the mechanism; the text is fit for the peer."""


CANCELLED = SaslFailure("authentication cancelled", cancelled=True)
NOT_BASE64 = SaslFailure("that is not base64")


def text_of(octets: bytes) -> str:
    """A name or a password; raises Malformed."""
    if len(octets) > MAX_FIELD:
        raise Malformed("the name or the password is too long")
    if b"\0" in octets:
        raise Malformed("the name or the password holds a NUL")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the name or the password is not UTF-8") from None
