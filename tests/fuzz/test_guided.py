"""Every target that ``make fuzz`` runs bears its seeds, and what chance makes of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.guided.campaign import Outcome, outcome_of
from tests.guided.mutation import mutations
from tests.guided.target import Target
from tests.guided.targets import ROOMS, TARGETS

CHANCES = 100
"""Inputs for each target."""


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target(target: Target) -> None:
    for data in (b"", *target.seeds, *mutations(target, random.Random(target.name), CHANCES)):
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{target.name} with {data!r}") from error


def test_no_two_targets_have_one_name() -> None:
    assert len(TARGETS) == sum(len(room.TARGETS) for room in ROOMS)


LOG = """
INFO: seed corpus: files: 2 min: 1b max: 4b total: 5b rss: 40Mb
#3\tINITED cov: 5 ft: 6 corp: 2/5b exec/s: 0 rss: 40Mb
#64\tNEW    cov: 17 ft: 20 corp: 3/9b lim: 4 exec/s: 32 rss: 41Mb L: 4/4 MS: 1 CopyPart-
"""
STATISTICS = """
stat::number_of_executed_units: 100
stat::average_exec_per_sec:     50
"""


def test_what_libfuzzer_says_is_understood() -> None:
    """That it has found something it says before it counts, and then it does not always count."""
    finding = Path("findings/crash-1")
    found = outcome_of("address", LOG, (finding,), "")
    assert found == Outcome("address", 64, 0, 17, (finding,))
    assert not found.is_clean
    assert str(found).splitlines() == [
        "address: 64 executions, 0/s, 17 edges, 1 findings",
        "    python -m tests.guided address --replay findings/crash-1",
    ]
    assert outcome_of("address", LOG + STATISTICS, (), "") == Outcome("address", 100, 50, 17, ())
    assert not outcome_of("address", "", (), "it ended with status 1").is_clean
