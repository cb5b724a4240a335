"""Group commit: concurrent operations share one transaction and one fsync."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from restante.queue import QueueFailed
from restante.threads import NoThread

MAX_BATCH = 1000
"""Operations in one transaction."""

T = TypeVar("T")
Item = TypeVar("Item")
Operation = Callable[[sqlite3.Connection], T]
Bulk = Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]]
"""One operation on many items at once, with a result for each: fewer statements do it.

Each statement costs the thread the interpreter's lock twice. If it raises, it is undone and
called again with one item after another.
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    bulk: Bulk[Any, Any] | None
    """None: the item is an operation."""
    item: Any
    future: asyncio.Future[Any]
    then: Callable[[Any], Any] | None

    def run(self, connection: sqlite3.Connection) -> Any:
        if self.bulk is None:
            return self.item(connection)
        return self.bulk(connection, (self.item,))[0]


@dataclass(frozen=True, slots=True)
class _Done:
    job: _Job
    result: Any
    error: Exception | None


class GroupWriter:
    """A thread that runs operations on one connection, all that wait in one transaction.

    An operation that raises is undone by itself; the others of its transaction stand.
    All callers share one event loop.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Raises NoThread."""
        self._connection = connection
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise NoThread(str(error)) from error

    def submit(
        self, operation: Operation[T], then: Callable[[T], None] | None = None
    ) -> asyncio.Future[T]:
        """The operation's result once it is durable; raises what it raised, or QueueFailed.

        ``then`` is called on the event loop when the result is durable, before anybody who
        waits goes on, and also if nobody does; in the order in which the operations were done.
        """
        return self._put(None, operation, then)

    def submit_item(
        self, bulk: Bulk[Item, T], item: Item, then: Callable[[T], None]
    ) -> asyncio.Future[T]:
        """As ``submit``; with it is done what waits for the same ``bulk``, in whatever order."""
        return self._put(bulk, item, then)

    def _put(
        self, bulk: Bulk[Any, Any] | None, item: object, then: Callable[[Any], Any] | None
    ) -> asyncio.Future[Any]:
        if self._closed:
            raise QueueFailed("the queue is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(bulk, item, future, then))
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
            result = job.run(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is the caller's to deal with
            self._roll_back()
            return _Done(job, None, _foreseen(error))
        return _Done(job, result, None)

    def _commit(self, jobs: Sequence[_Job]) -> list[_Done]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            done = [each for alike in _alike(jobs) for each in self._perform_all(alike)]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread outlives its bugs
            self._roll_back()
            failed = _foreseen(error)
            return [_Done(job, None, failed) for job in jobs]
        return done

    def _perform_all(self, jobs: Sequence[_Job]) -> list[_Done]:
        """Jobs of the same bulk operation, all at once if that can be done; or one of any kind."""
        bulk = jobs[0].bulk
        if bulk is not None and len(jobs) > 1:
            items = [job.item for job in jobs]
            results = self._perform(lambda connection: bulk(connection, items))
            if not isinstance(results, Exception):
                pairs = zip(jobs, results, strict=True)
                return [_Done(job, result, None) for job, result in pairs]
        return [self._perform_one(job) for job in jobs]

    def _perform_one(self, job: _Job) -> _Done:
        result = self._perform(job.run)
        if isinstance(result, Exception):
            return _Done(job, None, _foreseen(result))
        return _Done(job, result, None)

    def _perform(self, operation: Operation[T]) -> T | Exception:
        """What it answers, or with what it failed, having been undone."""
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation(self._connection)
        except Exception as error:
            if not self._connection.in_transaction:  # SQLite undid the operations before it too
                raise sqlite3.OperationalError(str(error)) from error
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return error
        self._connection.execute("RELEASE operation")
        return result

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # its first error is the one that is told
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _alike(jobs: Iterable[_Job]) -> list[list[_Job]]:
    """Those of each bulk operation together, every other by itself; by who came first."""
    groups: dict[_Job | Bulk[Any, Any], list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job if job.bulk is None else job.bulk, []).append(job)
    return list(groups.values())


def _foreseen(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error):
        return QueueFailed(f"the queue's database failed: {error}")
    return error


def _resolve(done: list[_Done]) -> None:
    try:
        done[0].job.future.get_loop().call_soon_threadsafe(_settle, done)
    except RuntimeError:  # the loop is gone, and with it everybody who waited
        return


def _settle(done: list[_Done]) -> None:
    for each in done:
        future, error = each.job.future, each.error
        if error is None and each.job.then is not None:
            try:
                each.job.then(each.result)
            except Exception as unplanned:  # noqa: BLE001 - one must not spoil the others
                error = unplanned
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(each.result)
