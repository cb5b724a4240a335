"""Logins against the directory: hashing off the event loop, bounded, and the same for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from restante import maillog
from restante.address import fold
from restante.auth import (
    LoginAttempt,
    NoSystemLogins,
    Refusal,
    Refused,
    ScramAttempt,
    ScramLogin,
    SystemLogins,
    Welcome,
)
from restante.auth.hashing import Hashing, Turns, Verify
from restante.auth.proven import ProvenPasswords
from restante.auth.schemes import UnknownScheme, verify
from restante.auth.scram import Offer, offer, prepared
from restante.auth.upgrade import PasswordUpgrades
from restante.config.tree import Auth
from restante.directory import Account, Credentials, Directory
from restante.errors import RestanteError
from restante.guessing import CLEAR, Guard, Objection, Standing, delay
from restante.labels import name_in_a_labels
from restante.network import network_of

MAX_LOGIN = 320
"""Octets of a login: a local part, ``@``, a domain (RFC 5321 §4.5.3.1). A longer one is unknown."""
MAX_LOGGED_LOGIN = 320
"""Characters of a login in the log."""

UNLIMITED_TURNS = 1000
"""Logins that one network may have at once where nothing limits its guesses."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

NOBODY = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4"
    "$bm9ib2R5IGhhcyB0aGlzIQ$bm9ib2R5IGhhcyB0aGlzIQbm9ib2R5IGhhcyB0aGlzIQ"
)
"""What the password of an unknown user is checked against: as dear as a hash that
Restante writes (``schemes.RECOMMENDED``), and of no password anybody knows."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The answer to an attempt, and what only the log is told about it."""

    answer: Welcome | Refused
    detail: str = ""
    standing: Standing = CLEAR
    """The guesses that count, which lengthen the delay of a refusal."""
    is_seen: bool = True
    """The password was; a proof of SCRAM hides it."""


_Check = Callable[[LoginAttempt, Credentials | None], Awaitable[_Verdict]]
_Prove = Callable[[bytes, bytes], Awaitable[Welcome | Refused]]


@dataclass(frozen=True, slots=True)
class _ScramLogin:
    """What was offered, and who judges the proof; see ScramLogin."""

    salt: bytes
    iterations: int
    judge: _Prove

    async def prove(self, message: bytes, proof: bytes) -> Welcome | Refused:
        return await self.judge(message, proof)


