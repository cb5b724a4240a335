"""Questions that come while others are under way wait, and go to the database together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from restante.crowds import Crowds
from restante.directory.engine import Rejected

PATIENCE = 0.02
"""Seconds after which questions go although none of those before them is answered yet.

A statement takes less, unless something is wrong with its connection; then nobody waits for it
who need not.
"""
MAX_PATIENCE = 1.0
"""Seconds after which they go although as many statements are under way as may be.

One more would only wait for another's end, where these can wait together; but not so long that a
peer hears nothing within ten seconds.
"""
GATHERING = 5.0
"""Where several ask at a time, questions gather for so many times as long as the last statement
took: it costs hardly more for ten of them than for two, here and in the database."""
MAX_GATHERING = 0.005
"""Seconds that they gather at the most."""

Q = TypeVar("Q")
A = TypeVar("A")
_Waiting = tuple[tuple[Q, ...], asyncio.Future[A]]
"""Questions, and who waits for their answer."""


class Gathering(Generic[Q, A]):
    """Asks for several who ask at the same time; belongs to one event loop.

    A question that finds none under way goes at once, in the task of who asks it, if the last one
    was alone as well. Those that come meanwhile, and those that follow such a crowd, gather for a
    moment, or until they are as many as before, and go as many together as fit, in a task that
    belongs to none of them: whoever is cancelled takes nobody along. Each was asked before the
    statement was sent that answers it, so that no answer is older than its question.
    """

    def __init__(
        self, ask: Callable[[tuple[Q, ...]], Awaitable[A]], most: int, concurrency: int
    ) -> None:
        """``ask`` answers some questions at once, ``most`` of them at the most.

        ``concurrency``: so many times at a time; what is asked more often waits for others.
        """
        self._ask = ask
        self._most = most
        self._concurrency = concurrency
        self._under_way = 0
        self._waiting: deque[_Waiting[Q, A]] = deque()
        self._questions = 0
        """How many wait in all."""
        self._timer: asyncio.TimerHandle | None = None
        """When those go that wait, at the latest."""
        self._is_gathering = False
        """Whether they wait for others to come, and not for a statement."""
        self._crowds = Crowds()
        """How many the last statements were for, and how many waited when they were answered."""
        self._took = 0.0
        """Seconds that it took."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, questions: tuple[Q, ...]) -> A:
        """An answer that holds those to ``questions``, at most ``most``; raises as ``ask`` does.

        Of those who are asked for together, nobody has an answer if ``ask`` raises CannotKnow, but
        for the questions of others nobody is rejected.
        """
        is_idle = not self._under_way and not self._is_gathering
        if is_idle and self._crowds.last <= 1:
            self._under_way += 1
            begun = time.monotonic()
            try:
                return await self._ask(questions)
            finally:
                self._answered(1, begun)
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((questions, answer))
        self._questions += len(questions)
        if is_idle:
            self._gather()
        elif self._is_gathering and self._are_all_here():
            self._send()
        elif self._timer is None:
            self._send_in(PATIENCE if self._may_send_more else MAX_PATIENCE)
        return await answer

    def _answered(self, askers: int, begun: float) -> None:
        """A statement for so many has its answer, or failed; those that wait go soon."""
        self._under_way -= 1
        self._took = time.monotonic() - begun
        self._crowds.note(askers + len(self._waiting))
        if self._waiting and not self._is_gathering and self._may_send_more:
            self._gather()

    @property
    def _may_send_more(self) -> bool:
        return self._under_way < self._concurrency

    def _gather(self) -> None:
        """Let others come before those go that wait, unless these are enough."""
        self._is_gathering = True
        if self._are_all_here():
            self._send()
        else:
            self._send_in(min(GATHERING * self._took, MAX_GATHERING))

    def _are_all_here(self) -> bool:
        """Whether nobody else is likely to ask soon, or no more would fit."""
        return self._questions >= self._most or self._crowds.are_all_here(len(self._waiting))

    def _send_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._send)

    def _send(self) -> None:
        """Let all go that wait."""
        self._is_gathering = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while batch := self._next_batch():
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._carry_out(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Waiting[Q, A]]:
        batch: list[_Waiting[Q, A]] = []
        room = self._most
        while self._waiting and len(self._waiting[0][0]) <= room:
            questions, answer = self._waiting.popleft()
            self._questions -= len(questions)
            if not answer.done():
                batch.append((questions, answer))
                room -= len(questions)
        return batch

    async def _carry_out(self, batch: list[_Waiting[Q, A]]) -> None:
        begun = time.monotonic()
        try:
            if not await self._together(batch):
                await asyncio.gather(*(self._together([waiting]) for waiting in batch))
        finally:
            # All have their answers by now, unless this task was cancelled.
            for _, answer in batch:
                answer.cancel()
            self._answered(len(batch), begun)

    async def _together(self, batch: list[_Waiting[Q, A]]) -> bool:
        """Answer all of ``batch``; false if a question of it may be in the way of the others."""
        try:
            found = await self._ask(_all([questions for questions, _ in batch]))
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            if isinstance(error, Rejected) and len(batch) > 1:
                return False
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for _, answer in batch:
                if not answer.done():
                    answer.set_result(found)
        return True


def _all(questions: Iterable[tuple[Q, ...]]) -> tuple[Q, ...]:
    return tuple(dict.fromkeys([each for some in questions for each in some]))
