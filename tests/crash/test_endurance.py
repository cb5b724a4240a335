"""A few kills of the long campaign (make endurance), so that it is known to work."""

from __future__ import annotations

from pathlib import Path

from tests.endurance.kills import campaign


def test_every_promise_is_kept_over_kills(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = campaign(tmp_path / "site", kills=6, period=3, life=0.8, seed=1, tell=told.append)
    assert outcome.faults == []
    assert outcome.kills.total() == 6
    assert outcome.acknowledged > 100
    assert len(told) == 2
