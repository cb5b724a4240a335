"""What takes too long is ended as ``asyncio.timeout_at`` ends it, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from restante.directory.overdue import Overdue

SOON = 0.02
"""Seconds that a test waits for a timer."""
NEVER = 3600.0


def _then(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _answer() -> str:
    await asyncio.sleep(0)
    return "answer"


async def test_an_answer_in_time() -> None:
    overdue = Overdue()
    assert await overdue.by(_then(NEVER), _answer()) == "answer"
    assert await overdue.by(_then(NEVER), _answer()) == "answer"
    overdue.close()


async def test_an_error_of_its_own() -> None:
    async def fail() -> None:
        raise OSError("gone")

    overdue = Overdue()
    with pytest.raises(OSError, match="gone"):
        await overdue.by(_then(NEVER), fail())
    overdue.close()


async def test_what_takes_too_long_is_cancelled() -> None:
    overdue = Overdue()
    ended = []

    async def hang() -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            ended.append("hang")

    with pytest.raises(TimeoutError):
        await overdue.by(_then(SOON), hang())
    assert ended == ["hang"]
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert await overdue.by(_then(NEVER), _answer()) == "answer"
    overdue.close()


async def test_each_has_its_own_time() -> None:
    """A later one may end first, and one that ends leaves the others alone."""
    overdue = Overdue()
    order = []

    async def hang(name: str, seconds: float) -> None:
        try:
            await overdue.by(_then(seconds), asyncio.sleep(NEVER))
        except TimeoutError:
            order.append(name)

    patient = asyncio.create_task(overdue.by(_then(NEVER), _gone_after(4 * SOON)))
    await asyncio.gather(hang("third", 3 * SOON), hang("first", SOON), hang("second", 2 * SOON))
    assert order == ["first", "second", "third"]
    assert await patient == "here"
    overdue.close()


async def _gone_after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "here"


async def test_who_is_cancelled_is_cancelled() -> None:
    overdue = Overdue()
    task = asyncio.create_task(overdue.by(_then(NEVER), asyncio.sleep(NEVER)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    overdue.close()


async def test_who_is_cancelled_and_late_is_cancelled() -> None:
    """Whoever cancelled the task sees it end so, also if its time was up at the same moment."""
    overdue = Overdue()

    async def hang() -> None:
        try:
            await asyncio.sleep(NEVER)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def ask() -> None:
        await overdue.by(_then(SOON), hang())

    task = asyncio.create_task(ask())
    with pytest.raises(asyncio.CancelledError):
        await task
    overdue.close()


async def test_what_ends_otherwise_when_its_time_is_up_leaves_no_trace() -> None:
    """The task is not taken for one that somebody has cancelled, which nobody would take back."""

    async def fail() -> str:
        try:
            await asyncio.sleep(NEVER)
        except asyncio.CancelledError:
            raise OSError("gone") from None
        return "never"

    async def answer_late() -> str:
        try:
            await asyncio.sleep(NEVER)
        except asyncio.CancelledError:
            return "late"
        return "never"

    overdue = Overdue()
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(OSError, match="gone"):
        await overdue.by(_then(SOON), fail())
    assert not task.cancelling()
    assert await overdue.by(_then(SOON), answer_late()) == "late"
    assert not task.cancelling()
    overdue.close()


def test_several_are_late_at_the_same_moment_in_the_loop_of_a_worker() -> None:
    """uvloop makes no timer of what is due within half a millisecond."""

    async def late(overdue: Overdue, seconds: float) -> bool:
        try:
            await overdue.by(_then(seconds), asyncio.sleep(NEVER))
        except TimeoutError:
            return True
        return False

    async def ask() -> list[bool]:
        overdue = Overdue()
        seconds = (0.0, SOON + 0.0003, -1.0, SOON, 0.0001)
        return await asyncio.gather(*[late(overdue, each) for each in seconds])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == [True] * 5
