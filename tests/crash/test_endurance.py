"""A few kills of the long campaign (make endurance), so that it is known to work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endurance.flat import run
from tests.endurance.kills import campaign


def test_every_promise_is_kept_over_kills(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = campaign(
        tmp_path / "site", kills=4, period=2, life=0.8, pace=0.05, seed=1, tell=told.append
    )
    assert outcome.faults == []
    assert outcome.kills.total() == 4
    assert outcome.acknowledged >= 4
    assert len(told) == 2


def test_nobody_hears_what_he_must_not(tmp_path: Path) -> None:
    told: list[str] = []
    course = run(
        tmp_path / "site",
        seconds=4.0,
        interval=0.3,
        pace=0.05,
        looks=3,
        seed=1,
        tell=told.append,
    )
    assert course.complaints == []
    assert course.acknowledged > 10
    assert len(course.samples) == len(told) > 1
    assert course.samples[0].processes >= 3


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 6))
def test_every_promise_is_kept_over_many_kills(tmp_path: Path, seed: int) -> None:
    outcome = campaign(
        tmp_path / "site", kills=75, period=25, life=2.0, seed=seed, tell=lambda _: None
    )
    assert outcome.faults == []
