"""Logins against the directory: hashing off the event loop, bounded, and the same for all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from restante import maillog
from restante.auth import LoginAttempt, Refusal, Refused, ScramAttempt, ScramLogin, Welcome
from restante.auth.schemes import UnknownScheme, is_cheap, verify
from restante.auth.scram import Offer, offer, prepared
from restante.auth.upgrade import PasswordUpgrades
from restante.config.tree import Auth
from restante.directory import Credentials, Directory
from restante.errors import RestanteError, TemporaryError
from restante.guessing import CLEAR, Guard, Standing, Unguarded, delay
from restante.network import network_of

MAX_LOGIN = 320
"""Octets of a login: a local part, ``@``, a domain (RFC 5321 §4.5.3.1). A longer one is unknown."""
MAX_LOGGED_LOGIN = 320
"""Characters of a login in the log."""

UNLIMITED_TURNS = 1000
"""Logins that one network may have at once where nothing limits its guesses."""

T = TypeVar("T")
Verify = Callable[[str, str | None, str | None], bool]
Sleep = Callable[[float], Awaitable[None]]

NOBODY = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4"
    "$bm9ib2R5IGhhcyB0aGlzIQ$bm9ib2R5IGhhcyB0aGlzIQbm9ib2R5IGhhcyB0aGlzIQ"
)
"""What the password of an unknown user is checked against: as dear as a hash that
Restante writes (``schemes.RECOMMENDED``), and of no password anybody knows."""


class HashingBusy(TemporaryError):
    """As many logins wait for a hashing thread as ``auth.hashing_queue`` allows."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The answer to an attempt, and what only the log is told about it."""

    answer: Welcome | Refused
    detail: str = ""
    standing: Standing = CLEAR
    """The guesses that count, which lengthen the delay of a refusal."""


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


class _Turns:
    """One network has so many logins at once, and queues behind itself."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._networks: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, peer: str) -> AsyncIterator[None]:
        """Wait for a turn of the peer's network; one that wants none any more is forgotten."""
        network = network_of(peer).narrow
        turns = self._networks.setdefault(network, asyncio.Semaphore(self._at_once))
        self._users[network] += 1
        try:
            async with turns:
                yield
        finally:
            self._users[network] -= 1
            if not self._users[network]:
                del self._users[network], self._networks[network]


