"""Decides when a queued message is tried, and records what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from restante import maillog
from restante.queue import (
    Courier,
    QueuedMessage,
    QueueFailed,
    Reporter,
    Submission,
    Undeliverable,
)
from restante.queue.clock import Clock
from restante.queue.retry import RetryPolicy
from restante.queue.store import QueueStore
from restante.queue.verdict import Verdict, judge, postpone, uncertain

LONGEST_PAUSE = 300.0
"""Seconds after which the queue is looked at in any case: the time of day may have been set."""
FIRST_BACK_OFF = 1.0
"""Seconds until a queue that failed is asked again; doubled each time."""
LONGEST_BACK_OFF = 60.0


class Scheduler:
    """Tries every message when it is due, ``concurrency`` of them at the same time.

    ``new_id`` names the bounces: it must give ids that no other message of this
    queue gets, so it is the generator that names received messages too.
    """

    def __init__(
        self,
        store: QueueStore,
        courier: Courier,
        reporter: Reporter,
        policy: RetryPolicy,
        clock: Clock,
        new_id: Callable[[], str],
        concurrency: int,
    ) -> None:
        self._store = store
        self._courier = courier
        self._reporter = reporter
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._concurrency = concurrency
        self._wake = asyncio.Event()
        self._stopping = False
        self._moving: set[asyncio.Task[None]] = set()
        store.watch(self.notify)

    @property
    def moving(self) -> int:
        """Messages that are being tried now."""
        return len(self._moving)

    def notify(self) -> None:
        """Look at the queue now: a message has come, or the world has changed."""
        self._wake.set()

    async def run(self, grace: float) -> None:
        """Work until ``stop``; then let attempts finish for ``grace`` seconds and drop the others.

        A message whose attempt was dropped is tried again in the next process life.
        """
        try:
            while not self._stopping:
                self._wake.clear()
                await self._clock.wait(self._wake, await self._turn())
            await self._drain(grace)
        finally:
            await self._drop()

    def stop(self) -> None:
        """Start no more attempts, and let ``run`` come to its end."""
        self._stopping = True
        self._wake.set()

    async def _turn(self) -> float:
        """Start what is due and has room; the seconds until there may be more to do."""
        try:
            return await self._start_due()
        except QueueFailed as error:
            maillog.queue_failed(self._store.directory, str(error))
        except Exception as error:  # noqa: BLE001 - the queue must go on
            maillog.unplanned("scheduler", error)
        return LONGEST_BACK_OFF

    async def _start_due(self) -> float:
        room = self._concurrency - len(self._moving)
        if room <= 0:
            return LONGEST_PAUSE  # the end of an attempt wakes us
        for message in await self._store.due(self._clock.now(), room):
            task = asyncio.get_running_loop().create_task(self._move(message))
            self._moving.add(task)
            task.add_done_callback(self._moved)
        if len(self._moving) >= self._concurrency:
            return LONGEST_PAUSE
        due = await self._store.next_due()
        return LONGEST_PAUSE if due is None else self._pause_until(due)

    def _pause_until(self, due: float) -> float:
        return min(max(0.0, due - self._clock.now()), LONGEST_PAUSE)

    def _moved(self, task: asyncio.Task[None]) -> None:
        self._moving.discard(task)
        self._wake.set()

    async def _move(self, message: QueuedMessage) -> None:
        """One attempt, from courier to record.

        A bug leaves the message in flight, so that it waits for the next process life
        rather than being tried without end.
        """
        try:
            attempt = await self._report(message, await self._attempt(message))
            finished = await self._record(message, attempt)
            attempt.log(message, finished)
        except Exception as error:  # noqa: BLE001 - one message must not stop the others
            maillog.unplanned(f"queued message {message.envelope.queue_id}", error)

    async def _attempt(self, message: QueuedMessage) -> list[Verdict]:
        try:
            attempted = await self._courier.attempt(message)
            now = self._clock.now()
            pairs = zip(message.recipients, attempted.answers, strict=True)
            return [judge(message, *pair, now, self._policy) for pair in pairs]
        except Exception as error:  # noqa: BLE001 - an unplanned exception is temporary
            maillog.unplanned("courier", error)
            return uncertain(message, self._clock.now(), self._policy)

    async def _report(self, message: QueuedMessage, verdicts: list[Verdict]) -> _Attempt:
        notices = [notice for verdict in verdicts for notice in verdict.notices]
        if not notices:
            return _Attempt(verdicts, None)
        now, queue_id = self._clock.now(), self._new_id()
        try:
            report = await asyncio.to_thread(
                self._reporter.report, replace(message, recipients=()), notices, now, queue_id
            )
        except Exception as error:  # noqa: BLE001 - an unplanned exception is temporary
            maillog.unplanned("report", error)
            return _Attempt(postpone(message, verdicts, now), None)
        return _Attempt(verdicts, report)

    async def _record(self, message: QueuedMessage, attempt: _Attempt) -> bool:
        results = [verdict.result for verdict in attempt.verdicts]
        reports = [attempt.report] if isinstance(attempt.report, Submission) else []
        delay = FIRST_BACK_OFF
        while True:
            try:
                return await self._store.record(message.envelope, results, reports)
            except QueueFailed as error:
                maillog.queue_failed(self._store.directory, str(error))
            await self._clock.wait(asyncio.Event(), delay)
            delay = min(delay * 2, LONGEST_BACK_OFF)

    async def _drain(self, grace: float) -> None:
        if self._moving:
            await asyncio.wait(self._moving, timeout=grace)

    async def _drop(self) -> None:
        for task in self._moving:
            task.cancel()
        await asyncio.gather(*self._moving, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is to be recorded, in one commit."""

    verdicts: Sequence[Verdict]
    report: Submission | Undeliverable | None
    """None: none is due."""

    def log(self, message: QueuedMessage, finished: bool) -> None:
        """Say what was recorded."""
        queue_id = message.envelope.queue_id
        for verdict in self.verdicts:
            verdict.log()
        if isinstance(self.report, Submission):
            told = self.report.envelope
            maillog.bounced(queue_id, told.queue_id, str(told.recipients[0]))
        elif self.report is not None:
            maillog.bounce_dropped(queue_id, self.report.why)
        if finished:
            maillog.message_finished(queue_id)
