"""A worker's own queue, which has to wait where its disk is full when the worker starts.

Whoever fetches and deletes mail is served meanwhile, for that makes room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from restante import maillog
from restante.envelope import Content, Envelope
from restante.queue import QueueFailed, QueueTaken, QueueUnusable, QueueWithoutRoom, Target
from restante.queue.store import QueueStore
from restante.threads import NoThread, in_thread

PREDECESSOR_PATIENCE = 5.0
"""Seconds to wait for a killed process to be gone from the worker's own queue."""
PREDECESSOR_INTERVAL = 0.05
ROOM_INTERVAL = 5.0
"""Seconds between two attempts to open a queue on a disk that was full."""


class OwnQueue:
    """Where messages wait (``receiver.WaitingRoom``); nowhere, until the queue is open."""

    def __init__(self, directory: str, opened: Callable[[], QueueStore]) -> None:
        """``opened`` opens the queue in ``directory``: it blocks, and raises QueueUnusable."""
        self._directory = directory
        self._opened = opened
        self._store: QueueStore | None = None
        self._why = ""

    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        """Queue a message, due at once; durable on return. Raises TemporaryError."""
        if self._store is None:
            raise QueueFailed(self._why)
        await self._store.add(envelope, content, targets)

    async def open(self, *, needed: bool) -> QueueStore | None:
        """Before anybody is served; None: that is for ``open_later``, unless it is ``needed`` now.

        There is no room for it. A predecessor that was killed may hold the queue for a moment
        longer. Raises QueueUnusable.
        """
        deadline = time.monotonic() + PREDECESSOR_PATIENCE
        while True:
            try:
                self._store = self._opened()
            except QueueTaken:
                if time.monotonic() > deadline:
                    raise
            except QueueWithoutRoom as error:
                if needed:
                    raise
                self._closed(str(error))
                return None
            else:
                return self._store
            await asyncio.sleep(PREDECESSOR_INTERVAL)

    async def open_later(self) -> QueueStore:
        """As soon as it can be opened."""
        while self._store is None:
            await asyncio.sleep(ROOM_INTERVAL)
            try:
                # In a thread, for a long queue takes long to open, and sessions are served.
                self._store = await in_thread(self._opened)
            except (QueueUnusable, NoThread) as error:
                self._closed(str(error))
            except Exception as error:  # noqa: BLE001 - a bug must not be the last attempt
                maillog.unplanned("the opening of a queue", error)
        return self._store

    def _closed(self, why: str) -> None:
        """Nothing can wait; told once, not at each attempt."""
        if why != self._why:
            self._why = why
            maillog.queue_failed(self._directory, why)
