"""What is written together: on a slow disk a batch waits for those who are likely to come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from restante.crowds import RECENT
from restante.mda import Delivery
from restante.mda import writer as module
from restante.mda.writer import QUICK, BatchWriter
from restante.status import Delivered, Outcome
from tests.support.deliveries import CONTENT, HOST, delivery, envelope
from tests.support.faulty_disk import FaultyDisk
from tests.support.helpers import passable_directory

LONG = 60.0
"""Seconds that a batch is gathered here: whoever waits for the end of that is noticed."""
SOON = 10.0


class SlowDisk(FaultyDisk):
    """Each batch takes its time, if told so; and counts the files of each."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = True
        self.batches = [0]
        self.faults = dict.fromkeys(("fsync", "syncfs"), self._sync)
        self.faults["create"] = self._create

    def _create(self, _name: str) -> int:
        self.batches[-1] += 1
        return 0

    def _sync(self, _name: str) -> int:
        if self.batches[-1]:
            self.batches.append(0)
        if self.is_slow:
            time.sleep(QUICK)
        return 0


@pytest.fixture
def root() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
async def writer(disk: SlowDisk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchWriter]:
    monkeypatch.setattr(module, "MAX_GATHERING", LONG)
    writer = BatchWriter(HOST, 1, 1, disk)
    yield writer
    await writer.close()


class Sessions:
    """Each with a mailbox of its own."""

    def __init__(self, writer: BatchWriter, root: Path) -> None:
        self._writer = writer
        self._root = root
        self._sent = 0

    def send(self, count: int) -> asyncio.Future[list[Outcome]]:
        """So many messages at a time, which are with the writer in the next turn of the loop."""
        first, self._sent = self._sent, self._sent + count
        return asyncio.gather(
            *(
                self._writer.deliver_all(envelope(first + each), CONTENT, [self._mailbox(each)])
                for each in range(count)
            )
        )

    def _mailbox(self, number: int) -> Delivery:
        return delivery(self._root, f"user{number}")


@pytest.fixture
def sessions(writer: BatchWriter, root: Path) -> Sessions:
    return Sessions(writer, root)


async def delivered(*groups: asyncio.Future[list[Outcome]]) -> None:
    async with asyncio.timeout(SOON):
        outcomes: Sequence[list[Outcome]] = await asyncio.gather(*groups)
    assert all(isinstance(each, Delivered) for group in outcomes for each in group)


async def test_a_batch_begins_when_as_many_are_here_as_before(
    sessions: Sessions, disk: SlowDisk
) -> None:
    await delivered(sessions.send(3))
    early = sessions.send(2)
    await asyncio.sleep(0.05)
    assert not early.done()
    await delivered(early, sessions.send(1))
    assert disk.batches == [3, 3, 0]


async def test_those_who_do_not_come_any_more_are_not_waited_for_again_and_again(
    sessions: Sessions, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GATHERING", 0.0)
    await delivered(sessions.send(3))
    for _ in range(RECENT):
        await delivered(sessions.send(2))
    monkeypatch.setattr(module, "MAX_GATHERING", LONG)
    await delivered(sessions.send(2))
    assert disk.batches == [3, *[2] * (RECENT + 1), 0]


async def test_where_the_disk_is_quick_nobody_waits(
    sessions: Sessions, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", LONG)
    disk.is_slow = False
    await delivered(sessions.send(3))
    await delivered(sessions.send(2))
    assert disk.batches == [3, 2, 0]


async def test_whoever_closes_waits_for_nobody(
    sessions: Sessions, writer: BatchWriter, disk: SlowDisk
) -> None:
    await delivered(sessions.send(3))
    last = sessions.send(2)
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        await writer.close()
    await delivered(last)
    assert disk.batches == [3, 2, 0]


async def test_no_more_are_waited_for_than_fit(
    sessions: Sessions, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 2)
    await delivered(sessions.send(6))
    assert disk.batches == [2, 2, 2, 0]


async def test_large_messages_are_written_a_few_at_a_time(
    sessions: Sessions, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", LONG)
    monkeypatch.setattr(module, "MAX_OCTETS", 2 * CONTENT.body_size)
    await delivered(sessions.send(5))
    monkeypatch.setattr(module, "MAX_OCTETS", CONTENT.body_size - 1)
    await delivered(sessions.send(2))
    assert disk.batches == [2, 2, 1, 1, 1, 0]


async def test_who_is_alone_never_waits(sessions: Sessions, disk: SlowDisk) -> None:
    for _ in range(2):
        await delivered(sessions.send(1))
    assert disk.batches == [1, 1, 0]
