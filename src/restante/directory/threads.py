"""Look-ups that block, since they may lie behind a network, in threads beside an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import queue
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from restante.errors import CannotKnow

_T = TypeVar("_T")
_Jobs = queue.SimpleQueue[Callable[[], None] | None]
"""What the threads do; None: there will be no more."""


class Threads:
    """Blocking work in threads that are kept, bounded in number and in time.

    They are daemons: one that hangs keeps nobody from ending. Belongs to one event loop.
    """

    def __init__(self, count: int, patience: float) -> None:
        self._places = asyncio.Semaphore(count)
        self._patience = patience
        self._jobs: _Jobs = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        weakref.finalize(self, self._jobs.put, None)

    async def run(self, what: str, work: Callable[[], _T]) -> _T:
        """The result of ``work``; raises CannotKnow when it takes too long, and what it raises."""
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
                self._hand_out(what, functools.partial(self._do, work, answer))
                return await answer
        except TimeoutError:
            raise CannotKnow(f"{what}: no answer within {self._patience:g} seconds") from None

    def _hand_out(self, what: str, job: Callable[[], None]) -> None:
        if self._busy == self._started:
            try:
                threading.Thread(target=_serve, args=(self._jobs,), daemon=True).start()
            except RuntimeError as error:
                self._places.release()
                raise CannotKnow(f"{what}: {error}") from error
            self._started += 1
        self._busy += 1
        self._jobs.put(job)

    def _do(self, work: Callable[[], _T], answer: asyncio.Future[_T]) -> None:
        """In a thread. A loop that has ended meanwhile wants no answer any more."""
        done: concurrent.futures.Future[_T] = concurrent.futures.Future()
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            done.set_exception(error)
        with contextlib.suppress(RuntimeError):
            answer.get_loop().call_soon_threadsafe(self._settle, done, answer)

    def _settle(self, done: concurrent.futures.Future[_T], answer: asyncio.Future[_T]) -> None:
        self._busy -= 1
        self._places.release()
        if answer.done():
            return
        if error := done.exception():
            answer.set_exception(error)
        else:
            answer.set_result(done.result())


def _serve(jobs: _Jobs) -> None:
    """A thread's life: it ends when there is nobody left to give it work."""
    while job := jobs.get():
        job()
        # Whoever gave the work is to be forgotten while there is none.
        del job
    jobs.put(None)
