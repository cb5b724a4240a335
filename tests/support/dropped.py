"""An instance's drop directory, and what lies in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from restante.address import Address
from restante.config.tree import Server, Settings, Smtp
from restante.drop import DropPaths, new_names
from restante.drop.deposit import Deposit, finish
from restante.drop.record import Head, Recipient, Record, encode, encode_head
from restante.pickup.claims import claim, claimed_by, look
from restante.pickup.collector import BATCH, Collector
from restante.pickup.place import prepare
from restante.queue import QueuedMessage
from restante.queue.store import QueueStore
from tests.support.instance import PATIENCE
from tests.support.queued import due, limits, new_id

HELLO = b"Subject: hello\n\nhello\n"

HELLO = b"Subject: hello\n\nhello\n"
SLOT = 3


def qualified(address: Address) -> Address:
    """As a router with ``here.example`` for envnoathost."""
    return address if address.domain else Address(address.local, "here.example")


class World:
    """An instance's drop directory and one queue."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(
            str(directory),
            server=Server(me="mx.example.com"),
            smtp=Smtp(databytes=300_000, max_header=2000, max_received=20),
        )
        prepare(self.settings)
        self.paths = DropPaths.of(str(directory))
        self.root = directory / "queue"
        self.spool = directory / "spool"
        self.spool.mkdir(exist_ok=True)
        self.store = self.open()

    def open(self) -> QueueStore:
        return QueueStore.open(str(self.root), SLOT)

    def collector(self) -> Collector:
        return Collector(self.settings, SLOT, self.store, new_id, str(self.spool), qualified)

    def drop(self, content: bytes = HELLO, record: Record | None = None) -> None:
        deposit = Deposit(self.paths, record or to("ann@example.com"))
        deposit.write(content)
        finish(self.paths, [deposit])

    def put(self, octets: bytes) -> str:
        """A file as a hostile user might leave it; its name."""
        _, name = new_names()
        (Path(self.paths.incoming) / name).write_bytes(octets)
        return name

    def claim(self, slot: int = SLOT) -> list[str]:
        """Have all that was dropped claimed for the queue of ``slot``; their names."""
        return claim(self.paths, claimed_by(self.paths, slot), look(self.paths, BATCH))

    def left(self) -> list[str]:
        """Whatever lies in the drop directory's folders, by its path there.

        A file may be moved from ``claimed`` to ``incoming`` and back meanwhile, so that one of
        them is looked at twice.
        """
        folders = (self.paths.claimed, self.paths.incoming, self.paths.claimed, self.paths.bad)
        found = [
            os.path.relpath(os.path.join(place, name), self.paths.root)
            for folder in folders
            for place, _, names in os.walk(folder)
            for name in names
        ]
        return list(dict.fromkeys(found))

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[Collector]:
        collector = self.collector()
        collector.start()
        try:
            yield collector
        finally:
            await collector.stop(PATIENCE)

    async def pick_up(self) -> None:
        """Until nothing is left to be picked up."""
        async with self.collecting():
            await until(lambda: all(each.startswith("bad/") for each in self.left()))

    async def collect(self) -> list[QueuedMessage]:
        """Pick up until nothing is left to be picked up; what is in the queue then."""
        await self.pick_up()
        return await due(self.store, float("inf"), limits(local=1000, per_lane=1000))


def to(*addresses: str, sender: str = "iain@example.com") -> Record:
    return Record(sender, tuple(Recipient(address) for address in addresses))


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - a directory sends no events
            await asyncio.sleep(0.005)


GOOD = encode(to("ann@example.com"))


def file(envelope: bytes = GOOD, content: bytes = HELLO) -> bytes:
    return encode_head(Head(len(envelope), len(content))) + envelope + content


def recorded(*recipients: Recipient, sender: str = "", ret: str = "", envid: str = "") -> bytes:
    people = recipients or (Recipient("ann@example.com"),)
    return file(encode(Record(sender, people, ret, envid)))


async def reopened(world: World) -> None:
    """As after the end of the process."""
    await world.store.close()
    world.store = world.open()