class PasswordAuthenticator:
    """Checks logins against a directory and records each of them.

    Without ``upgrades`` hashes stay as they are; ``scram_secret`` is what salts of SCRAM are
    made of. ``verify_password`` and ``sleep`` are seams for tests.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Auth,
        guard: Guard | None = None,
        upgrades: PasswordUpgrades | None = None,
        scram_secret: bytes = b"",
        *,
        verify_password: Verify = verify,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._guard = guard or Unguarded()
        self._upgrades = upgrades
        self._scram_secret = scram_secret
        self._verify = verify_password
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(settings.hashing_threads, thread_name_prefix="hashing")
        self._room = threading.BoundedSemaphore(settings.hashing_threads + settings.hashing_queue)
        # One network leaves room for everybody else, however many logins it asks for at once,
        # and its guesses at the same moment exceed their limit by no more than the limit.
        self._hashing_turns = _Turns(settings.hashing_threads)
        self._guessing_turns = _Turns(settings.guess_network or UNLIMITED_TURNS)

    async def login(self, attempt: LoginAttempt) -> Welcome | Refused:
        """Whether the attempt is good; never raises what it foresees.

        A refusal is told ``auth.refusal_delay`` seconds after it was asked for, and later where
        there was more guessing (``guessing.delay``); a system error at once.
        """
        return await self._decide(attempt, self._check_password)

    async def scram(self, attempt: ScramAttempt) -> ScramLogin | Refused:
        """Begin a login by SCRAM-SHA-256; refused for a system error alone."""
        claim = LoginAttempt(
            attempt.session, prepared(attempt.login), "", attempt.service, attempt.peer
        )
        offered = await self._safely(self._look_up_offer(claim.login))
        if isinstance(offered, Offer):
            return _ScramLogin(offered.salt, offered.iterations, partial(self._prove, claim))
        self._record(claim, offered)
        return Refused(Refusal.SYSTEM_ERROR)

    async def _prove(self, claim: LoginAttempt, message: bytes, proof: bytes) -> Welcome | Refused:
        # No two proofs of the same wrong password are alike: each of them is one more guess.
        attempt = replace(claim, password=proof.hex())
        return await self._decide(attempt, partial(self._check_proof, message, proof))

    async def _decide(self, attempt: LoginAttempt, check: _Check) -> Welcome | Refused:
        """What comes of an attempt, told when it is due, and recorded."""
        started = time.monotonic()
        async with self._guessing_turns.of(attempt.peer):
            verdict = await self._safely(self._judge(attempt, check))
        self._record(attempt, verdict)
        answer = verdict.answer
        if isinstance(answer, Refused) and answer.reason is not Refusal.SYSTEM_ERROR:
            wait = delay(self._settings.refusal_delay, verdict.standing)
            await self._sleep(max(started + wait - time.monotonic(), 0.0))
        return answer

    async def close(self) -> None:
        """Let the passwords that are being checked be finished, drop those that wait, and stop."""
        if self._upgrades is not None:
            await self._upgrades.close()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

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
        # Whether there is such an account makes no difference to what guessing leads to.
        name = credentials.account.name if credentials is not None else attempt.login
        before = await self._guard.look(name, attempt.peer)
        if before.objection is not None:
            refused = Refused(Refusal.TOO_MANY_GUESSES)
            return _Verdict(refused, str(before.objection), before.standing)
        verdict = await check(attempt, credentials)
        if isinstance(verdict.answer, Welcome):
            await self._guard.right(name, attempt.peer, before)
        elif verdict.answer.reason is not Refusal.SYSTEM_ERROR:
            standing = await self._guard.wrong(name, attempt.peer, attempt.password)
            verdict = replace(verdict, standing=standing)
        return verdict

    async def _check_password(
        self, attempt: LoginAttempt, credentials: Credentials | None
    ) -> _Verdict:
        if credentials is None:
            await self._matches(attempt, NOBODY, None)
            return _Verdict(Refused(Refusal.UNKNOWN_USER))
        account = credentials.account
        try:
            good = await self._matches(attempt, credentials.password, credentials.password_type)
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

    async def _look_up_offer(self, login: str) -> Offer:
        return self._offer(login, await self._credentials(login))

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
        async with self._hashing_turns.of(attempt.peer):
            signature = await self._in_thread(partial(offered.check, message, proof))
        if credentials is None:
            return _Verdict(Refused(Refusal.UNKNOWN_USER))
        if signature is not None:
            return _Verdict(Welcome(credentials.account, signature))
        detail = f"account {credentials.account.name}"
        return _Verdict(
            Refused(Refusal.WRONG_PASSWORD),
            detail if offered.is_possible else f"{detail} has no hash that SCRAM can use",
        )

    async def _credentials(self, login: str) -> Credentials | None:
        return await self._directory.credentials(login) if can_be_login(login) else None

    async def _matches(self, attempt: LoginAttempt, stored: str | None, kind: str | None) -> bool:
        if is_cheap(stored, kind):
            return self._verify(attempt.password, stored, kind)
        async with self._hashing_turns.of(attempt.peer):
            return await self._in_thread(partial(self._verify, attempt.password, stored, kind))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise HashingBusy(f"{self._settings.hashing_queue} logins wait already")
        try:
            job = self._pool.submit(work)
        except RuntimeError:
            self._room.release()
            raise
        # The place is given back when the thread is done, even if nobody waits any more.
        job.add_done_callback(self._give_back)
        return await asyncio.wrap_future(job)

    def _give_back(self, _job: Future[Any]) -> None:
        self._room.release()

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


def _shortened(login: str) -> str:
    return login if len(login) <= MAX_LOGGED_LOGIN else login[:MAX_LOGGED_LOGIN] + "…"


def can_be_login(login: str) -> bool:
    """Whether there can be somebody of that name: UTF-8 without a NUL, and not too long."""
    try:
        octets = login.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(octets) <= MAX_LOGIN and b"\0" not in octets
