"""Where a worker's threads run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from restante import processors
from restante.net.shares import Board, Share
from restante.processors import ROAMING, Berth, own_processor, roam

USABLE = os.sched_getaffinity(0)
ONE = max(USABLE)


@pytest.fixture
def share() -> Share:
    return Board(1).share(0)


@pytest.fixture(autouse=True)
def _everywhere_again() -> Iterator[None]:
    yield
    os.sched_setaffinity(0, USABLE)


@contextmanager
def thread(name: str) -> Iterator[int]:
    """The kernel's number of a thread that waits."""
    end = threading.Event()
    waiting = threading.Thread(target=end.wait, name=name)
    waiting.start()
    try:
        assert waiting.native_id is not None
        yield waiting.native_id
    finally:
        end.set()
        waiting.join()


def test_each_worker_has_one_where_there_is_a_worker_for_each() -> None:
    workers = len(USABLE)
    if workers == 1:
        assert own_processor(0, 1) is None
    else:
        own = [own_processor(number, workers) for number in range(workers)]
        assert own == sorted(USABLE)
        assert own_processor(workers, 2 * workers) == min(USABLE)
        assert own_processor(0, workers - 1) is None


async def test_a_crowd_keeps_the_threads_together(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "REVIEW", 0.01)
    berth = Berth(ONE, share)
    with ExitStack() as stack:
        writer = stack.enter_context(thread("writer"))
        roaming = stack.enter_context(thread(ROAMING + "hashing"))
        share.enter()
        berth.arrived()
        assert os.sched_getaffinity(0) == USABLE
        share.enter()
        berth.arrived()
        assert os.sched_getaffinity(0) == os.sched_getaffinity(writer) == {ONE}
        assert os.sched_getaffinity(roaming) == USABLE
        await asyncio.sleep(0.03)
        assert os.sched_getaffinity(writer) == {ONE}, "the crowd is still there"
        share.leave()
        async with asyncio.timeout(60):
            while os.sched_getaffinity(0) != USABLE:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert os.sched_getaffinity(writer) == USABLE


async def test_a_worker_without_one_stays_free(share: Share) -> None:
    berth = Berth(None, share)
    for _ in range(3):
        share.enter()
        berth.arrived()
    assert os.sched_getaffinity(0) == USABLE
    berth.close()


async def test_what_roams_leaves_the_place_of_its_worker(share: Share) -> None:
    berth = Berth(ONE, share)
    share.enter()
    share.enter()
    berth.arrived()
    with ThreadPoolExecutor(1, ROAMING + "hashing", initializer=roam) as executor:
        assert executor.submit(os.sched_getaffinity, 0).result() == USABLE
    berth.close()