class PasswordAuthenticator:
    """Checks logins against a directory and records each of them.

    Without ``upgrades`` hashes stay as they are; ``scram_secret`` is what salts of SCRAM are
    made of; ``system`` is asked where the directory knows nobody; ``proven`` has the passwords
    that need not be hashed again. ``verify_password`` and ``sleep`` are seams for tests.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Auth,
        guard: Guard,
        upgrades: PasswordUpgrades | None = None,
        scram_secret: bytes = b"",
        system: SystemLogins | None = None,
        proven: ProvenPasswords | None = None,
        *,
        verify_password: Verify = verify,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._guard = guard
        self._upgrades = upgrades
        self._scram_secret = scram_secret
        self._system = system or NoSystemLogins()
        self._sleep = sleep
        self._hashing = Hashing(settings, verify_password, proven)
        # Guesses of one network at the same moment exceed their limit by no more than the limit,
        # those at one account by what the threads for hashing can do at once anyway.
        self._networks = Turns(settings.guess_network or UNLIMITED_TURNS)
        self._accounts = Turns(settings.hashing_threads)

    async def login(self, attempt: LoginAttempt) -> Welcome | Refused:
        """Whether the attempt is good; never raises what it foresees.

        A refusal is told ``auth.refusal_delay`` seconds after it was asked for, and later where
        there was more guessing (``guessing.delay``); a system error at once.
        """
        return await self._decide(attempt, self._check_password)

    async def scram(self, attempt: ScramAttempt) -> ScramLogin | Refused:
        """Begin a login by SCRAM-SHA-256, by the same steps whether there is such an account."""
        started = time.monotonic()
        claim = LoginAttempt(
            attempt.session, prepared(attempt.login), "", attempt.service, attempt.peer
        )
        async with self._networks.of(network_of(claim.peer).narrow):
            offered = await self._safely(self._look_up_offer(claim))
        if isinstance(offered, Offer):
            return _ScramLogin(offered.salt, offered.iterations, partial(self._prove, claim))
        await self._conclude(claim, offered, started)
        assert isinstance(offered.answer, Refused), "nothing is proved yet"
        return offered.answer

    async def _prove(self, claim: LoginAttempt, message: bytes, proof: bytes) -> Welcome | Refused:
        return await self._decide(claim, partial(self._check_proof, message, proof))

    async def _decide(self, attempt: LoginAttempt, check: _Check) -> Welcome | Refused:
        """What comes of an attempt, told when it is due, and recorded."""
        started = time.monotonic()
        async with self._networks.of(network_of(attempt.peer).narrow):
            verdict = await self._safely(self._judge(attempt, check))
        await self._conclude(attempt, verdict, started)
        return verdict.answer

    async def _conclude(self, attempt: LoginAttempt, verdict: _Verdict, started: float) -> None:
        """Record what came of an attempt, and wait until that may be told."""
        self._record(attempt, verdict)
        answer = verdict.answer
        if isinstance(answer, Refused) and answer.reason is not Refusal.SYSTEM_ERROR:
            wait = delay(self._settings.refusal_delay, verdict.standing)
            await self._sleep(max(started + wait - time.monotonic(), 0.0))

    async def close(self) -> None:
        """Let the passwords that are being checked be finished, drop those that wait, and stop."""
        if self._upgrades is not None:
            await self._upgrades.close()
        await self._hashing.close()

    async def _safely(self, work: Awaitable[T]) -> T | _Verdict:
        """What comes of ``work``; a system error where it fails."""
        try:
            return await work
        except RestanteError as error:
            return _Verdict(Refused(Refusal.SYSTEM_ERROR), str(error))
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is temporary
            maillog.unplanned("auth", error)
            return _Verdict(Refused(Refusal.SYSTEM_ERROR), "unplanned")

    async def _judge(self, attempt: LoginAttempt, check: _Check) -> _Verdict:
        credentials = await self._credentials(attempt.login)
        name = _counted_name(attempt.login, credentials)
        async with self._accounts.of(fold(name)):
            return await self._judge_account(name, attempt, credentials, check)

    async def _judge_account(
        self, name: str, attempt: LoginAttempt, credentials: Credentials | None, check: _Check
    ) -> _Verdict:
        before = await self._guard.look(name, attempt.peer)
        if before.objection is not None:
            return _refused_unseen(before.objection, before.standing)
        verdict = await check(attempt, credentials)
        if isinstance(verdict.answer, Welcome):
            await self._guard.right(name, attempt.peer, before)
        elif verdict.answer.reason is not Refusal.SYSTEM_ERROR:
            seen = attempt.password if verdict.is_seen else None
            standing = await self._guard.wrong(name, attempt.peer, seen)
            verdict = replace(verdict, standing=standing)
        return verdict

    async def _check_password(
        self, attempt: LoginAttempt, credentials: Credentials | None
    ) -> _Verdict:
        if credentials is None:
            return await self._check_system(attempt)
        account = credentials.account
        try:
            good = await self._hashing.matches(
                attempt, credentials.password, credentials.password_type
            )
        except RestanteError as error:
            return _Verdict(Refused(Refusal.SYSTEM_ERROR), f"account {account.name}: {error}")
        if good:
            if self._upgrades is not None:
                self._upgrades.offer(credentials, attempt.password)
            return _Verdict(Welcome(account))
        detail = f"account {account.name}"
        return _Verdict(
            Refused(Refusal.WRONG_PASSWORD),
            detail if credentials.password else f"{detail} has no password",
        )

    async def _check_system(self, attempt: LoginAttempt) -> _Verdict:
        found = await self._system.check(attempt) if can_be_login(attempt.login) else None
        if found is None:
            await self._hashing.matches(attempt, NOBODY, None)
            return _Verdict(Refused(Refusal.UNKNOWN_USER))
        if found.is_good:
            return _Verdict(Welcome(found.account))
        return _Verdict(Refused(Refusal.WRONG_PASSWORD), found.detail)

    async def _look_up_offer(self, claim: LoginAttempt) -> Offer | _Verdict:
        credentials = await self._credentials(claim.login, in_full=True)
        before = await self._guard.look(_counted_name(claim.login, credentials), claim.peer)
        if before.objection is not None:
            return _refused_unseen(before.objection, before.standing)
        return self._offer(claim.login, credentials)

    def _offer(self, login: str, credentials: Credentials | None) -> Offer:
        try:
            return offer(credentials, login, self._scram_secret)
        except UnknownScheme as error:
            assert credentials is not None
            raise UnknownScheme(f"account {credentials.account.name}: {error}") from None

    async def _check_proof(
        self, message: bytes, proof: bytes, attempt: LoginAttempt, credentials: Credentials | None
    ) -> _Verdict:
        offered = self._offer(attempt.login, credentials)
        signature = await self._hashing.run(attempt.peer, partial(offered.check, message, proof))
        if credentials is None:
            return _Verdict(Refused(Refusal.UNKNOWN_USER), is_seen=False)
        if signature is not None:
            return _Verdict(Welcome(credentials.account, signature))
        detail = f"account {credentials.account.name}"
        return _Verdict(
            Refused(Refusal.WRONG_PASSWORD),
            detail if offered.is_possible else f"{detail} has no hash that SCRAM can use",
            is_seen=False,
        )

    async def _credentials(self, login: str, *, in_full: bool = False) -> Credentials | None:
        if not can_be_login(login):
            return None
        return await self._directory.credentials(login, in_full=in_full)

    def _record(self, attempt: LoginAttempt, verdict: _Verdict) -> None:
        if not self._settings.log_logins:
            return
        login, answer = _shortened(attempt.login), verdict.answer
        if isinstance(answer, Welcome):
            maillog.login(
                attempt.session, attempt.service, attempt.peer, login, answer.account.name
            )
        else:
            reason = answer.reason.value
            maillog.login_refused(
                attempt.session, attempt.service, attempt.peer, login, reason, verdict.detail
            )


def _counted_name(login: str, credentials: Credentials | None) -> str:
    """For whom guesses count: whether there is such an account makes no difference to them."""
    return credentials.account.name if credentials else name_in_a_labels(login)


def _refused_unseen(objection: Objection, standing: Standing) -> _Verdict:
    return _Verdict(Refused(Refusal.TOO_MANY_GUESSES), str(objection), standing)


def _shortened(login: str) -> str:
    return login if len(login) <= MAX_LOGGED_LOGIN else login[:MAX_LOGGED_LOGIN] + "…"


async def account_named(login: str, directory: Directory) -> Account | None:
    """Whose login it is, whatever the password; raises CannotKnow and BadRow."""
    if not can_be_login(login):
        return None
    credentials = await directory.credentials(login)
    return credentials.account if credentials else await directory.system_user(login)


def can_be_login(login: str) -> bool:
    """Whether there can be somebody of that name: UTF-8 without a NUL, and not too long."""
    try:
        octets = login.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(octets) <= MAX_LOGIN and b"\0" not in octets
