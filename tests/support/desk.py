"""A scheduler at work on a real queue, with a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from restante.config.tree import DAY, Queue
from restante.dsn.reporter import DsnReporter
from restante.envelope import Envelope
from restante.queue import Courier, Reporter, Target
from restante.queue.retry import RetryPolicy
from restante.queue.scheduler import Scheduler
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from tests.support.jumping_clock import PATIENCE, JumpingClock, until
from tests.support.queued import content, limits, new_id, targets

Event = MutableMapping[str, Any]


class Desk:
    """A scheduler at work on a queue below ``root``."""

    def __init__(
        self,
        root: Path,
        clock: JumpingClock,
        courier: Courier,
        reporter: Reporter | None = None,
        store: QueueStore | None = None,
        most: Limits | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.clock = clock
        self.store = store or QueueStore.open(str(root), 0)
        reports = reporter or DsnReporter(Queue(), "mail.example.com")
        self.scheduler = Scheduler(
            self.store,
            lambda: courier,
            lambda: reports,
            policy or RetryPolicy(DAY, lambda: 0.0),
            clock,
            new_id,
            most or limits(),
        )
        self._run = asyncio.ensure_future(self.scheduler.run(grace=PATIENCE))

    async def queue(self, sent: Envelope, *goals: str) -> str:
        await self.store.add(sent, content(), targets(*(goals or map(str, sent.recipients))))
        return sent.queue_id

    async def queue_in_lanes(self, sent: Envelope, *addresses: str) -> str:
        """Queue for addresses each of whose domain is its lane."""
        goals = [Target(each, lane=each.rpartition("@")[2]) for each in addresses]
        await self.store.add(sent, content(), goals)
        return sent.queue_id

    async def rest(self) -> None:
        """Wait until nothing moves and only time can change that."""
        await until(lambda: self.scheduler.moving == 0 and self.clock.resting > 0)

    async def pass_time(self, seconds: float) -> None:
        """Live through so many seconds."""
        end = self.clock.now() + seconds
        await self.rest()
        while self.clock.next < end:
            self.clock.jump()
            await self.rest()
        self.clock.set(end)

    async def stop(self) -> None:
        self.scheduler.stop()
        await self._run
        await self.store.close()


@asynccontextmanager
async def at_work(
    root: Path,
    clock: JumpingClock,
    courier: Courier,
    reporter: Reporter | None = None,
    store: QueueStore | None = None,
    most: Limits | None = None,
    policy: RetryPolicy | None = None,
) -> AsyncIterator[Desk]:
    desk = Desk(root, clock, courier, reporter, store, most, policy)
    try:
        yield desk
    finally:
        await desk.stop()


def names(events: Sequence[Event]) -> list[str]:
    return [event["event"] for event in events if event["event"] != "queue_opened"]
