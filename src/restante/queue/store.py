"""The durable queue of one worker: one SQLite database, large bodies next to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import IO, Any, TypeVar

from restante import maillog
from restante.envelope import Content, Envelope
from restante.errors import reason_of
from restante.queue import (
    LastAnswer,
    QueuedMessage,
    QueueFailed,
    QueueFull,
    QueueTaken,
    QueueUnusable,
    QueueWithoutRoom,
    Submission,
    Target,
    lanes,
    notices,
    rows,
)
from restante.queue.absence import Attendance
from restante.queue.attempts import Entered, Record, enter
from restante.queue.bodies import IN_ROW, LEFT, Bodies, make_durable_directory, read_small
from restante.queue.handout import Position
from restante.queue.loader import Loader
from restante.queue.room import is_full, lacks_room
from restante.queue.rows import Arrival, Inserted, Result, Settled
from restante.queue.schema import (
    BODIES,
    begin_life,
    connect_reader,
    connect_writer,
    is_damage,
)
from restante.queue.shortcut import Shortcut
from restante.queue.slots import lock_queue, remove_queue
from restante.queue.traffic import Limits, Traffic
from restante.queue.wake import WakeSocket
from restante.queue.work import LaneNews, PendingReport, Recorded, Told, Work
from restante.queue.writer import GroupWriter
from restante.threads import NoThread, ThreadPool, begun, finished

FILE_THREADS = 4
"""Large bodies that are made durable at the same time."""

T = TypeVar("T")


class QueueStore:
    """Messages that wait, and what is known of their recipients.

    Used from one event loop; nothing of it blocks the loop. One process at a time
    has the queue; operators' tools may change its rows, and call at its wake socket. What
    ``due`` has handed out is in flight, and not handed out again, until ``record`` or
    ``tell`` is told what became of it or the process ends.
    """

    def __init__(self, directory: str, max_waiting: int, lock: IO[bytes]) -> None:
        self._directory = directory
        self._max_waiting = max_waiting
        self._lock = lock
        self._bodies = Bodies(os.path.join(directory, BODIES))
        with contextlib.ExitStack() as undoing:
            connection = connect_writer(directory)
            undoing.callback(connection.close)
            self._life, self._waiting = self._recover(connection)
            self._wake = WakeSocket(directory)
            undoing.callback(self._wake.close)
            self._reading = connect_reader(directory)
            undoing.callback(self._reading.close)
            self._writer = GroupWriter(connection)
            undoing.pop_all()
        self._loader = Loader(self._bodies, self._life)
        self._adding = partial(rows.insert_messages, life=self._life)
        self._entering = partial(enter, life=self._life)
        self._reader = ThreadPool(1, "queue-reader")
        self._files = ThreadPool(FILE_THREADS, "queue-files")
        self.attendance = Attendance(directory)
        """When somebody told of a ``look``, in an earlier life perhaps."""
        self._traffic = Traffic()
        self._shortcut = Shortcut()
        self._telling = Counter[str]()
        self._disturbed: set[str] = set()
        self._handing_out = asyncio.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._watchers: list[Callable[[], None]] = []
        self._heeding: list[Callable[[], None]] = []

    @classmethod
    def open(cls, root: str, slot: int, max_waiting: int = 0) -> QueueStore:
        """The queue ``root/slot``, made if need be; blocks.

        ``max_waiting``: messages at which ``add`` refuses; 0: no limit. Raises QueueTaken,
        QueueWithoutRoom, QueueUnusable, or NoThread.
        """
        directory = os.path.join(os.path.abspath(root), str(slot))
        try:
            return cls._opened(directory, max_waiting)
        except QueueTaken:
            raise
        except QueueUnusable as error:
            if is_full(error.__cause__) or lacks_room(directory):
                raise QueueWithoutRoom(str(error)) from error
            raise

    @classmethod
    def _opened(cls, directory: str, max_waiting: int) -> QueueStore:
        try:
            lock = lock_queue(directory)
            make_durable_directory(os.path.join(directory, BODIES))
        except OSError as error:
            raise QueueUnusable(
                f"the queue {directory} cannot be opened: {reason_of(error)}"
            ) from error
        try:
            store = cls(directory, max_waiting, lock)
        except OSError as error:
            lock.close()
            raise QueueUnusable(
                f"the queue {directory} cannot be opened: {reason_of(error)}"
            ) from error
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

    def look(self, now: float) -> None:
        """The queue was looked at; that is noted for later lives, now and then."""
        if self.attendance.look(now):
            self._begin(self._tidy(lambda: self.attendance.keep(now)))

    def watch(self, arrived: Callable[[], None]) -> None:
        """Have ``arrived`` called whenever a message has been queued, or an operator calls."""
        if not self._watchers:
            asyncio.get_running_loop().add_reader(self._wake, self._called)
        self._watchers.append(arrived)

    def heed(self, called: Callable[[], None]) -> None:
        """Have ``called`` called when an operator calls, before ``watch`` tells of it.

        And when nobody has looked at the queue for long: what was known of the world is old.
        """
        self._heeding.append(called)

    async def add(
        self, envelope: Envelope, content: Content, targets: Sequence[Target], taken_from: str = ""
    ) -> None:
        """Queue a message, due at once; durable on return.

        ``taken_from``: the name of a file that it came from, remembered with it until
        ``forget_taken``. Raises QueueFull, DuplicateMessage, or QueueFailed with nothing half
        done. If the caller is cancelled, the message may be queued all the same.
        """
        self._check_room()
        submission = Submission(envelope, content, tuple(targets))
        if isinstance(content.body, bytes) and content.body_size <= IN_ROW:
            await self._kept(self._write(Arrival(submission, content.body, taken_from)))
        else:
            await self._finish(self._add_from_file(submission, taken_from))

    async def add_failed(
        self,
        envelope: Envelope,
        content: Content,
        targets: Sequence[Target],
        failure: LastAnswer,
        taken_from: str = "",
    ) -> bool:
        """Queue a message that is not tried at all: its sender is told. See ``add``.

        Whether it is finished, as nobody wants to be told.
        """
        self._check_room()
        submission = Submission(envelope, content, tuple(targets))
        return await self._finish(self._add_failed(submission, failure, taken_from))

    async def taken(self) -> frozenset[str]:
        """Names of files that messages came from; raises QueueFailed."""
        return await self._read(rows.taken_names)

    async def forget_taken(self, names: Collection[str]) -> None:
        """The files of these names are gone for good; durable on return. Raises QueueFailed."""
        await self._writer.submit(lambda connection: rows.forget_taken(connection, names))

    async def due(self, now: float, limits: Limits) -> Work:
        """What is due and has room within ``limits``, longest due lane first; it is in flight then.

        Raises QueueFailed.
        """
        async with self._handing_out:
            new = self._shortcut.take(now, limits, self._traffic)
            if new is not None:
                return Work(tuple(new), (), self._shortcut.next_due)
            self._disturbed.clear()
            closings = self._shortcut.closings
            view, telling = self._traffic.copy(), self._telling.copy()
            ahead = self._shortcut.ahead
            work, selection, next_ones = await self._read(
                lambda connection: self._loader.due(connection, now, limits, view, telling, ahead)
            )
            for message in work.messages:
                self._traffic.take(message.envelope.queue_id, message.lane)
            for lane in selection.quiet.keys() - self._disturbed:
                self._traffic.rest(lane, selection.quiet[lane])
            self._telling.update(each.message.envelope.queue_id for each in work.reports)
            if not work.reports and self._watchers:
                self._shortcut.open(
                    now, work.next_due, selection, work.messages, next_ones, closings
                )
        if selection.stale:
            # Beside it: what is in flight must reach the caller, whether the disk works or not.
            self._begin(self._settle_lanes(selection.stale, now))
        return work

    async def overdue(
        self,
        lane: str,
        now: float,
        born: tuple[float, float],
        after: Position,
        spared: Sequence[tuple[float, float]] = (),
    ) -> tuple[list[QueuedMessage], Position | None]:
        """Messages that a failure of their lane ends or delays; they are in flight then.

        ``born``, ``spared``: see select_overdue. With them comes from where to go on; None: that
        was all. Raises QueueFailed.
        """
        async with self._handing_out:
            view = self._traffic.copy()
            messages, position = await self._read(
                lambda connection: self._loader.overdue(
                    connection, lane, now, born, after, spared, view
                )
            )
            for message in messages:
                self._traffic.take(message.envelope.queue_id, lane)
            if messages:  # one of them may be at hand too
                self._shortcut.close()
        return messages, position

    async def record(
        self,
        message: QueuedMessage,
        results: Sequence[Result],
        now: float,
        news: LaneNews | None = None,
    ) -> Recorded:
        """Record an attempt, and what it taught about its lane; durable on return.

        What an operator has changed meanwhile is respected (see rows.record_result). Raises
        QueueFailed: nothing is recorded, the message stays in flight; call again.
        """
        record = Record(message, results, now, news)
        if message.content.body_size <= IN_ROW:
            entered = await self._kept(self._enter(record))
        else:
            entered = await self._finish(self._record_of_file(record))
        return Recorded(
            entered.settled is Settled.FINISHED,
            entered.states,
            entered.blocked_until,
            entered.recovered,
        )

    async def tell(self, pending: PendingReport, report: Submission | None, now: float) -> Told:
        """Queue the report of these notices and clear them, both or neither.

        ``report``: None if nobody can be told. Durable on return. Raises QueueFailed: nothing
        is done, the report stays in flight; call again, or ``put_off``.
        """
        return await self._finish(self._tell(pending, report, now))

    async def put_off(self, pending: PendingReport, until: float) -> None:
        """The report cannot be made before ``until``; raises QueueFailed: see ``tell``."""
        queue_id = pending.message.envelope.queue_id

        async def work() -> None:
            await self._writer.submit(
                lambda connection: notices.put_off(connection, queue_id, until)
            )
            self._told(queue_id)
            self._shortcut.close()

        await self._finish(work())

    async def too_far_ahead(self, now: float, ahead: float = 0.0) -> float:
        """See lanes.too_far_ahead; raises QueueFailed."""
        return await self._read(lambda connection: lanes.too_far_ahead(connection, now, ahead))

    async def bring_forward(self, seconds: float, now: float) -> None:
        """The time of day was set back to ``now``, by ``seconds``: nobody waits for it to return.

        Durable on return; raises QueueFailed.
        """
        await self._writer.submit(lambda connection: lanes.bring_forward(connection, seconds, now))
        self._traffic.disturb_all()
        self._shortcut.close()

    def forget_silence(self) -> None:
        """What was known of the world is old, as when an operator calls."""
        self._heed_call()

    async def close(self) -> None:
        """Finish what was begun and let another process have the queue."""
        await self._come_to_rest()
        await finished(self._close)

    async def remove(self) -> None:
        """Close a queue that gets no more mail, and remove it from disk if it is empty.

        Raises QueueUnusable where something lies in it that is not its own.
        """
        await self._come_to_rest()
        await finished(self._remove)

    async def _come_to_rest(self) -> None:
        if self._watchers:
            asyncio.get_running_loop().remove_reader(self._wake)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _remove(self) -> None:
        self._close_files()
        try:
            if self._waiting == 0:
                with contextlib.suppress(OSError):  # the next look finds it empty again
                    remove_queue(self._directory)
        finally:
            self._lock.close()

    def _close(self) -> None:
        self._close_files()
        self._lock.close()

    def _close_files(self) -> None:
        self._wake.close()
        self._reader.shutdown()
        self._reading.close()
        self._files.shutdown()
        # Last, for it takes the log into the database; a connection that only reads cannot.
        self._writer.close()

    def _recover(self, connection: sqlite3.Connection) -> tuple[int, int]:
        try:
            life = begin_life(connection)
            self._settle_bodies(connection)
            waiting = rows.count_messages(connection)
        except (sqlite3.Error, OSError) as error:
            what = "is damaged" if is_damage(error) else "cannot be opened"
            raise QueueUnusable(
                f"the queue {self._directory} {what}: {reason_of(error)}"
            ) from error
        return life, waiting

    def _settle_bodies(self, connection: sqlite3.Connection) -> None:
        left = os.path.join(os.path.dirname(self._directory), LEFT)
        aside = self._bodies.settle(lambda queue_id: rows.exists(connection, queue_id), left)
        if aside:
            maillog.bodies_left(self._directory, aside, left)

    def _called(self) -> None:
        """An operator has changed something, nobody knows what."""
        self._wake.drain()
        self._shortcut.close()
        self._heed_call()
        self._begin(self._look_anew())

    def _heed_call(self) -> None:
        for heeding in self._heeding:
            heeding()

    async def _look_anew(self) -> None:
        try:
            await self._writer.submit(rows.count_messages, self._counted)
        except QueueFailed as error:
            maillog.queue_failed(self._directory, str(error))

    def _counted(self, waiting: int) -> None:
        """There were so many messages, as far as the writer has told of what it did.

        Called in the writer's order, as whatever else changes the number is: nothing that was
        committed with the count is counted twice.
        """
        maillog.queue_changed(self._directory, waiting, waiting - self._waiting)
        self._waiting = waiting
        self._traffic.disturb_all()
        self._shortcut.close()
        self._notify()

    def _check_room(self) -> None:
        if self._max_waiting and self._waiting >= self._max_waiting:
            raise QueueFull(f"{self._waiting} messages wait in the queue")

    def _write(self, arrival: Arrival) -> asyncio.Future[Inserted]:
        """Add a message whose body is where it belongs."""

        def arrived(inserted: Inserted) -> None:
            self._arrived([arrival], [inserted])

        return self._writer.submit_item(self._adding, arrival, arrived)

    async def _add_from_file(self, submission: Submission, taken_from: str) -> None:
        async with self._kept_bodies([submission], taken_from) as arrivals:
            for arrival in arrivals:
                await self._write(arrival)

    async def _add_failed(
        self, submission: Submission, failure: LastAnswer, taken_from: str
    ) -> bool:
        def then(settled: Settled) -> None:
            if settled is Settled.KEPT:
                self._waiting += 1
            self._shortcut.close()
            self._notify()

        async with self._kept_bodies([submission], taken_from) as (arrival,):
            settled = await self._writer.submit(
                lambda connection: rows.insert_failed(connection, arrival, failure, self._life),
                then,
            )
        finished = settled is not Settled.KEPT
        if finished:
            await self._tidy(lambda: self._discard([arrival]))
        return finished

    def _enter(self, record: Record) -> asyncio.Future[Entered]:
        def then(entered: Entered) -> None:
            self._entered(record, entered)

        return self._writer.submit_item(self._entering, record, then)

    async def _record_of_file(self, record: Record) -> Entered:
        """Nobody needs the body's file of a message that is gone."""
        entered = await self._enter(record)
        if entered.settled is not Settled.KEPT:
            await self._tidy(lambda: self._bodies.discard(record.queue_id))
        return entered

    def _entered(self, record: Record, entered: Entered) -> None:
        lane, news = record.message.lane, record.news
        finished = entered.settled is Settled.FINISHED
        self._traffic.release(record.queue_id, lane)
        self._disturb(record.lanes)
        if entered.recovered:
            self._traffic.start_slowly(lane)
        elif news is not None and news.back_off is None:
            self._traffic.widen(lane)
        if entered.blocked_until is not None:
            self._traffic.is_left_alone(lane)
        if not finished or entered.blocked_until is not None or entered.recovered:
            self._shortcut.close()
        if finished:
            self._waiting -= 1

    async def _tell(self, pending: PendingReport, report: Submission | None, now: float) -> Told:
        queue_id = pending.message.envelope.queue_id

        def operation(connection: sqlite3.Connection) -> tuple[bool, Settled]:
            told = notices.clear_notices(connection, queue_id, pending.notices)
            if told:
                self._adding(connection, arrivals)
            return bool(told), rows.settle_message(connection, queue_id, now)

        def then(result: tuple[bool, Settled]) -> None:
            told, settled = result
            self._told(queue_id)
            self._shortcut.close()
            if settled is Settled.FINISHED:
                self._waiting -= 1
            if told:
                self._arrived(arrivals, [])

        reports = [] if report is None else [report]
        async with self._kept_bodies(reports) as arrivals:
            told, settled = await self._writer.submit(operation, then)
        if settled is not Settled.KEPT and pending.message.content.body_size > IN_ROW:
            await self._tidy(lambda: self._bodies.discard(queue_id))
        if not told:
            await self._tidy(lambda: self._discard(arrivals))
        return Told(told, settled is Settled.FINISHED)

    def _told(self, queue_id: str) -> None:
        """One report less of the message is being made."""
        self._telling[queue_id] -= 1
        if not self._telling[queue_id]:
            del self._telling[queue_id]

    async def _tidy(self, work: Callable[[], object]) -> None:
        """Remove files that no row names any more, or note that one does; without a thread, the
        next start does it."""
        with contextlib.suppress(QueueFailed):
            await self._in_files(work)

    async def _settle_lanes(self, stale: Sequence[str], now: float) -> None:
        try:
            await self._writer.submit(lambda connection: lanes.settle_lanes(connection, stale, now))
        except QueueFailed as error:  # they cost a look each time, until the disk works
            maillog.queue_failed(self._directory, str(error))
            return
        self._shortcut.close()
        self._notify()

    def _arrived(self, arrivals: Sequence[Arrival], inserted: Sequence[Inserted]) -> None:
        """Have the scheduler look; ``inserted``, if known, spares it to ask the database."""
        self._waiting += len(arrivals)
        self._disturb({target.lane for each in arrivals for target in each.submission.targets})
        if inserted and not any(each.failing for each in inserted):
            for arrival, new in zip(arrivals, inserted, strict=True):
                self._shortcut.offer(self._loader.fresh(arrival, new))
        else:
            self._shortcut.close()
        self._notify()

    def _disturb(self, changed: Iterable[str]) -> None:
        for lane in changed:
            self._traffic.disturb(lane)
            self._disturbed.add(lane)

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher()

    @contextlib.asynccontextmanager
    async def _kept_bodies(
        self, submissions: Sequence[Submission], taken_from: str = ""
    ) -> AsyncIterator[list[Arrival]]:
        """The submissions with the bodies that go into their rows; the others are files, durable.

        The files are removed if the rows cannot be written, and count as accepted if they are.
        """
        kept: list[Arrival] = []
        try:
            for submission in submissions:
                kept.append(Arrival(submission, await self._keep(submission), taken_from))  # noqa: PERF401
            yield kept
        except Exception:
            self._discard(kept)
            raise
        if files := _in_files(kept):  # nobody waits for it
            self._begin(self._tidy(lambda: [*map(self._bodies.accept, files)]))

    def _discard(self, kept: Sequence[Arrival]) -> None:
        for queue_id in _in_files(kept):
            self._bodies.discard(queue_id)

    async def _keep(self, submission: Submission) -> bytes | None:
        content = submission.content
        if content.body_size > IN_ROW:
            await self._in_files(lambda: self._bodies.keep(submission.envelope.queue_id, content))
            return None
        if isinstance(content.body, bytes):
            return content.body
        return await self._in_files(lambda: read_small(content))

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await _done(self._reader, lambda: _snapshot(self._reading, question))
        except sqlite3.Error as error:
            raise QueueFailed(f"the queue's database failed: {error}") from error

    async def _in_files(self, work: Callable[[], T]) -> T:
        return await _done(self._files, work)

    async def _kept(self, work: asyncio.Future[T]) -> T:
        """The result of what the writer does to the end, even if the caller is cancelled."""
        self._hold(work)
        return await asyncio.shield(work)

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end even if the caller is cancelled: what is half done cannot be told."""
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that ends before the store is closed, whether anybody waits for it or not."""
        task = asyncio.get_running_loop().create_task(work)
        self._hold(task)
        return task

    def _hold(self, work: asyncio.Future[Any]) -> None:
        """See to it that it ends before the store is closed."""
        self._tasks.add(work)
        work.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case nobody waits for it any more


def _in_files(kept: Sequence[Arrival]) -> list[str]:
    """Those whose bodies are not in their rows."""
    return [each.submission.envelope.queue_id for each in kept if each.body is None]


async def _done(pool: ThreadPool, work: Callable[[], T]) -> T:
    """What the work comes to; raises QueueFailed if it cannot be begun, and what it raises."""
    try:
        doing = begun(pool, work)
    except NoThread as error:
        raise QueueFailed(str(error)) from error
    return await doing


def _snapshot(connection: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return question(connection)
    finally:
        connection.execute("COMMIT")
