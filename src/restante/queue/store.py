"""The durable queue of one worker: one SQLite database, large bodies next to it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

from restante import maillog
from restante.envelope import Content, Envelope
from restante.queue import (
    DuplicateMessage,
    QueuedMessage,
    QueueFailed,
    QueueFull,
    QueueUnusable,
    Submission,
    Target,
    rows,
)
from restante.queue.bodies import IN_ROW, Bodies, make_durable_directory, read_small
from restante.queue.rows import Result
from restante.queue.schema import BODIES, begin_life, connect_reader, connect_writer
from restante.queue.writer import GroupWriter

RECIPIENTS_PER_ATTEMPT = 1000
"""Recipients of one message that are tried together; the others follow at once."""
FILE_THREADS = 4
"""Large bodies that are made durable at the same time."""

T = TypeVar("T")


class QueueStore:
    """Messages that wait, and what is known of their recipients.

    Used from one event loop; nothing of it blocks the loop. One process at a time
    has the queue. A message that ``due`` has handed out is in flight, and not handed
    out again, until ``record`` is told what became of it or the process ends.
    """

    def __init__(self, directory: str, max_waiting: int, lock: IO[bytes]) -> None:
        self._directory = directory
        self._max_waiting = max_waiting
        self._lock = lock
        self._bodies = Bodies(os.path.join(directory, BODIES))
        connection = connect_writer(directory)
        self._life, self._waiting = self._recover(connection)
        self._reading = connect_reader(directory)
        self._writer = GroupWriter(connection)
        self._reader = ThreadPoolExecutor(1, "queue-reader")
        self._files = ThreadPoolExecutor(FILE_THREADS, "queue-files")
        self._in_flight: set[str] = set()
        self._handing_out = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchers: list[Callable[[], None]] = []

    @classmethod
    def open(cls, root: str, slot: int, max_waiting: int = 0) -> QueueStore:
        """The queue ``root/slot``, made if need be; blocks. Raises QueueUnusable.

        ``max_waiting``: messages at which ``add`` refuses; 0: no limit.
        """
        directory = os.path.join(os.path.abspath(root), str(slot))
        try:
            lock = _lock(directory)
            make_durable_directory(os.path.join(directory, BODIES))
        except OSError as error:
            raise QueueUnusable(f"the queue {directory} cannot be opened: {error}") from error
        try:
            store = cls(directory, max_waiting, lock)
        except BaseException:
            lock.close()
            raise
        maillog.queue_opened(directory, store.waiting)
        return store

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return self._waiting

    @property
    def directory(self) -> str:
        """Where the queue lies."""
        return self._directory

    def watch(self, arrived: Callable[[], None]) -> None:
        """Have ``arrived`` called whenever a message has been queued."""
        self._watchers.append(arrived)

    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        """Queue a message, due at once; durable on return.

        Raises QueueFull, DuplicateMessage, or QueueFailed with nothing half done. If
        the caller is cancelled, the message may be queued all the same.
        """
        if self._max_waiting and self._waiting >= self._max_waiting:
            raise QueueFull(f"{self._waiting} messages wait in the queue")
        submission = Submission(envelope, content, tuple(targets))
        await self._finish(self._add(submission))

    async def due(self, now: float, limit: int) -> list[QueuedMessage]:
        """At most ``limit`` messages that are due, longest due first; they are in flight then.

        Raises QueueFailed.
        """
        async with self._handing_out:
            skip = frozenset(self._in_flight)
            messages = await self._read(lambda connection: self._due(connection, now, limit, skip))
            self._in_flight.update(message.envelope.queue_id for message in messages)
        return messages

    async def next_due(self) -> float | None:
        """When the next message is due that is not in flight; raises QueueFailed."""
        skip = frozenset(self._in_flight)
        return await self._read(lambda connection: rows.next_due(connection, skip))

    async def record(
        self, envelope: Envelope, results: Sequence[Result], reports: Sequence[Submission] = ()
    ) -> bool:
        """Record an attempt and queue the reports it called for, both or neither.

        Durable on return. True if nothing of the message waits any more: it is gone then. Raises
        QueueFailed (the message stays in flight: call again), and
        rows.IllegalTransition for results that cannot be.
        """
        return await self._finish(self._record(envelope, results, reports))

    async def close(self) -> None:
        """Finish what was begun and let another process have the queue."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._close)

    async def remove(self) -> None:
        """Close a queue that gets no more mail, and remove it from disk if it is empty."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        self._close_files()
        if self._waiting == 0:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._lock.close()

    def _close(self) -> None:
        self._close_files()
        self._lock.close()

    def _close_files(self) -> None:
        self._writer.close()
        self._reader.shutdown()
        self._files.shutdown()
        self._reading.close()

    def _recover(self, connection: sqlite3.Connection) -> tuple[int, int]:
        try:
            life = begin_life(connection)
            self._bodies.clean(lambda queue_id: rows.exists(connection, queue_id))
            waiting = rows.count_messages(connection)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise QueueUnusable(f"the queue {self._directory} is damaged: {error}") from error
        return life, waiting

    async def _add(self, submission: Submission) -> None:
        async with self._kept_bodies([submission]) as bodies:
            await self._writer.submit(lambda connection: self._insert(connection, bodies))
        self._arrived(1)

    async def _record(
        self, envelope: Envelope, results: Sequence[Result], reports: Sequence[Submission]
    ) -> bool:
        def operation(connection: sqlite3.Connection) -> bool:
            for result in results:
                rows.record_result(connection, envelope, result, self._life)
            self._insert(connection, bodies)
            return rows.settle_message(connection, envelope.queue_id)

        async with self._kept_bodies(reports) as bodies:
            finished = await self._writer.submit(operation)
        self._in_flight.discard(envelope.queue_id)
        if finished:
            self._waiting -= 1
            await self._in_files(lambda: self._bodies.discard(envelope.queue_id))
        self._arrived(len(reports))
        return finished

    def _insert(
        self, connection: sqlite3.Connection, bodies: Sequence[tuple[Submission, bytes | None]]
    ) -> None:
        for submission, body in bodies:
            try:
                rows.insert_message(connection, submission, body, self._life)
            except sqlite3.IntegrityError as error:
                queue_id = submission.envelope.queue_id
                raise DuplicateMessage(f"the queue has {queue_id} already") from error

    def _arrived(self, messages: int) -> None:
        self._waiting += messages
        if messages:
            for watcher in self._watchers:
                watcher()

    @contextlib.asynccontextmanager
    async def _kept_bodies(
        self, submissions: Sequence[Submission]
    ) -> AsyncIterator[list[tuple[Submission, bytes | None]]]:
        """The submissions with the bodies that go into their rows; the others are files, durable.

        The files are removed if the rows cannot be written.
        """
        kept: list[tuple[Submission, bytes | None]] = []
        try:
            for submission in submissions:
                kept.append((submission, await self._keep(submission)))  # noqa: PERF401
            yield kept
        except Exception:
            for submission, body in kept:
                if body is None:
                    self._bodies.discard(submission.envelope.queue_id)
            raise

    async def _keep(self, submission: Submission) -> bytes | None:
        content = submission.content
        if content.body_size > IN_ROW:
            await self._in_files(lambda: self._bodies.keep(submission.envelope.queue_id, content))
            return None
        if isinstance(content.body, bytes):
            return content.body
        return await self._in_files(lambda: read_small(content))

    def _due(
        self, connection: sqlite3.Connection, now: float, limit: int, skip: frozenset[str]
    ) -> list[QueuedMessage]:
        found = (
            self._load(connection, queue_id, now)
            for queue_id in rows.due_ids(connection, now, limit, skip)
        )
        return [message for message in found if message is not None]

    def _load(
        self, connection: sqlite3.Connection, queue_id: str, now: float
    ) -> QueuedMessage | None:
        loaded = rows.load_message(connection, queue_id, self._bodies.path(queue_id))
        recipients, again = rows.waiting_recipients(
            connection, queue_id, now, RECIPIENTS_PER_ATTEMPT, self._life
        )
        if loaded is None or not recipients:
            return None
        return QueuedMessage(*loaded, recipients, again)

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reader, _snapshot, self._reading, question)
        except sqlite3.Error as error:
            raise QueueFailed(f"the queue's database failed: {error}") from error

    async def _in_files(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end even if the caller is cancelled: what is half done cannot be told."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case nobody waits for it any more


def _snapshot(connection: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return question(connection)
    finally:
        connection.execute("COMMIT")


def _lock(directory: str) -> IO[bytes]:
    """The lock on the queue in ``directory``, which is made if need be.

    Whoever had it may have removed the queue just before: then it is made again.
    """
    while True:
        make_durable_directory(directory)
        lock = open(os.path.join(directory, "lock"), "ab")  # noqa: SIM115 - held while open
        _hold(lock, directory)
        if os.fstat(lock.fileno()).st_nlink:
            return lock
        lock.close()


def _hold(lock: IO[bytes], directory: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise QueueUnusable(f"another process has the queue {directory}") from error


def queue_slots(root: str) -> frozenset[int]:
    """The queues that lie below ``root``; raises QueueUnusable when nobody can say."""
    try:
        return frozenset(int(name) for name in os.listdir(root) if name.isdecimal())
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise QueueUnusable(f"the queues in {root} cannot be listed: {error.strerror}") from error
