"""The mailbox writer: jobs from the event loop, one thread that delivers all that wait at once."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from restante import maillog
from restante.config.tree import Programs
from restante.envelope import Content, Envelope
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.mda.acts import Acts
from restante.mda.answers import CLOSING, Policy
from restante.mda.batch import Batch, Job
from restante.mda.durable import Disk, LocalDisk
from restante.mda.maildir import Maildirs
from restante.status import Delivered, Outcome, TemporaryFailure

MAX_BATCH = 500
"""Jobs that are made durable together; more would only make the first ones wait."""
MAX_GATHERING = 0.01
"""Seconds. Where several come at a time, a batch is gathered for as long as the last one took to
write, which at most doubles the wait, but no longer than this. Each more spares two syncs."""

_Outcomes = tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A job and who waits for it."""

    job: Job
    answer: asyncio.Future[_Outcomes]


class BatchWriter:
    """A MailboxWriter whose cost is shared: the more messages wait, the fewer syncs each takes.

    Belongs to one event loop; its thread starts with the first delivery.
    """

    def __init__(
        self,
        host: str,
        minimum_uid: int,
        minimum_gid: int,
        disk: Disk | None = None,
        *,
        programs: Programs | None = None,
        is_server: bool = True,
    ) -> None:
        """``is_server``: as for ``Actor``. ``programs``: None for the defaults."""
        self._policy = Policy(host, minimum_uid, minimum_gid)
        self._acts = Acts(self._policy, programs or Programs(), is_server=is_server)
        self._disk = disk or LocalDisk()
        self._batches: queue.SimpleQueue[list[_Waiting]] = queue.SimpleQueue()
        """For the thread; an empty one is the last."""
        self._gathered: list[_Waiting] = []
        self._is_busy = False
        """Whether a batch is under way, or being gathered."""
        self._crowd = 0
        """How many messages were in the last batch, or came while it was written."""
        self._took = 0.0
        """Seconds that it took."""
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closing = False

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        """See MailboxWriter."""
        job = Job(envelope, content, deliveries, together=True, again=False)
        outcomes = await self._submit(job)
        failures = (outcome for outcome in outcomes if not isinstance(outcome, Delivered))
        failure = next(failures, None)
        return failure or _summary(outcomes)

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> _Outcomes:
        """See MailboxWriter."""
        return await self._submit(Job(envelope, content, deliveries, together=False, again=again))

    async def withdraw(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> None:
        """Take back what ``deliver_all`` has put into ``new``, where it still is.

        For whoever shares one message between several writers, of which one has failed.
        Raises OSError and UnsafePlace if anything cannot be removed.
        """
        job = Job(envelope, content, deliveries, together=True, again=False)
        await asyncio.to_thread(self._withdraw, job)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        return await self._acts.append(envelope, content, mbox, again=again)

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        """See MailboxWriter."""
        return await self._acts.run(envelope, content, program)

    async def close(self) -> None:
        """See MailboxWriter."""
        self._closing = True
        await self._acts.close()
        if self._thread is None or self._ended is None:
            return
        if not self._is_busy:
            self._batches.put([])  # else _answer does, when everybody has been answered
        await asyncio.shield(self._ended)
        self._thread.join()

    async def _submit(self, job: Job) -> _Outcomes:
        if self._closing:
            return tuple(TemporaryFailure(CLOSING) for _ in job.deliveries)
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._start(loop)
        waiting = _Waiting(job, loop.create_future())
        self._gathered.append(waiting)
        if not self._is_busy:
            self._gather()
        return await waiting.answer

    def _gather(self) -> None:
        """Begin a batch: of one message where they come one at a time, else of what comes soon."""
        self._is_busy = True
        loop = asyncio.get_running_loop()
        if self._crowd > 1:
            loop.call_later(min(self._took, MAX_GATHERING), self._hand_over)
        else:
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        batch, self._gathered = self._gathered[:MAX_BATCH], self._gathered[MAX_BATCH:]
        self._batches.put(batch)

    def _answer(self, batch: Sequence[_Waiting], took: float) -> None:
        for item in batch:
            if not item.answer.done():
                item.answer.set_result(item.job.outcomes())
        self._is_busy = False
        self._took = took
        self._crowd = len(batch) + len(self._gathered)
        if self._gathered:
            self._gather()
        elif self._closing:
            self._batches.put([])

    def _withdraw(self, job: Job) -> None:
        maildirs = Maildirs(self._disk)
        try:
            Batch(self._disk, maildirs, self._policy, [job]).withdraw()
        finally:
            maildirs.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended = loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(loop, self._ended), name="mailbox writer", daemon=True
        )
        self._thread.start()

    # In the thread

    def _work(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        maildirs = Maildirs(self._disk)
        while batch := self._batches.get():
            begun = time.monotonic()
            self._deliver(maildirs, [item for item in batch if not item.answer.cancelled()])
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waits
                loop.call_soon_threadsafe(self._answer, batch, time.monotonic() - begun)
        maildirs.close()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set_result, None)

    def _deliver(self, maildirs: Maildirs, waiting: Sequence[_Waiting]) -> None:
        batch = Batch(self._disk, maildirs, self._policy, [item.job for item in waiting])
        try:
            batch.run()
        except Exception as error:  # noqa: BLE001 - the writer outlives its bugs
            maillog.unplanned("mailbox writer", error)
            batch.abandon()


def _summary(outcomes: Sequence[Outcome]) -> Outcome:
    if len(outcomes) == 1:
        return outcomes[0]
    return Delivered(f"{len(outcomes)} mailboxes")
