"""The mailbox writer: jobs from the event loop, a thread that delivers all that wait at once."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Sequence

from restante import maillog
from restante.config.tree import Programs
from restante.crowds import Crowds
from restante.envelope import Content, Envelope
from restante.mda import MAX_OCTETS, Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.mda.acts import Acts
from restante.mda.answers import CLOSING, Policy
from restante.mda.batch import Batch
from restante.mda.copies import Job
from restante.mda.durable import Disk, LocalDisk
from restante.mda.maildir import Maildirs
from restante.status import Delivered, Outcome, TemporaryFailure

MAX_BATCH = 500
"""Jobs that are made durable together; more would only make the first ones wait."""
MAX_GATHERING = 0.01
"""Seconds for which a batch is gathered where the disk is slow, at most.

Measured with 2 workers where a sync takes 15 ms: 10 sessions deliver 7 % more. On a quick disk
nobody is to wait: who had answers from the database together comes together anyway.
"""
QUICK = 0.01
"""Seconds. Where a batch took longer, two messages are many, and the event loop does not wait for
the disk itself ..."""
SHY = 60.0
"""... for so many seconds: whoever else it serves is held up once a minute, at the most."""
SMALL = 256 * 1024
"""Octets of a body that the event loop writes itself, at most."""

_Outcomes = tuple[Outcome, ...]
_Waiting = tuple[Job, asyncio.Future[_Outcomes]]
"""A job and who waits for it."""


def _that_fit(waiting: Sequence[_Waiting]) -> int:
    """How many of them make a batch, whatever the first one has."""
    if len(waiting) == 1:
        return 1
    octets = 0
    for count, (job, _) in enumerate(waiting[:MAX_BATCH]):
        octets += len(job.copies) * job.content.body_size
        if count and octets > MAX_OCTETS:
            return count
    return min(len(waiting), MAX_BATCH)


class BatchWriter:
    """A MailboxWriter whose cost is shared: the more messages wait, the fewer syncs each takes.

    Belongs to one event loop; its thread starts with the first delivery that needs it.
    """

    def __init__(
        self,
        host: str,
        minimum_uid: int,
        minimum_gid: int,
        disk: Disk | None = None,
        *,
        programs: Programs | None = None,
        instance: str = "",
        is_server: bool = True,
        may_block: bool = False,
    ) -> None:
        """``is_server``: as for ``Actor``. ``instance``: as in ``Policy``. ``programs``: None for
        the defaults.

        ``may_block``: a message that comes alone is written in the event loop, which waits for
        the disk meanwhile, if that has been quick for a minute. It spares two switches of
        threads; for processes that have little else to do.
        """
        self._policy = Policy(host, minimum_uid, minimum_gid, instance)
        self._acts = Acts(self._policy, programs or Programs(), is_server=is_server)
        self._disk = disk or LocalDisk()
        self._may_block = may_block
        self._maildirs: Maildirs | None = None
        """Belong to whoever writes the batch that is under way, the thread or the loop."""
        self._batches: queue.SimpleQueue[list[_Waiting]] = queue.SimpleQueue()
        """For the thread; an empty one is the last."""
        self._gathered: list[_Waiting] = []
        self._is_busy = False
        """Whether a batch is under way, or being gathered."""
        self._crowds = Crowds()
        """How many messages were in the last batches, or came while they were written."""
        self._took = 0.0
        """Seconds that the last one took."""
        self._gathering: asyncio.TimerHandle | None = None
        """Until when a batch is, at the latest."""
        self._shy_until = 0.0
        """By the loop's clock."""
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closing = False

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        """See MailboxWriter."""
        outcomes = await self._submit(
            Job(envelope, content, deliveries, together=True, again=False)
        )
        if len(outcomes) == 1:
            return outcomes[0]
        failures = (outcome for outcome in outcomes if not isinstance(outcome, Delivered))
        failure = next(failures, None)
        return failure or Delivered(f"{len(outcomes)} mailboxes")

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> _Outcomes:
        """See MailboxWriter."""
        return await self.begin_each(envelope, content, deliveries, again=again)

    def begin_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> asyncio.Future[_Outcomes]:
        """What ``deliver_each`` will return, for whoever needs no task to wait for it."""
        return self._submit(Job(envelope, content, deliveries, together=False, again=again))

    async def withdraw(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> None:
        """Take back what ``deliver_all`` has put into ``new``, where it still is and can be.

        For whoever shares one message between several writers, of which one has failed. It has
        its turn among deliveries: one that comes later, for whoever has given this up, stays.
        """
        job = Job(envelope, content, deliveries, together=False, again=False, withdraws=True)
        await self._submit(job)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        return await self._acts.append(envelope, content, mbox, again=again)

    async def run(
        self,
        envelope: Envelope,
        content: Content,
        program: ProgramDelivery,
        gone: int | None = None,
    ) -> Ran:
        """See MailboxWriter. The command is ended early when the descriptor ``gone`` becomes
        readable: nobody waits for it any more."""
        return await self._acts.run(envelope, content, program, gone)

    async def close(self) -> None:
        """See MailboxWriter."""
        self._closing = True
        await self._acts.close()
        if self._ended is None:
            return
        if not self._is_busy:
            self._end()  # else _answer does, when everybody has been answered
        elif self._gathering is not None:
            self._hand_over_soon(asyncio.get_running_loop())
        await asyncio.shield(self._ended)
        if self._thread is not None:
            self._thread.join()

    def _submit(self, job: Job) -> asyncio.Future[_Outcomes]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Outcomes] = loop.create_future()
        if self._closing:
            answer.set_result(tuple(TemporaryFailure(CLOSING) for _ in job.deliveries))
            return answer
        if self._ended is None:
            self._ended = loop.create_future()
        self._gathered.append((job, answer))
        if not self._is_busy:
            self._gather(loop)
        elif self._gathering is not None and self._are_all_here():
            self._hand_over_soon(loop)
        return answer

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a batch: of what comes soon where the disk is slow, else of what is here."""
        self._is_busy = True
        is_worth_a_wait = self._took > QUICK and self._crowds.last > 1
        if is_worth_a_wait and not (self._closing or self._are_all_here()):
            self._gathering = loop.call_later(MAX_GATHERING, self._hand_over)
        else:
            self._hand_over_soon(loop)

    def _are_all_here(self) -> bool:
        """Whether nobody else is likely to come soon, or no more would fit."""
        count = len(self._gathered)
        return count >= MAX_BATCH or self._crowds.are_all_here(count)

    def _hand_over_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """With what else comes in this turn."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._gathering = None
        count = _that_fit(self._gathered)
        batch, self._gathered = self._gathered[:count], self._gathered[count:]
        try:
            self._write(batch)
        except Exception as error:  # noqa: BLE001 - no thread can be started, or a bug
            maillog.unplanned("mailbox writer", error)
            self._answer(batch, 0.0)  # nothing was written: all are to come again

    def _write(self, batch: list[_Waiting]) -> None:
        maildirs = self._maildirs = self._maildirs or Maildirs(self._disk)
        if self._may_block and self._is_soon_done(maildirs, batch):
            self._answer(batch, self._deliver(maildirs, batch))
            return
        if self._thread is None:
            self._thread = self._started(maildirs)
        self._batches.put(batch)

    def _is_soon_done(self, maildirs: Maildirs, batch: Sequence[_Waiting]) -> bool:
        """Whether it is one small message for a Maildir that needs no look into, and no syncfs."""
        if len(batch) > 1 or self._crowds.last > 1:
            return False
        if asyncio.get_running_loop().time() < self._shy_until:
            return False
        job, _ = batch[0]
        return (
            len(job.deliveries) == 1
            and not (job.again or job.withdraws)
            and isinstance(job.content.body, bytes)
            and len(job.content.body) <= SMALL
            and maildirs.is_durable(job.deliveries[0])
        )

    def _answer(self, batch: Sequence[_Waiting], took: float) -> None:
        for job, answer in batch:
            if not answer.done():
                answer.set_result(job.outcomes())
        self._is_busy = False
        self._took = took
        self._crowds.note(len(batch) + len(self._gathered))
        loop = asyncio.get_running_loop()
        if took > QUICK:
            self._shy_until = loop.time() + SHY
        if self._gathered:
            self._gather(loop)
        elif self._closing:
            self._end()

    def _end(self) -> None:
        """Once there is no work any more, and there will be none."""
        if self._thread is not None:
            self._batches.put([])
        elif self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
            if self._maildirs is not None:
                self._maildirs.close()

    def _started(self, maildirs: Maildirs) -> threading.Thread:
        thread = threading.Thread(
            target=self._work,
            args=(asyncio.get_running_loop(), maildirs, self._ended),
            name="mailbox writer",
            daemon=True,
        )
        thread.start()
        return thread

    # In the thread

    def _work(
        self, loop: asyncio.AbstractEventLoop, maildirs: Maildirs, ended: asyncio.Future[None]
    ) -> None:
        while batch := self._batches.get():
            took = self._deliver(maildirs, batch)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waits
                loop.call_soon_threadsafe(self._answer, batch, took)
        maildirs.close()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set_result, None)

    # There, or in the loop

    def _deliver(self, maildirs: Maildirs, waiting: Sequence[_Waiting]) -> float:
        """The seconds that it took."""
        begun = time.monotonic()
        jobs = [job for job, answer in waiting if not answer.cancelled()]
        batch = Batch(self._disk, maildirs, self._policy, jobs)
        try:
            batch.run()
        except Exception as error:  # noqa: BLE001 - the writer outlives its bugs
            maillog.unplanned("mailbox writer", error)
            batch.abandon()
        return time.monotonic() - begun
