"""Passwords are checked off the event loop, so many at a time, and fairly."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from restante.auth import LoginAttempt
from restante.auth.proven import ProvenPasswords
from restante.auth.schemes import is_cheap
from restante.config.tree import Auth
from restante.errors import TemporaryError
from restante.network import network_of
from restante.processors import ROAMING, roam
from restante.threads import ThreadPool, finished

T = TypeVar("T")
Verify = Callable[[str, str | None, str | None], bool]


class HashingBusy(TemporaryError):
    """As many logins wait as ``auth.hashing_queue`` allows, or no thread can be started."""


class Turns:
    """One network, or one account, has so many things done at once, and queues behind itself."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._queues: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn; a name for which nobody wants one any more is forgotten."""
        turns = self._queues.setdefault(name, asyncio.Semaphore(self._at_once))
        self._users[name] += 1
        try:
            async with turns:
                yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._queues[name]


class Hashing:
    """The threads of one process.

    A network keeps as many of them busy as there are, and queues behind itself: so one that asks
    for hundreds of logins at once leaves room for everybody else's.
    """

    def __init__(
        self,
        settings: Auth,
        verify_password: Verify,
        proven: ProvenPasswords | None,
    ) -> None:
        """``proven``: what need not be hashed; None: each password is."""
        self._verify = verify_password
        self._proven = proven
        self._waiting = settings.hashing_queue
        self._pool = ThreadPool(settings.hashing_threads, ROAMING + "hashing", initializer=roam)
        self._room = threading.BoundedSemaphore(settings.hashing_threads + settings.hashing_queue)
        self._turns = Turns(settings.hashing_threads)

    async def matches(self, attempt: LoginAttempt, stored: str | None, kind: str | None) -> bool:
        """Whether the password is that of a stored hash; raises UnknownScheme and HashingBusy."""
        if stored is None or is_cheap(stored, kind):
            return self._verify(attempt.password, stored, kind)
        password, proven = attempt.password, self._proven
        if proven is not None and proven.has(password, stored, kind):
            return True
        good = await self.run(attempt.peer, partial(self._verify, password, stored, kind))
        if good and proven is not None:
            proven.add(password, stored, kind)
        return good

    async def run(self, peer: str, work: Callable[[], T]) -> T:
        """What ``work`` comes to, when it is the peer's turn; raises HashingBusy."""
        async with self._turns.of(network_of(peer).narrow):
            return await self._in_thread(work)

    async def close(self) -> None:
        """Let what is being checked be finished, drop what waits, and stop."""
        await finished(partial(self._pool.shutdown, wait=True, cancel_futures=True))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise HashingBusy(f"{self._waiting} logins wait already")
        try:
            job = self._pool.submit(work)
        except RuntimeError as error:
            self._room.release()
            raise HashingBusy(str(error)) from error
        # The place is given back when the thread is done, even if nobody waits any more.
        job.add_done_callback(self._give_back)
        return await asyncio.wrap_future(job)

    def _give_back(self, _job: Future[Any]) -> None:
        self._room.release()
