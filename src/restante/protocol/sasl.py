"""The server side of SASL PLAIN (RFC 4616) and LOGIN, as POP3 and SMTP embed it.

An exchange is given the client's lines, base64 and all, and answers each with a
challenge, the credentials, or a failure. It checks no password. Names and
passwords are taken as they are, without SASLprep.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

MAX_LINE = 12_288
"""Octets in one line of an exchange, with its CRLF (RFC 4954 §4)."""
MAX_FIELD = 1020
"""Octets in a name or password: 255 characters of UTF-8 (RFC 4616 §2)."""


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


Step = Challenge | SaslCredentials | SaslFailure


class _Malformed(Exception):
    """What the client sent cannot be credentials; the text is fit for the peer."""


class SaslExchange:
    """One authentication; ``start`` once, then ``respond`` to each line until it is over."""

    def __init__(self, mechanism: str, prompts: tuple[bytes, ...], finish: _Finish) -> None:
        self.mechanism = mechanism
        self._prompts = prompts
        self._finish = finish
        self._responses: list[bytes] = []

    def start(self, initial: bytes | None) -> Step:
        """The first step; ``initial`` is the initial response, base64 or ``=`` for an empty one."""
        if initial is None:
            return self._challenge()
        return self._take(b"" if initial == b"=" else initial)

    def respond(self, line: bytes) -> Step:
        """The step that follows the client's line, which comes without its CRLF."""
        if line == b"*":
            return SaslFailure("authentication cancelled", cancelled=True)
        return self._take(line)

    def _take(self, line: bytes) -> Step:
        try:
            self._responses.append(base64.b64decode(line, validate=True))
            if len(self._responses) < len(self._prompts):
                return self._challenge()
            return self._finish(self._responses)
        except binascii.Error:
            return SaslFailure("that is not base64")
        except _Malformed as malformed:
            return SaslFailure(str(malformed))

    def _challenge(self) -> Challenge:
        return Challenge(base64.b64encode(self._prompts[len(self._responses)]))


def exchange(mechanism: str) -> SaslExchange | None:
    """A new exchange by this mechanism, whose name ignores case; None if it is not offered."""
    name = mechanism.upper()
    if name not in _MECHANISMS:
        return None
    return SaslExchange(name, *_MECHANISMS[name])


def _finish_plain(responses: list[bytes]) -> SaslCredentials:
    """``[authzid] NUL authcid NUL passwd`` (RFC 4616 §2)."""
    parts = responses[0].split(b"\0")
    if len(parts) != 3:
        raise _Malformed("that is not a PLAIN message")
    authorization, login, password = (_text(part) for part in parts)
    if authorization not in ("", login):
        raise _Malformed("nobody may act for somebody else")
    return _credentials(login, password)


def _finish_login(responses: list[bytes]) -> SaslCredentials:
    login, password = (_text(response) for response in responses)
    return _credentials(login, password)


def _credentials(login: str, password: str) -> SaslCredentials:
    if not login or not password:
        raise _Malformed("the name or the password is empty")
    return SaslCredentials(login, password)


def _text(octets: bytes) -> str:
    if len(octets) > MAX_FIELD:
        raise _Malformed("the name or the password is too long")
    if b"\0" in octets:
        raise _Malformed("the name or the password holds a NUL")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _Malformed("the name or the password is not UTF-8") from None


_Finish = Callable[[list[bytes]], SaslCredentials]

_MECHANISMS: MappingProxyType[str, tuple[tuple[bytes, ...], _Finish]] = MappingProxyType(
    {
        "PLAIN": ((b"",), _finish_plain),
        "LOGIN": ((b"Username:", b"Password:"), _finish_login),
    }
)

MECHANISMS = tuple(_MECHANISMS)
"""The mechanisms offered, in the order in which they are announced."""
