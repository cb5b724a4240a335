"""Which of the workers is due to take a connection."""

from __future__ import annotations

from restante.net.shares import Board, Share


def shares(workers: int) -> list[Share]:
    board = Board(workers)
    mine = [board.share(number) for number in range(workers)]
    for share in mine:
        share.open()
    return mine


def test_who_holds_about_as_few_as_anybody_is_due() -> None:
    one, other = shares(2)
    one.enter()
    assert one.is_due
    one.enter()
    assert not one.is_due
    assert other.is_due
    other.enter()
    assert one.is_due


def test_who_accepts_nothing_is_not_waited_for() -> None:
    board = Board(3)
    mine, closed, ended = (board.share(number) for number in range(3))
    for share in (mine, closed, ended):
        share.open()
    for _ in range(5):
        mine.enter()
    closed.close()
    assert not mine.is_due
    board.forget(2)
    assert mine.is_due


def test_whoever_is_closed_says_no_more_of_itself() -> None:
    one, other = shares(2)
    for _ in range(3):
        one.enter()
        other.enter()
    one.close()
    one.leave()
    other.enter()
    other.enter()
    assert other.is_due


def test_whoever_waits_is_called_once_when_it_is_due() -> None:
    mine, _ = shares(2)
    called = []

    def resume() -> None:
        called.append(mine.held)

    for _ in range(4):
        mine.enter()
    mine.when_due(resume)
    mine.when_due(resume)
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
