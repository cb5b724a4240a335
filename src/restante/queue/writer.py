"""Group commit: concurrent operations share one transaction and one fsync."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from restante.queue import QueueFailed

MAX_BATCH = 1000
"""Operations in one transaction."""

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class _Job:
    operation: Operation[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Done:
    future: asyncio.Future[Any]
    result: Any
    error: Exception | None


class GroupWriter:
    """A thread that runs operations on one connection, all that wait in one transaction.

    An operation that raises is undone by itself; the others of its transaction stand.
    All callers share one event loop.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """The operation's result once it is durable; raises what it raised, or QueueFailed."""
        if self._closed:
            raise QueueFailed("the queue is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(operation, future))
        return future

    def close(self) -> None:
        """Finish what was submitted, end the thread, close the connection; blocks until then."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, ending = self._gather(first)
            _resolve([self._commit_one(first)] if len(jobs) == 1 else self._commit(jobs))
            if ending:
                break
        self._connection.close()

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        jobs = [first]
        try:
            while len(jobs) < MAX_BATCH:
                job = self._jobs.get_nowait()
                if job is None:
                    return jobs, True
                jobs.append(job)
        except Empty:
            pass
        return jobs, False

    def _commit_one(self, job: _Job) -> _Done:
        """Where nothing else is to stand, an operation needs no savepoint."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = job.operation(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is the caller's to deal with
            self._roll_back()
            return _Done(job.future, None, _foreseen(error))
        return _Done(job.future, result, None)

    def _commit(self, jobs: Sequence[_Job]) -> list[_Done]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            done = [self._perform(job) for job in jobs]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            failed = QueueFailed(f"the queue's database failed: {error}")
            return [_Done(job.future, None, failed) for job in jobs]
        return done

    def _perform(self, job: _Job) -> _Done:
        self._connection.execute("SAVEPOINT operation")
        try:
            result = job.operation(self._connection)
        except Exception as error:
            if not self._connection.in_transaction:  # SQLite undid the operations before it too
                raise sqlite3.OperationalError(str(error)) from error
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return _Done(job.future, None, _foreseen(error))
        self._connection.execute("RELEASE operation")
        return _Done(job.future, result, None)

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # its first error is the one that is told
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _foreseen(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error):
        return QueueFailed(f"the queue's database failed: {error}")
    return error


def _resolve(done: list[_Done]) -> None:
    try:
        done[0].future.get_loop().call_soon_threadsafe(_settle, done)
    except RuntimeError:  # the loop is gone, and with it everybody who waited
        return


def _settle(done: list[_Done]) -> None:
    for each in done:
        if each.future.done():
            continue
        if each.error is not None:
            each.future.set_exception(each.error)
        else:
            each.future.set_result(each.result)
