"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server side (RFC 5802, RFC 7677).

The exchange knows the messages and no keys: it asks for a salt, gives the proof away to be
checked, and passes on the proof of the server. Where something is wrong it fails as any other
exchange does, without the ``e=`` attribute of §7. Names are passed on without SASLprep.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from restante.protocol.sasl.steps import (
    CANCELLED,
    NOT_BASE64,
    Bindings,
    Challenge,
    Malformed,
    SaslFailure,
    ScramBegun,
    ScramDone,
    ScramProof,
    Step,
    text_of,
)

MAX_NONCE = 256
"""Octets of the client's nonce; 24 are usual, and both sides repeat it."""
NONCE_SIZE = 18
"""Octets of randomness in the server's nonce."""
PROOF_SIZE = 32
"""Octets of a ClientProof, as of any SHA-256."""

_FIRST = re.compile(
    rb"(?P<header>(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,]*))?,)"
    rb"(?P<bare>n=(?P<name>[^,]*),r=(?P<nonce>[!-+\--~]+)(?:,.*)?)",
    re.DOTALL,
)
"""``client-first-message``; a mandatory extension (``m=``) does not fit, and is refused so."""
_FINAL = re.compile(
    rb"(?P<bare>c=(?P<header>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,.*)?)"
    rb",p=(?P<proof>[A-Za-z0-9+/=]+)",
    re.DOTALL,
)
"""``client-final-message``."""
_ESCAPE = re.compile(rb"=(2C|3D|.{0,2})", re.DOTALL)


class _Awaited(Enum):
    """Where the exchange is."""

    FIRST = auto()
    SALT = auto()
    FINAL = auto()
    SIGNATURE = auto()
    ACKNOWLEDGEMENT = auto()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the mechanism depends on beyond its messages."""

    bindings: Bindings
    """Of this connection."""
    offers_plus: bool
    """SCRAM-SHA-256-PLUS is announced on this connection."""


def _new_nonce() -> str:
    return secrets.token_urlsafe(NONCE_SIZE)


class ScramExchange:
    """One authentication; ``salted`` answers ScramBegun, ``proved`` answers ScramProof."""

    def __init__(
        self,
        mechanism: str,
        circumstances: Circumstances,
        make_nonce: Callable[[], str] = _new_nonce,
    ) -> None:
        """``make_nonce``: the server's part of the nonce, without commas; a seam for tests."""
        self.mechanism = mechanism
        self._circumstances = circumstances
        self._make_nonce = make_nonce
        self._awaited = _Awaited.FIRST
        self._nonce = b""
        self._header = b""
        self._first_bare = b""
        self._server_first = b""

    def start(self, initial: bytes | None) -> Step:
        """The first step; see Exchange."""
        if initial is None:
            return Challenge(b"")
        return self.respond(b"" if initial == b"=" else initial)

    def respond(self, line: bytes) -> Step:
        """The step that follows the client's line; see Exchange."""
        if line == b"*":
            return CANCELLED
        try:
            return self._take(base64.b64decode(line, validate=True))
        except binascii.Error:
            return NOT_BASE64
        except Malformed as malformed:
            return SaslFailure(str(malformed))

    def salted(self, salt: bytes, iterations: int) -> Challenge:
        """The salt and the iterations that belong to the name."""
        self._move(_Awaited.SALT, _Awaited.FINAL)
        salt64 = base64.b64encode(salt).decode()
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt64.encode(), iterations)
        return Challenge(base64.b64encode(self._server_first))

    def proved(self, signature: bytes) -> Challenge:
        """The proof was right; ``signature`` is the server's (ServerSignature)."""
        self._move(_Awaited.SIGNATURE, _Awaited.ACKNOWLEDGEMENT)
        return Challenge(base64.b64encode(b"v=" + base64.b64encode(signature)))

    def _take(self, message: bytes) -> Step:
        if self._awaited is _Awaited.FIRST:
            return self._take_first(message)
        if self._awaited is _Awaited.FINAL:
            return self._take_final(message)
        assert self._awaited is _Awaited.ACKNOWLEDGEMENT, "the driver has the word"
        if message:
            raise Malformed("nothing is left to be said")
        return ScramDone()

    def _take_first(self, message: bytes) -> ScramBegun:
        parts = _FIRST.fullmatch(message)
        if parts is None:
            raise Malformed("that is not the first message of SCRAM")
        if len(parts["nonce"]) > MAX_NONCE:
            raise Malformed("the nonce is too long")
        bound = self._bound(parts["flag"], (parts["binding"] or b"").decode())
        login = _name(parts["name"])
        if not login:
            raise Malformed("the name is empty")
        if _name(parts["authzid"] or b"") not in ("", login):
            raise Malformed("nobody may act for somebody else")
        self._header = parts["header"] + bound
        self._first_bare = parts["bare"]
        self._nonce = parts["nonce"] + self._make_nonce().encode()
        self._move(_Awaited.FIRST, _Awaited.SALT)
        return ScramBegun(login)

    def _bound(self, flag: bytes, binding: str) -> bytes:
        """The octets that bind the exchange to its connection (RFC 5802 §6)."""
        has_binding = flag.startswith(b"p=")
        if has_binding is not self.mechanism.endswith("-PLUS"):
            raise Malformed("the mechanism and its channel binding do not fit")
        if flag == b"y" and self._circumstances.offers_plus:
            # The client was told that there is none: somebody in between removed the mechanism.
            raise Malformed("this server does support channel binding")
        if not has_binding:
            return b""
        octets = self._circumstances.bindings.get(binding)
        if octets is None:
            raise Malformed("no such channel binding")
        return octets

    def _take_final(self, message: bytes) -> ScramProof:
        parts = _FINAL.fullmatch(message)
        if parts is None:
            raise Malformed("that is not the final message of SCRAM")
        if _decoded(parts["header"]) != self._header:
            raise Malformed("the channel bindings do not match")
        if parts["nonce"] != self._nonce:
            raise Malformed("that is not the nonce")
        proof = _decoded(parts["proof"])
        if len(proof) != PROOF_SIZE:
            raise Malformed("the proof has a wrong length")
        self._move(_Awaited.FINAL, _Awaited.SIGNATURE)
        return ScramProof(b",".join((self._first_bare, self._server_first, parts["bare"])), proof)

    def _move(self, come_from: _Awaited, go_to: _Awaited) -> None:
        assert self._awaited is come_from, "a step out of order"
        self._awaited = go_to


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Malformed("a part of the message is not base64") from None


def _name(octets: bytes) -> str:
    """``saslname``: ``=2C`` is a comma, ``=3D`` an equals sign, and nothing else is escaped."""
    return text_of(_ESCAPE.sub(_unescaped, octets))


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] == b"2C":
        return b","
    if found[1] == b"3D":
        return b"="
    raise Malformed("the name holds an equals sign that stands for nothing")
