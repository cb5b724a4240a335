"""PLAIN (RFC 4616) and LOGIN, which hand the password over; taken as it is, without SASLprep."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from types import MappingProxyType

from restante.protocol.sasl.steps import (
    CANCELLED,
    NOT_BASE64,
    Challenge,
    Malformed,
    SaslCredentials,
    SaslFailure,
    Step,
    text_of,
)


class PasswordExchange:
    """One authentication: the client answers every prompt, and that is all."""

    def __init__(self, mechanism: str) -> None:
        """``mechanism`` is one of PASSWORD_MECHANISMS."""
        self.mechanism = mechanism
        self._prompts, self._finish = _MECHANISMS[mechanism]
        self._responses: list[bytes] = []

    def start(self, initial: bytes | None) -> Step:
        """The first step; see Exchange."""
        if initial is None:
            return self._challenge()
        return self._take(b"" if initial == b"=" else initial)

    def respond(self, line: bytes) -> Step:
        """The step that follows the client's line; see Exchange."""
        if line == b"*":
            return CANCELLED
        return self._take(line)

    def _take(self, line: bytes) -> Step:
        try:
            self._responses.append(base64.b64decode(line, validate=True))
            if len(self._responses) < len(self._prompts):
                return self._challenge()
            return self._finish(self._responses)
        except binascii.Error:
            return NOT_BASE64
        except Malformed as malformed:
            return SaslFailure(str(malformed))

    def _challenge(self) -> Challenge:
        return Challenge(base64.b64encode(self._prompts[len(self._responses)]))


def _finish_plain(responses: list[bytes]) -> SaslCredentials:
    """``[authzid] NUL authcid NUL passwd`` (RFC 4616 §2)."""
    parts = responses[0].split(b"\0")
    if len(parts) != 3:
        raise Malformed("that is not a PLAIN message")
    authorization, login, password = (text_of(part) for part in parts)
    if authorization not in ("", login):
        raise Malformed("nobody may act for somebody else")
    return _credentials(login, password)


def _finish_login(responses: list[bytes]) -> SaslCredentials:
    login, password = (text_of(response) for response in responses)
    return _credentials(login, password)


def _credentials(login: str, password: str) -> SaslCredentials:
    if not login or not password:
        raise Malformed("the name or the password is empty")
    return SaslCredentials(login, password)


_Finish = Callable[[list[bytes]], SaslCredentials]

_MECHANISMS: Mapping[str, tuple[tuple[bytes, ...], _Finish]] = MappingProxyType(
    {
        "PLAIN": ((b"",), _finish_plain),
        "LOGIN": ((b"Username:", b"Password:"), _finish_login),
    }
)
PASSWORD_MECHANISMS = tuple(_MECHANISMS)
