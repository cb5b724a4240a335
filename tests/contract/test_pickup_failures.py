"""What is dropped outlives disks, threads and memory that fail while it is picked up."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from restante.drop.record import BadRecord
from restante.pickup import collector as collecting
from restante.pickup.letter import DroppedFile, Letter, Limits, read_letter
from restante.spool import Spool
from tests.support.dropped import World, file, qualified, until
from tests.support.events import capture_logs


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


class Scarce(ThreadPoolExecutor):
    """Threads that are wanted once when there is none."""

    def __init__(self, lacking: int) -> None:
        """``lacking``: how many pieces of work find one before."""
        super().__init__()
        self._before = lacking

    def submit(self, *work: Any) -> Future[Any]:  # type: ignore[override]
        self._before -= 1
        if self._before == -1:
            raise RuntimeError("can't start new thread")
        return super().submit(*work)


@pytest.mark.parametrize("lacking", range(10))
async def test_a_lack_of_threads_loses_nothing_at_any_step(
    world: World, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    asyncio.get_running_loop().set_default_executor(Scarce(lacking))
    world.drop(b"Subject: large\n\n" + b"x\n" * 140_000)
    with capture_logs() as events:
        assert len(await world.collect()) == 1
    assert world.left() == []
    assert {each["event"] for each in events} == {"drop_failed", "picked_up"}


async def test_a_lack_of_memory_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    failures = [MemoryError()]

    async def lacking(*rest: object) -> Letter:
        if failures:
            raise failures.pop()
        return await read_letter(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "read_letter", lacking)
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_a_full_queue_lets_mail_wait_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(collecting, "AT_ONCE", 1)
    world.store._max_waiting = 2
    for _ in range(5):
        world.drop()
    async with world.collecting():
        await until(lambda: world.store.waiting == 2 and len(world.left()) == 3)
        world.store._max_waiting = 0
        await until(lambda: world.store.waiting == 5)
    assert world.left() == []


async def test_a_spool_that_fails_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    world.spool.rmdir()
    world.spool.touch()
    world.drop(b"Subject: large\n\n" + b"x\n" * 140_000)
    world.drop()
    async with world.collecting():
        await until(lambda: world.store.waiting == 1)
        world.spool.unlink()
        await until(lambda: world.store.waiting == 2)
    assert world.left() == []


async def test_a_disk_that_reads_only_a_part_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives what it could read, and its error the next time."""
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    content = b"Subject: x\n\n" + b"x\n" * 5000
    real, times = os.read, itertools.count(1)

    def failing(descriptor: int, size: int) -> bytes:
        if not 1000 < size <= len(content):  # the envelope, or the FIFO
            return real(descriptor, size)
        if next(times) == 3:
            raise OSError(errno.EIO, "a disk that fails")
        return real(descriptor, 1000)

    monkeypatch.setattr(os, "read", failing)
    world.drop(content)
    (message,) = await world.collect()
    assert message.content.read().endswith(content)
    assert world.left() == []


async def test_a_file_that_becomes_shorter_is_no_message(world: World) -> None:
    path = os.path.join(world.paths.incoming, world.put(file()))
    dropped = DroppedFile(path)
    os.truncate(path, len(file()) - 1)
    with pytest.raises(BadRecord, match="shorter"):
        await read_letter(
            dropped, Spool(str(world.spool), 1000, 1000), Limits(0, 100), "mx", "id", 0.0, qualified
        )
    dropped.close()


# What a crash leaves
