"""Which of the workers is due to take a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from restante.net import shares as module
from restante.net.shares import COMPANY, WHILE, Board, Share

PLENTY = 1000
"""Connections that a worker may hold."""


def shares(workers: int) -> list[Share]:
    board = Board(workers)
    mine = [board.share(number) for number in range(workers)]
    for share in mine:
        share.open()
    return mine


def test_who_holds_about_as_few_as_anybody_is_due() -> None:
    one, other = shares(2)
    one.enter()
    assert one.due() == 0
    one.enter()
    assert one.due() == 1
    assert other.due() == 1
    other.enter()
    assert one.due() == 0


def test_others_change_their_figures_at_any_time() -> None:
    board = Board(2)
    mine, other = board.share(0), board.share(1)
    mine.open()
    other.open()
    other.enter()
    for _ in range(5):
        mine.enter()
    held = Restless(mine._figures.held, other.enter)
    mine._figures = mine._figures._replace(held=cast("memoryview[int]", held))
    assert mine.due() == 1


class Restless:
    """Figures of which one changes after each look at them."""

    def __init__(self, figures: memoryview[int], change: Callable[[], None]) -> None:
        self._figures = figures
        self._change = change

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def tolist(self) -> list[int]:
        found = self._figures.tolist()
        self._change()
        return found


def test_who_accepts_nothing_is_not_waited_for() -> None:
    board = Board(3)
    mine, closed, ended = (board.share(number) for number in range(3))
    for share in (mine, closed, ended):
        share.open()
    for _ in range(5):
        mine.enter()
    closed.close()
    assert mine.due() != 0
    board.forget(2)
    assert mine.due() == 0


def test_whoever_is_closed_says_no_more_of_itself() -> None:
    one, other = shares(2)
    for _ in range(3):
        one.enter()
        other.enter()
    one.close()
    one.leave()
    other.enter()
    other.enter()
    assert other.due() == 1


def test_whoever_waits_is_called_once_when_it_is_due() -> None:
    mine, _ = shares(2)
    called = []

    def resume() -> None:
        called.append(mine.held)

    for _ in range(4):
        mine.enter()
    mine.when_due(resume, mine.due)
    mine.when_due(resume, mine.due)
    for _ in range(4):
        mine.leave()
    assert called == [1]


def test_the_most_since_the_last_question() -> None:
    (share,) = shares(1)
    for _ in range(3):
        share.enter()
    share.leave()
    assert share.most() == 3
    assert share.most() == 2
    share.leave()
    share.leave()
    assert (share.most(), share.most()) == (2, 0)


def due(workers: list[Share], company: int = COMPANY, capacity: int = PLENTY) -> list[bool]:
    """Which of them is to take the next session that is better off in company."""
    return [share.is_own(share.due_for_company(company, capacity)) for share in workers]


def test_sessions_that_like_company_come_to_the_first_that_has_room() -> None:
    one, other = both = shares(2)
    for _ in range(COMPANY):
        assert due(both) == [True, False]
        one.enter(in_company=True)
    for _ in range(COMPANY):
        assert due(both) == [False, True]
        other.enter(in_company=True)
    assert due(both) == [True, True]
    one.leave(in_company=True)
    assert due(both) == [True, False]


def test_where_nobody_has_room_they_are_spread() -> None:
    one, other = both = shares(2)
    for share, count in ((one, COMPANY + 2), (other, COMPANY)):
        for _ in range(count):
            share.enter(in_company=True)
    assert due(both) == [False, True]


def test_company_may_be_smaller() -> None:
    one, _ = both = shares(2)
    for _ in range(3):
        one.enter(in_company=True)
    assert due(both, company=4) == [True, False]
    assert due(both, company=3) == [False, True]


def test_others_are_no_company() -> None:
    one, _ = both = shares(2)
    for _ in range(COMPANY):
        one.enter()
    assert due(both) == [True, False]


def test_who_is_full_has_no_room_for_company() -> None:
    one, _ = both = shares(2)
    for _ in range(3):
        one.enter()
    assert due(both, capacity=4) == [True, False]
    assert due(both, capacity=3) == [False, True]


def test_who_accepts_nothing_has_no_room_for_company() -> None:
    board = Board(3)
    three = [board.share(number) for number in range(3)]
    assert due(three) == [True, True, True]  # nobody does yet, and whoever begins may
    for share in three:
        share.open()
        share.enter(in_company=True)
    three[0].close()
    assert due(three) == [False, True, False]
    board.forget(1)
    assert due(three) == [False, False, True]


def test_a_successor_begins_without_company() -> None:
    board = Board(2)
    ended, other = board.share(0), board.share(1)
    for share in (ended, other):
        share.open()
    for _ in range(COMPANY):
        ended.enter(in_company=True)
    board.forget(0)
    successor = board.share(0)
    successor.open()
    assert due([successor, other]) == [True, False]


def test_who_is_busy_has_no_room_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, processor = Clock(), Clock()
    monkeypatch.setattr(module, "time", Times(clock, processor))
    both = shares(2)
    for taken, are_due in ((module.BUSY - 0.01, [True, False]), (1.0, [False, True])):
        clock.now += WHILE
        processor.now += taken * WHILE
        assert due(both) == are_due
    clock.now += WHILE
    assert due(both) == [True, False]


def test_who_was_busy_for_a_moment_only_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, processor = Clock(), Clock()
    monkeypatch.setattr(module, "time", Times(clock, processor))
    both = shares(2)
    clock.now += module.LOOK / 2
    processor.now += module.LOOK / 2
    assert due(both) == [True, False]
    clock.now += module.LOOK
    assert due(both) == [True, False]


def test_what_was_long_ago_says_nothing_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, processor = Clock(), Clock()
    monkeypatch.setattr(module, "time", Times(clock, processor))
    both = shares(2)
    clock.now += 100
    processor.now += 100
    assert due(both) == [True, False]
    clock.now += 2 * module.LOOK
    processor.now += 2 * module.LOOK
    assert due(both) == [False, True]


def test_what_each_has_taken() -> None:
    one, other = shares(2)
    one.enter()
    one.enter(in_company=True)
    one.leave()
    other.enter()
    assert [share.taken_by(number) for share in (one, other) for number in (0, 1)] == [2, 1] * 2


class Clock:
    """Seconds."""

    def __init__(self) -> None:
        self.now = 100.0


class Times:
    """What the module asks for the time, and for the processor's."""

    def __init__(self, clock: Clock, processor: Clock) -> None:
        self._clock = clock
        self._processor = processor

    def monotonic(self) -> float:
        return self._clock.now

    def process_time(self) -> float:
        return self._processor.now


def test_who_accepts_connections() -> None:
    board = Board(2)
    share = board.share(1)
    assert not board.is_open(1)
    share.open()
    assert board.is_open(1)
    assert not board.is_open(0)
    share.close()
    assert not board.is_open(1)
