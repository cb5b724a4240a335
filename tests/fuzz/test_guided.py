"""Every target that ``make fuzz`` runs bears its seeds, and what chance makes of them."""

from __future__ import annotations

import random

import pytest

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
