"""Logins (decision 5): the contract between a service with a password and those who check it."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """``pop3``, ``smtp``, ``submission``, ``checkpassword``."""
    peer: str
    """The client's IP address."""

    def __repr__(self) -> str:
        """Without the password: a trace may print this."""
        return f"LoginAttempt({self.login!r}, {self.service!r}, {self.peer!r})"


@dataclass(frozen=True, slots=True)
class ScramAttempt:
    """Who means to prove a password without sending it, from where, through which service."""

    session: str
    """The connection, for the log."""
    login: str
    """As it was sent, without SASLprep."""
    service: str
    """As in LoginAttempt."""
    peer: str
    """The client's IP address."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The login is good."""

    account: Account
    signature: bytes = field(default=b"", repr=False)
    """ServerSignature (RFC 5802 §3), where the password was proved by SCRAM-SHA-256."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The login is not good; SYSTEM_ERROR is temporary, the others are not."""

    reason: Refusal


@dataclass(frozen=True, slots=True)
class SystemVerdict:
    """What the files of the system say of a login."""

    account: Account
    is_good: bool
    detail: str = ""
    """Why it is not good, for the log."""


class SystemLogins(Protocol):
    """The passwd and shadow files, for logins that no table knows (decision 5)."""

    async def check(self, attempt: LoginAttempt) -> SystemVerdict | None:
        """None where there is no such user, or one without mail; raises TemporaryError."""
        ...

    async def close(self) -> None:
        """Give back what was opened."""
        ...


class NoSystemLogins:
    """For a site whose accounts are rows alone."""

    async def check(self, attempt: LoginAttempt) -> SystemVerdict | None:
        """None."""

    async def close(self) -> None:
        """Nothing."""


class ScramLogin(Protocol):
    """A login by SCRAM-SHA-256 that has begun."""

    @property
    def salt(self) -> bytes:
        """The account's salt; made up, and always the same, where there is no such account."""
        ...

    @property
    def iterations(self) -> int:
        """How often the password is hashed; as for ``salt``."""
        ...

    async def prove(self, message: bytes, proof: bytes) -> Welcome | Refused:
        """Whether ``proof`` (ClientProof) proves the password for ``message`` (AuthMessage).

        Recorded as any login is; never raises what it foresees.
        """
        ...


class Authenticator(Protocol):
    """Checks logins and records each of them with its reason."""

    async def login(self, attempt: LoginAttempt) -> Welcome | Refused:
        """Never raises what it foresees: a database that is away is SYSTEM_ERROR."""
        ...

    async def scram(self, attempt: ScramAttempt) -> ScramLogin | Refused:
        """Begin a login by SCRAM-SHA-256; refused with SYSTEM_ERROR, or TOO_MANY_GUESSES.

        Somebody unknown, or whose hash does not allow SCRAM, is refused when he proves.
        """
        ...
