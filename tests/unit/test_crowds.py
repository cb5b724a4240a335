"""How many came together lately."""

from __future__ import annotations

from restante.crowds import RECENT, Crowds


def test_at_first_nobody_is_missing() -> None:
    crowds = Crowds()
    assert crowds.last == 0
    assert crowds.are_all_here(0)


def test_as_many_as_the_largest_of_the_recent_ones_are_all() -> None:
    crowds = Crowds()
    for count in (3, 5, 2):
        crowds.note(count)
    assert crowds.last == 2
    assert not crowds.are_all_here(4)
    assert crowds.are_all_here(5)


def test_what_came_long_ago_counts_no_more() -> None:
    crowds = Crowds()
    crowds.note(5)
    for _ in range(RECENT - 1):
        crowds.note(1)
    assert not crowds.are_all_here(4)
    crowds.note(1)
    assert crowds.are_all_here(1)
