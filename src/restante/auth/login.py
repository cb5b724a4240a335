"""Logins against the directory: hashing off the event loop, bounded, and the same for all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from restante import maillog
from restante.auth import LoginAttempt, Refusal, Refused, Welcome
from restante.auth.schemes import is_cheap, verify
from restante.auth.upgrade import PasswordUpgrades
from restante.config.tree import Auth
from restante.directory import Credentials, Directory
from restante.errors import RestanteError, TemporaryError

MAX_LOGIN = 320
"""Octets of a login: a local part, ``@``, a domain (RFC 5321 §4.5.3.1). A longer one is unknown."""
MAX_LOGGED_LOGIN = 320
"""Characters of a login in the log."""

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


class _Turns:
    """One peer keeps as many hashing threads busy as there are, and queues behind itself.

    So a peer that asks for hundreds of logins at once leaves room for everybody else's.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._peers: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, peer: str) -> AsyncIterator[None]:
        """Wait for one of the peer's turns; a peer that wants none any more is forgotten."""
        turns = self._peers.setdefault(peer, asyncio.Semaphore(self._at_once))
        self._users[peer] += 1
        try:
            async with turns:
                yield
        finally:
            self._users[peer] -= 1
            if not self._users[peer]:
                del self._users[peer], self._peers[peer]


class PasswordAuthenticator:
    """Checks logins against a directory and records each of them.

    Without ``upgrades`` hashes stay as they are. ``verify_password`` and ``sleep`` are seams
    for tests.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Auth,
        upgrades: PasswordUpgrades | None = None,
        *,
        verify_password: Verify = verify,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._upgrades = upgrades
        self._verify = verify_password
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(settings.hashing_threads, thread_name_prefix="hashing")
        self._room = threading.BoundedSemaphore(settings.hashing_threads + settings.hashing_queue)
        self._turns = _Turns(settings.hashing_threads)

    async def login(self, attempt: LoginAttempt) -> Welcome | Refused:
        """Whether the attempt is good; never raises what it foresees.

        A wrong password and an unknown user are told ``auth.refusal_delay`` seconds after
        they were asked for, a system error at once.
        """
        started = time.monotonic()
        verdict = await self._judge_safely(attempt)
        self._record(attempt, verdict)
        answer = verdict.answer
        if isinstance(answer, Refused) and answer.reason is not Refusal.SYSTEM_ERROR:
            left = started + self._settings.refusal_delay - time.monotonic()
            await self._sleep(max(left, 0.0))
        return answer

    async def close(self) -> None:
        """Let the passwords that are being checked be finished, drop those that wait, and stop."""
        if self._upgrades is not None:
            await self._upgrades.close()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def _judge_safely(self, attempt: LoginAttempt) -> _Verdict:
        try:
            return await self._judge(attempt)
        except RestanteError as error:
            return _Verdict(Refused(Refusal.SYSTEM_ERROR), str(error))
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is temporary
            maillog.unplanned("auth", error)
            return _Verdict(Refused(Refusal.SYSTEM_ERROR), "unplanned")

    async def _judge(self, attempt: LoginAttempt) -> _Verdict:
        credentials = await self._credentials(attempt.login)
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

    async def _credentials(self, login: str) -> Credentials | None:
        if not login or "\0" in login or len(login.encode("utf-8", "replace")) > MAX_LOGIN:
            return None
        return await self._directory.credentials(login)

    async def _matches(self, attempt: LoginAttempt, stored: str | None, kind: str | None) -> bool:
        if is_cheap(stored, kind):
            return self._verify(attempt.password, stored, kind)
        async with self._turns.of(attempt.peer):
            return await self._in_thread(attempt.password, stored, kind)

    async def _in_thread(self, password: str, stored: str | None, kind: str | None) -> bool:
        if not self._room.acquire(blocking=False):
            raise HashingBusy(f"{self._settings.hashing_queue} logins wait already")
        try:
            job = self._pool.submit(self._verify, password, stored, kind)
        except RuntimeError:
            self._room.release()
            raise
        # The place is given back when the thread is done, even if nobody waits any more.
        job.add_done_callback(self._give_back)
        return await asyncio.wrap_future(job)

    def _give_back(self, _job: Future[bool]) -> None:
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
