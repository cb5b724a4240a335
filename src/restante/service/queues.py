"""A worker's queues: its own, and those that other workers left."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial

from restante import maillog
from restante.config import Settings
from restante.config.live import Derived, LiveSettings
from restante.dsn.reporter import DsnReporter
from restante.errors import TemporaryError
from restante.pickup.claims import settle
from restante.queue import Courier, QueueTaken, QueueUnusable
from restante.queue.clock import SystemClock
from restante.queue.retry import RetryPolicy
from restante.queue.scheduler import Scheduler
from restante.queue.slots import queue_slots
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.service.own_queue import OwnQueue
from restante.service.place import WorkerPlace
from restante.threads import in_thread

ADOPTION_INTERVAL = 10.0
"""Seconds between two looks for queues that no worker owns."""


class Queues:
    """Opens them, has what is in them tried, and gives them away."""

    def __init__(
        self,
        settings: Settings,
        place: WorkerPlace,
        live: LiveSettings,
        courier: Callable[[], Courier],
        forget_silence: Callable[[], None],
        ids: Iterator[str],
    ) -> None:
        """``forget_silence`` is called when an operator calls; ``ids`` are those of messages."""
        self._settings = settings
        self._root = settings.path(settings.queue.root)
        self._slot = place.slot
        self._fellows = place.generation.fellows
        self._is_needed = place.needs_queue
        self._courier = courier
        self._reporter = Derived(live, _reporter)
        self._forget_silence = forget_silence
        self._ids = ids
        self.own = OwnQueue(self._directory_of(place.slot), partial(self._open, place.slot))
        """Where what is received waits."""
        self._running: dict[int, RunningQueue] = {}
        self._unusable: dict[int, str] = {}
        """Queues that others left and why they cannot be adopted."""
        self._unsettled: dict[int, QueueStore] = {}
        """Those whose last owner's pick-up cannot be put in order yet."""

    async def open(self) -> QueueStore | None:
        """The worker's own, as ``OwnQueue.open`` has it, and have it moved."""
        store = await self.own.open(needed=self._is_needed)
        if store is not None:
            self._run(self._slot, store)
        return store

    async def open_later(self) -> QueueStore:
        """The worker's own, as soon as it can be opened, and have it moved."""
        store = await self.own.open_later()
        self._run(self._slot, store)
        return store

    async def adopt_for_ever(self) -> None:
        """Deliver what other workers left; remove their queues when they are empty.

        A queue that a new generation has made and not locked yet may be taken here: it is
        empty, so it is given back at once, and its worker is patient.
        """
        while True:
            try:
                await self._adopt_all()
            except Exception as error:  # noqa: BLE001 - a bug must not end adoption, nor the stop
                maillog.unplanned("adoption of queues", error)
            await asyncio.sleep(ADOPTION_INTERVAL)

    def start_no_more(self) -> None:
        """Begin to stop, when none is opened or adopted any more: attempts may finish."""
        for queue in self._running.values():
            queue.start_no_more()

    async def come_to_rest(self) -> None:
        """Let attempts in progress finish; what did not is tried again later."""
        await asyncio.gather(*(queue.come_to_rest() for queue in self._running.values()))

    async def close(self) -> None:
        """Give all of them away; they have come to rest."""
        stores = [queue.store for queue in self._running.values()]
        await asyncio.gather(*(store.close() for store in (*stores, *self._unsettled.values())))

    def _directory_of(self, slot: int) -> str:
        return os.path.join(self._root, str(slot))

    def _open(self, slot: int) -> QueueStore:
        return QueueStore.open(self._root, slot, self._settings.queue.max_waiting)

    def _run(self, slot: int, store: QueueStore) -> None:
        settings = self._settings
        scheduler = Scheduler(
            store,
            self._courier,
            self._reporter,
            RetryPolicy(
                lifetime=settings.queue.queuelifetime,
                random=random.random,
                delay_notice=settings.queue.delay_notice,
            ),
            SystemClock(),
            self._ids.__next__,
            Limits(
                local=settings.queue.concurrencylocal,
                remote=settings.queue.concurrencyremote,
                per_lane=settings.relay.concurrency_per_destination,
                per_message=settings.relay.concurrency_per_message,
                programs=settings.queue.concurrencyprograms,
            ),
        )
        store.heed(self._forget_silence)
        self._running[slot] = RunningQueue(store, scheduler, settings.server.drain_timeout)

    # Adoption

    async def _adopt_all(self) -> None:
        for slot in self._left_by_others():
            try:
                await self._adopt(slot)
            except QueueTaken:
                continue  # its worker lives
            except (QueueUnusable, TemporaryError, OSError) as error:
                self._cannot_adopt(slot, str(error))
        await self._remove_emptied()

    async def _adopt(self, slot: int) -> None:
        """Raises QueueUnusable, TemporaryError and OSError; what was opened stays open then."""
        if slot not in self._unsettled:
            # In a thread, for a long queue takes long to open, and sessions are served.
            self._unsettled[slot] = await in_thread(self._take_over, slot)
        await settle(self._settings, slot, self._unsettled[slot])
        self._run(slot, self._unsettled.pop(slot))

    def _cannot_adopt(self, slot: int, why: str) -> None:
        """Mail waits there until an operator helps; told once, not at each look."""
        if self._unusable.get(slot) != why:
            self._unusable[slot] = why
            maillog.queue_failed(self._directory_of(slot), why)

    def _left_by_others(self) -> frozenset[int]:
        try:
            slots = queue_slots(self._root)
        except QueueUnusable as error:
            maillog.queue_failed(self._settings.queue.root, str(error))
            return frozenset()
        return slots - self._fellows - self._running.keys()

    def _take_over(self, slot: int) -> QueueStore:
        """The queue, and an end to what its worker was receiving when it was killed."""
        store = self._open(slot)
        shutil.rmtree(spool_of(self._settings, slot), ignore_errors=True)
        return store

    async def _remove_emptied(self) -> None:
        adopted = self._running.keys() - self._fellows
        for slot in [slot for slot in adopted if not self._running[slot].store.waiting]:
            try:
                await self._running.pop(slot).remove()
            except QueueUnusable as error:
                self._cannot_adopt(slot, str(error))
            else:
                self._unusable.pop(slot, None)


def spool_of(settings: Settings, slot: int) -> str:
    """Where the worker with a queue keeps what it is receiving."""
    return os.path.join(settings.path(settings.queue.root), "spool", str(slot))


def _reporter(settings: Settings) -> DsnReporter:
    return DsnReporter(settings.queue, settings.hostname)


class RunningQueue:
    """A queue that this worker owns, and what moves it."""

    def __init__(self, store: QueueStore, scheduler: Scheduler, grace: float) -> None:
        self.store = store
        self._scheduler = scheduler
        self._task = asyncio.create_task(scheduler.run(grace))

    def start_no_more(self) -> None:
        """Begin to stop: attempts in progress may finish."""
        self._scheduler.stop()

    async def come_to_rest(self) -> None:
        """Let attempts in progress finish; what did not is tried again later."""
        self._scheduler.stop()
        await self._task

    async def remove(self) -> None:
        """An adopted queue that is empty has served its time."""
        await self.come_to_rest()
        await self.store.remove()
