"""The ledger of one worker: the shared file, asked by a thread, many questions in one commit."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from restante import maillog
from restante.usage import Counts, Limits, UsageUnusable
from restante.usage.file import FILE_NAME, UsageFile

FORGET_INTERVAL = 3600.0
"""Seconds between two removals of what no window reaches any more."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[UsageFile], Any]
    done: Future[Any]
    now: float


class UsageLedger:
    """Implements ``restante.usage.Ledger``.

    The file is opened when it is first needed, and again after a failure, so that it mends
    itself once the operator has mended the disk.
    """

    def __init__(self, directory: str) -> None:
        """``directory`` holds the file, or will."""
        self._directory = directory
        self._file: UsageFile | None = None
        self._failing = False
        self._waiting: deque[_Job] = deque()
        self._forgot = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")

    async def spent(self, account: str, now: float) -> Counts:
        """What the account has sent; raises UsageUnusable."""
        return await self._ask(lambda file: file.spent(account, now), now)

    async def take(self, account: str, recipients: int, limits: Limits, now: float) -> str:
        """Count a message, unless that exceeds a limit: then its name; raises UsageUnusable."""
        return await self._ask(lambda file: file.take(account, recipients, limits, now), now)

    async def give_back(self, account: str, recipients: int, taken: float) -> None:
        """Forget a message that was counted at ``taken``; raises UsageUnusable."""
        await self._ask(lambda file: file.give_back(account, recipients, taken), taken)

    async def close(self) -> None:
        """Finish what was asked, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()

    async def _ask(self, work: Callable[[UsageFile], T], now: float) -> T:
        job = _Job(work, Future(), now)
        self._waiting.append(job)
        # Whichever turn of the thread comes first does all that waits; later ones find nothing.
        self._thread.submit(self._turn)
        answer: T = await asyncio.wrap_future(job.done)
        return answer

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

    def _answers(self, jobs: list[_Job]) -> list[Any]:
        file = self._opened()
        with file.transaction():
            self._forget_old(file, jobs[-1].now)
            return [job.work(file) for job in jobs]

    def _opened(self) -> UsageFile:
        if self._file is None:
            path = os.path.join(self._directory, FILE_NAME)
            self._file = UsageFile.open(path, create=True)
        return self._file

    def _forget_old(self, file: UsageFile, now: float) -> None:
        if abs(now - self._forgot) >= FORGET_INTERVAL:
            file.forget_old(now)
            self._forgot = now

    def _failed(self, error: Exception) -> None:
        """Say so once, and open the file anew the next time."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if isinstance(error, UsageUnusable) and not self._failing:
            maillog.usage_failed(str(error))
        self._failing = True
