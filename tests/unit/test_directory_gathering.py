"""Who asks at the same time is asked for together, and nobody suffers from another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from restante.crowds import RECENT
from restante.directory import gathering as module
from restante.directory.engine import Rejected
from restante.directory.gathering import Gathering
from restante.errors import CannotKnow

MOST = 4
PLACES = 2
T = TypeVar("T")


class Server:
    """Answers when it is told to; a question that is a number is one that it rejects."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._answers: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()

    async def ask(self, questions: tuple[str, ...]) -> str:
        self.asked.append(questions)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._came.set()
        await answer
        if bad := [each for each in questions if each.isdigit()]:
            raise Rejected(f"what is {bad[0]}?")
        return "".join(questions)

    async def wait_for(self, statements: int) -> None:
        """Until so many have come in all."""
        async with asyncio.timeout(10):
            while len(self.asked) < statements:
                self._came.clear()
                await self._came.wait()

    async def answer(self, place: int = 0, error: Exception | None = None) -> None:
        """Answer the statement at ``place`` among those that wait; let all settle."""
        answer = self._answers.pop(place)
        if not answer.done():
            answer.set_exception(error) if error else answer.set_result(None)
        await _settle()


TOOK = 0.001
"""Seconds of a statement."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes because a busy machine lets it wait."""
    monkeypatch.setattr(module, "PATIENCE", 60.0)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends with time takes so long that a busy machine does not end it too soon."""
    monkeypatch.setattr(module, "MAX_GATHERING", 0.1)
    monkeypatch.setattr(module, "GATHERING", 0.1 / TOOK)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _started(question: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.create_task(question)
    await _settle()
    return task


async def _all_started(
    gathering: Gathering[str, str], *questions: tuple[str, ...]
) -> list[asyncio.Task[str]]:
    return [await _started(gathering.ask(each)) for each in questions]


async def test_one_after_another_go_at_once() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    for question in "ab":
        task = await _started(gathering.ask((question,)))
        await server.answer()
        assert await task == question
    assert server.asked == [("a",), ("b",)]


async def test_what_comes_meanwhile_goes_together() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    first, *others = await _all_started(gathering, ("a",), ("b", "c"), ("d",), ("b",))
    assert server.asked == [("a",)]
    await server.answer()
    assert await first == "a"
    await server.wait_for(2)
    assert server.asked == [("a",), ("b", "c", "d")]
    await server.answer()
    assert await asyncio.gather(*others) == ["bcd"] * 3


@pytest.mark.usefixtures("slowly")
async def test_those_that_went_do_not_fill_the_next_statement() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b", "c"), ("d",))
    await server.answer()
    await server.wait_for(2)
    tasks += await _all_started(gathering, ("e",))
    await asyncio.sleep(TOOK)
    await server.answer()
    tasks += await _all_started(gathering, ("f",))
    await server.wait_for(3)
    await server.answer()
    assert server.asked == [("a",), ("b", "c", "d"), ("e", "f")]
    await asyncio.gather(*tasks)


async def test_after_a_crowd_questions_gather_until_one_is_alone_again() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    first, *crowd = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.answer()
    await server.wait_for(2)
    await server.answer()
    followers = asyncio.gather(gathering.ask(("d",)), gathering.ask(("e",)))
    await server.wait_for(3)
    await server.answer()
    lonely = await _started(gathering.ask(("f",)))
    await server.wait_for(4)
    await server.answer()
    last = await _started(gathering.ask(("g",)))
    assert server.asked == [("a",), ("b", "c"), ("d", "e"), ("f",), ("g",)]
    await server.answer()
    assert await asyncio.gather(first, *crowd, lonely, last) == ["a", "bc", "bc", "f", "g"]
    assert list(await followers) == ["de", "de"]


@pytest.mark.usefixtures("slowly")
async def test_as_many_as_asked_before_gather_no_longer() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b",), ("c",))
    await asyncio.sleep(TOOK)
    await server.answer()
    tasks += await _all_started(gathering, ("d",))
    assert server.asked == [("a",), ("b", "c", "d")]
    await asyncio.sleep(TOOK)
    await server.answer()
    tasks += await _all_started(gathering, ("e",), ("f",))
    assert server.asked[2:] == []
    tasks += await _all_started(gathering, ("g",))
    assert server.asked[2:] == [("e", "f", "g")]
    await server.answer()
    assert await asyncio.gather(*tasks) == ["a", *["bcd"] * 3, *["efg"] * 3]


@pytest.mark.usefixtures("slowly")
async def test_a_crowd_that_has_gone_is_waited_for_a_few_times() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.answer()  # three: one was asked, and two waited
    went_at_once = []
    for number in range(RECENT):
        await server.wait_for(2 + number)
        await asyncio.sleep(TOOK)
        await server.answer()  # two
        tasks += await _all_started(gathering, ("d",), ("e",))
        went_at_once.append(len(server.asked) > 2 + number)
    assert went_at_once == [False] * (RECENT - 1) + [True]
    await server.answer()
    await asyncio.gather(*tasks)


async def test_enough_for_a_statement_gather_no_longer() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b", "c", "d", "e"))
    await server.answer()
    assert server.asked == [("a",), ("b", "c", "d", "e")]
    await server.answer()
    assert await asyncio.gather(*tasks) == ["a", "bcde"]


async def test_no_more_go_together_than_fit() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), *[(each,) for each in "bcdefg"], ("h", "i"))
    await server.answer()
    assert server.asked[1:] == [("b", "c", "d", "e"), ("f", "g", "h", "i")]
    await server.answer()
    await server.answer()
    assert await asyncio.gather(*tasks[1:]) == ["bcde"] * 4 + ["fghi"] * 3


async def test_nobody_waits_long_for_a_statement_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    hanging, other, third = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.wait_for(2)
    assert server.asked == [("a",), ("b", "c")]
    assert not hanging.done()
    await server.answer(1)
    assert (await other, await third) == ("bc", "bc")
    await server.answer()
    assert await hanging == "a"


async def test_no_more_statements_are_sent_than_can_be_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would carry one question each, and wait for those before them."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "MAX_PATIENCE", 60.0)
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b",))
    await server.wait_for(PLACES)
    for question in "cde":
        tasks += await _all_started(gathering, (question,))
        await asyncio.sleep(0.01)
    assert server.asked == [("a",), ("b",)]
    await server.answer()
    await server.wait_for(PLACES + 1)
    assert server.asked[PLACES:] == [("c", "d", "e")]
    await server.answer()
    await server.answer()
    assert await asyncio.gather(*tasks) == ["a", "b", *["cde"] * 3]


async def test_nobody_waits_for_ever_until_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "MAX_PATIENCE", 0.2)
    server = Server()
    gathering = Gathering(server.ask, MOST, 1)
    tasks = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.wait_for(2)
    assert server.asked == [("a",), ("b", "c")]
    monkeypatch.setattr(module, "MAX_PATIENCE", 60.0)
    tasks += await _all_started(gathering, ("d",))
    await server.answer()
    await asyncio.sleep(0.02)
    assert server.asked[2:] == [], "another is under way"
    await server.answer()
    await server.wait_for(3)
    await server.answer()
    assert await asyncio.gather(*tasks) == ["a", "bc", "bc", "d"]


async def test_who_is_cancelled_takes_nobody_along() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    first, *others = await _all_started(gathering, ("a",), ("b",), ("c",), ("d",))
    others[0].cancel()
    first.cancel()
    await server.wait_for(2)
    assert server.asked[1:] == [("c", "d")]
    others[1].cancel()
    await _settle()
    await server.answer(1)
    assert await others[2] == "cd"
    done = await asyncio.gather(first, *others[:2], return_exceptions=True)
    assert [type(each) for each in done] == [asyncio.CancelledError] * 3


async def test_without_an_answer_nobody_of_a_batch_knows() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    first, *others = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.answer()
    await server.wait_for(2)
    await server.answer(error=CannotKnow("gone"))
    assert await first == "a"
    for task in others:
        with pytest.raises(CannotKnow, match="gone"):
            await task
    after = await _started(gathering.ask(("d",)))
    await server.wait_for(3)
    await server.answer()
    assert await after == "d"


async def test_a_question_that_is_rejected_spoils_no_others() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b",), ("7",), ("c",))
    await server.answer()
    await server.wait_for(2)
    await server.answer()
    assert server.asked[2:] == [("b",), ("7",), ("c",)]
    for _ in range(3):
        await server.answer()
    assert (await tasks[1], await tasks[3]) == ("b", "c")
    with pytest.raises(Rejected, match="what is 7"):
        await tasks[2]


async def test_an_error_that_nobody_foresaw_reaches_those_who_asked() -> None:
    server = Server()
    gathering = Gathering(server.ask, MOST, PLACES)
    tasks = await _all_started(gathering, ("a",), ("b",), ("c",))
    await server.answer(error=ZeroDivisionError())
    await server.wait_for(2)
    await server.answer(error=ZeroDivisionError())
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in done] == [ZeroDivisionError] * 3
