"""Who asks a shared file for one process: a thread, many questions in one commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from restante.errors import TemporaryError
from restante.threads import finished

FORGET_INTERVAL = 3600.0
"""Seconds between two removals of what nobody asks for any more."""


class Book(Protocol):
    """A shared file of some kind."""

    def transaction(self) -> AbstractContextManager[None]:
        """All that is done inside is done at once or not at all."""
        ...

    def forget_old(self, now: float) -> None:
        """Remove what nobody asks for any more."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


B = TypeVar("B", bound=Book)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job(Generic[B]):
    work: Callable[[B], Any]
    done: Future[Any]
    now: float


class Clerk(Generic[B]):
    """Does what is asked with a book, in a thread of its own.

    The book is opened when it is first needed, and again after a failure, so that it mends
    itself once the operator has mended the disk.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], B],
        unusable: Callable[[str], TemporaryError],
        failed: Callable[[str], None],
    ) -> None:
        """``opened`` makes a book, or raises what ``unusable`` makes.

        ``failed`` is told once when a TemporaryError begins.
        """
        self._open = opened
        self._unusable = unusable
        self._tell = failed
        self._book: B | None = None
        self._failing = False
        self._waiting: deque[_Job[B]] = deque()
        self._forgot = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def ask(self, work: Callable[[B], T], now: float) -> T:
        """What ``work`` answers; raises what it raises, and what opening the book does."""
        job = _Job(work, Future(), now)
        self._waiting.append(job)
        # Whichever turn of the thread comes first does all that waits; later ones find nothing.
        try:
            self._thread.submit(self._turn)
        except RuntimeError as error:  # no thread can be started
            if job.done.cancel():  # or else a turn has begun it meanwhile
                why = self._unusable(str(error))
                self._note(why)
                raise why from error
        answer: T = await asyncio.wrap_future(job.done)
        return answer

    async def close(self) -> None:
        """Finish what was asked, and close the book."""
        await finished(self._thread.shutdown)
        if self._book is not None:
            self._book.close()

    # In the thread

    def _turn(self) -> None:
        jobs = []
        while self._waiting:
            jobs.append(self._waiting.popleft())
        jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            answers = self._answers(jobs)
        except Exception as error:  # noqa: BLE001 - whoever asked learns of it, bugs included
            self._failed(error)
            for job in jobs:
                job.done.set_exception(error)
            return
        self._failing = False
        for job, answer in zip(jobs, answers, strict=True):
            job.done.set_result(answer)

    def _answers(self, jobs: list[_Job[B]]) -> list[Any]:
        if self._book is None:
            self._book = self._open()
        book = self._book
        with book.transaction():
            self._forget_old(book, jobs[-1].now)
            return [job.work(book) for job in jobs]

    def _forget_old(self, book: B, now: float) -> None:
        if abs(now - self._forgot) >= FORGET_INTERVAL:
            book.forget_old(now)
            self._forgot = now

    def _failed(self, error: Exception) -> None:
        """Say so once, and open the book anew the next time."""
        if self._book is not None:
            self._book.close()
            self._book = None
        self._note(error)

    def _note(self, error: Exception) -> None:
        if isinstance(error, TemporaryError) and not self._failing:
            self._tell(str(error))
        self._failing = True
