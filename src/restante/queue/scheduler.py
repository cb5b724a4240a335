"""Decides when a queued message is tried, and records what became of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from restante import maillog
from restante.queue import (
    Action,
    BackOff,
    Courier,
    Moved,
    QueuedMessage,
    QueueFailed,
    Reporter,
    Submission,
    Undeliverable,
    Untried,
)
from restante.queue.absence import ABSENT
from restante.queue.clock import Clock
from restante.queue.handout import Position
from restante.queue.retry import REPORT_RETRY, RetryPolicy
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.verdict import Verdict, judge, uncertain
from restante.queue.work import LaneNews, PendingReport, Recorded
from restante.status import Reply, TemporaryFailure
from restante.threads import NoThread, in_thread

LONGEST_PAUSE = 300.0
"""Seconds after which the queue is looked at in any case: the time of day may have been set."""
CLOCK_TOLERANCE = 60.0
"""Seconds by which the time of day may go back without a word: what waits, waits longer by them."""
SETTLED_AFTER = 900.0
"""Seconds after the time of day went back in which what was under way then has come to its end."""
FIRST_PAUSE = 1.0
"""Seconds until a queue that failed is asked again; doubled each time."""
LONGEST_FAILURE_PAUSE = 60.0

T = TypeVar("T")


class Scheduler:
    """Tries every message in every lane when it is due, within ``limits``.

    ``courier`` and ``reporter`` give the one that is in force when an attempt or a report begins.
    ``new_id`` names the reports: it must give ids that no other message of this
    queue gets, so it is the generator that names received messages too.
    """

    def __init__(
        self,
        store: QueueStore,
        courier: Callable[[], Courier],
        reporter: Callable[[], Reporter],
        policy: RetryPolicy,
        clock: Clock,
        new_id: Callable[[], str],
        limits: Limits,
    ) -> None:
        self._store = store
        self._courier = courier
        self._reporter = reporter
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._limits = limits
        self._looked_at: float | None = None
        """None: not in this life of the queue."""
        self._settled_at = math.inf
        """When to see what bears a time from before the clock was set back."""
        self._set_back = 0.0
        """By how much it was, since all had been settled."""
        self._wake = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        store.watch(self.notify)

    @property
    def moving(self) -> int:
        """Attempts, reports and clearances of failing lanes in progress now."""
        return len(self._tasks)

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
        now = self._clock.now()
        try:
            await self._heed_clock(now)
            work = await self._store.due(now, self._limits)
        except QueueFailed as error:
            maillog.queue_failed(self._store.directory, str(error))
        except Exception as error:  # noqa: BLE001 - the queue must go on
            maillog.unplanned("scheduler", error)
        else:
            self._heed_absence(now)
            self._looked_at = now
            self._store.look(now)
            for message in work.messages:
                self._start(self._move(message), message)
            for pending in work.reports:
                self._start(self._tell(pending), pending.message)
            return min(max(0.0, work.next_due - self._clock.now()), LONGEST_PAUSE)
        return LONGEST_FAILURE_PAUSE

    async def _heed_clock(self, now: float) -> None:
        """See to it that hours by which the clock is set back delay nobody by hours.

        How far it was set back since the queue's former life is seen by what waits alone.
        """
        if self._looked_at is None:
            back = await self._store.too_far_ahead(now)
        elif now >= self._settled_at:
            back = await self._store.too_far_ahead(now, self._set_back)
            if back <= CLOCK_TOLERANCE:
                self._settled_at, self._set_back = math.inf, 0.0
        else:
            back = self._looked_at - now
        if back > CLOCK_TOLERANCE:
            await self._store.bring_forward(back, now)
            maillog.clock_set_back(self._store.directory, back)
            self._settled_at = now + SETTLED_AFTER
            self._set_back += back
            if self._looked_at is not None and self._looked_at > now:
                self._looked_at = now
                self._store.attendance.set_back(now)
                self._policy = replace(self._policy, absences=self._store.attendance.absences)

    def _heed_absence(self, now: float) -> None:
        """See to it that nobody is given up for hours in which nobody was here."""
        if self._looked_at is not None and now - self._looked_at <= ABSENT:
            return
        attendance = self._store.attendance
        absence = attendance.note(self._looked_at, now, self._policy.lifetime)
        self._looked_at = now
        self._policy = replace(self._policy, absences=attendance.absences)
        if absence is not None:
            self._store.forget_silence()
            maillog.queue_unattended(self._store.directory, absence.until - absence.since)

    def _start(self, work: Coroutine[None, None, None], message: QueuedMessage) -> None:
        """Let it run beside the others.

        A bug leaves its message in flight, so that it waits for the next process life
        rather than being tried without end.
        """

        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - one message must not stop the others
                maillog.unplanned(f"queued message {message.envelope.queue_id}", error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    # Attempts

    async def _move(self, message: QueuedMessage) -> None:
        """One attempt, from courier to record."""
        attempt = await self._attempt(message)
        recorded = await self._record(message, attempt)
        if recorded.blocked_until is not None and attempt.news and attempt.news.back_off:
            back_off, began = attempt.news.back_off, attempt.news.began
            maillog.lane_blocked(message.lane, back_off.why, recorded.blocked_until)
            await self._clear(message.lane, back_off, began)

    async def _attempt(self, message: QueuedMessage) -> _Attempt:
        began = self._clock.now()
        maillog.attempt_begun(message.envelope.queue_id, message.lane)
        try:
            attempted = await self._courier().attempt(message)
            now = self._clock.now()
            self._heed_absence(now)  # the machine may have slept meanwhile
            verdicts = judge(message, attempted.answers, began, now, self._policy)
        except Exception as error:  # noqa: BLE001 - an unplanned exception is temporary
            maillog.unplanned("courier", error)
            return _Attempt(uncertain(message, began, self._clock.now(), self._policy), None)
        if all(isinstance(answer, Moved | Untried) for answer in attempted.answers):
            return _Attempt(verdicts, None)  # the lane was not asked at all
        return _Attempt(verdicts, LaneNews(began, attempted.back_off))

    async def _record(self, message: QueuedMessage, attempt: _Attempt) -> Recorded:
        results = [verdict.result for verdict in attempt.verdicts]
        recorded = await self._insist(
            lambda: self._store.record(message, results, self._clock.now(), attempt.news)
        )
        for verdict in attempt.verdicts:
            verdict.log(recorded.states[verdict.result.recipient])
        if recorded.recovered:
            maillog.lane_recovered(message.lane)
        if recorded.finished:
            maillog.message_finished(message.envelope.queue_id)
        return recorded

    async def _clear(self, lane: str, back_off: BackOff, began: float) -> None:
        """Count the lane's failure as an attempt of all whose time is up or who are late.

        It counts as of when the attempt ``began``. With many waiting in a dead lane most of them
        get no attempt of their own, and yet none may wait for ever.
        """
        answer = TemporaryFailure(Reply(451, "4.0", back_off.why))
        late = began - self._policy.delay_notice if self._policy.delay_notice else -math.inf
        born = (began - self._policy.lifetime, late)
        spared = self._policy.spared(began)
        position: Position | None = Position()
        while position is not None and not self._stopping:
            messages, position = await self._insist(
                partial(self._store.overdue, lane, began, born, position, spared)
            )
            await asyncio.gather(*(self._fail(message, answer, began) for message in messages))

    async def _fail(self, message: QueuedMessage, answer: TemporaryFailure, began: float) -> None:
        answers = [answer] * len(message.recipients)
        verdicts = judge(message, answers, began, self._clock.now(), self._policy)
        await self._record(message, _Attempt(verdicts, None))

    # Reports

    async def _tell(self, pending: PendingReport) -> None:
        """One report, from reporter to queue."""
        message, now = pending.message, self._clock.now()
        try:
            report = await self._insist(
                lambda: in_thread(
                    self._reporter().report, message, pending.notices, now, self._new_id()
                )
            )
            submission = report if isinstance(report, Submission) else None
            told = await self._insist(lambda: self._store.tell(pending, submission, now))
        except Exception as error:  # noqa: BLE001 - an unplanned exception is temporary
            maillog.unplanned("report", error)
            await self._insist(lambda: self._store.put_off(pending, now + REPORT_RETRY))
            return
        if told.told:
            _log_report(pending, report)
        if told.finished:
            maillog.message_finished(message.envelope.queue_id)

    async def _insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Ask until disk and threads can be had: what was done must be recorded."""
        delay = FIRST_PAUSE
        while True:
            try:
                return await operation()
            except (QueueFailed, NoThread) as error:
                maillog.queue_failed(self._store.directory, str(error))
            await self._clock.wait(asyncio.Event(), delay)
            delay = min(delay * 2, LONGEST_FAILURE_PAUSE)

    async def _drain(self, grace: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    async def _drop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is to be recorded, in one commit."""

    verdicts: list[Verdict]
    news: LaneNews | None


def _log_report(pending: PendingReport, report: Submission | Undeliverable) -> None:
    queue_id = pending.message.envelope.queue_id
    if isinstance(report, Submission):
        named = queue_id, report.envelope.queue_id, str(report.envelope.recipients[0])
        actions = sorted({notice.action for notice in pending.notices})
        if Action.FAILED in actions:
            maillog.bounced(*named)
        else:
            maillog.reported(*named, ",".join(actions))
    else:
        maillog.bounce_dropped(queue_id, report.why)
