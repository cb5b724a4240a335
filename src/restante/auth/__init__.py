"""Logins (decision 5): the contract between a service with a password and those who check it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from restante.directory import Account


class Refusal(StrEnum):
    """Why a login was refused, for the log; the peer is not told which."""

    UNKNOWN_USER = "unknown user"
    WRONG_PASSWORD = "wrong password"  # noqa: S105 - a reason, not a password
    SYSTEM_ERROR = "system error"
    TOO_MANY_GUESSES = "too many guesses"
    """The password was not looked at."""


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """Who asks, from where, through which service."""

    session: str
    """The connection, for the log."""
    login: str
    password: str
    service: str
    """``pop3``, ``smtp``."""
    peer: str
    """The client's IP address."""

    def __repr__(self) -> str:
        """Without the password: a trace may print this."""
        return f"LoginAttempt({self.login!r}, {self.service!r}, {self.peer!r})"


@dataclass(frozen=True, slots=True)
class Welcome:
    """The login is good."""

    account: Account


@dataclass(frozen=True, slots=True)
class Refused:
    """The login is not good; SYSTEM_ERROR is temporary, the others are not."""

    reason: Refusal


class Authenticator(Protocol):
    """Checks logins and records each of them with its reason."""

    async def login(self, attempt: LoginAttempt) -> Welcome | Refused:
        """Never raises what it foresees: a database that is away is SYSTEM_ERROR."""
        ...
