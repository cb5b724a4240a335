"""A login by SCRAM, between a core that speaks it and the authenticator that has the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from restante.auth import Authenticator, Refusal, Refused, ScramAttempt, ScramLogin
from restante.directory import Account
from restante.protocol.sasl import ScramBegun, ScramProof


class ScramCore(Protocol):
    """The core of SMTP or of POP3."""

    def scram_salt(self, salt: bytes, iterations: int) -> None:
        """Answer ScramBegun."""
        ...

    def scram_signature(self, signature: bytes) -> None:
        """Answer ScramProof."""
        ...


class Scram:
    """All logins by SCRAM of one session, one after another."""

    __slots__ = ("_account", "_authenticator", "_core", "_login", "_peer", "_service", "_session")

    def __init__(
        self, authenticator: Authenticator, core: ScramCore, session: str, service: str, peer: str
    ) -> None:
        self._authenticator = authenticator
        self._core = core
        self._session = session
        self._service = service
        self._peer = peer
        self._login: ScramLogin | None = None
        self._account: Account | None = None

    async def step(self, event: ScramBegun | ScramProof, refuse: Callable[[Refusal], None]) -> None:
        """Answer the event, by ``refuse`` where there is a reason to."""
        refused = await (
            self._begin(event) if isinstance(event, ScramBegun) else self._prove(event)
        )
        if refused is not None:
            refuse(refused)

    @property
    def account(self) -> Account:
        """Whose password was proved last; for ScramDone."""
        assert self._account is not None, "nothing was proved"
        return self._account

    async def _begin(self, event: ScramBegun) -> Refusal | None:
        self._account = None
        attempt = ScramAttempt(self._session, event.login, self._service, self._peer)
        begun = await self._authenticator.scram(attempt)
        if isinstance(begun, Refused):
            return begun.reason
        self._login = begun
        self._core.scram_salt(begun.salt, begun.iterations)
        return None

    async def _prove(self, event: ScramProof) -> Refusal | None:
        assert self._login is not None, "nobody has begun"
        login, self._login = self._login, None
        answer = await login.prove(event.message, event.proof)
        if isinstance(answer, Refused):
            return answer.reason
        self._account = answer.account
        self._core.scram_signature(answer.signature)
        return None
