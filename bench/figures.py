"""What came out: the figures of rounds, their middle and spread, and what a goal makes of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Better(StrEnum):
    """Which of two figures is the better one."""

    MORE = "more"
    LESS = "less"


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one entrant in one row, a value a round."""

    entrant: str
    values: tuple[float, ...]
    processor: Mapping[str, float] = field(default_factory=dict)
    """By component: seconds of processor time for 1,000 units; the median of the rounds."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """By component: MiB at the most; empty where it was not looked at."""
    calls: Mapping[str, float] = field(default_factory=dict)
    """System calls for one unit, by name; empty where none were counted."""

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.values), max(self.values)


@dataclass(frozen=True, slots=True)
class Goal:
    """How good Restante has to be in a row."""

    floor: float
    """At least this is wanted."""
    aim: float
    against: str | None = None
    """The entrants whose names begin so; the best of them counts. None: no entrant but a limit,
    and floor and aim are in the row's own unit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a row says of a goal."""

    goal: Goal
    reached: float
    """How many times better than ``entrant``, or the figure itself where there is a limit."""
    entrant: str | None
    result: str
    """``aim``, ``floor`` (met, both) or ``missed``."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, all entrants beside each other. The first is the one that has a goal."""

    key: str
    """BENCH/CELL, as goals have it."""
    title: str
    unit: str
    better: Better
    series: Sequence[Series]
    machine: Sequence[float] = ()
    """How fast the machine was in each round, see ``bench.machine.speed``."""
    note: str = ""
    """What must be known to understand the figures."""
    judged: bool = True
    """Whether this is what a goal is for, and no smaller work."""


def verdict(row: Row, goal: Goal) -> Verdict | None:
    """None where nobody is there to compare with."""
    own = row.series[0]
    if goal.against is None:
        sign = 1 if row.better is Better.MORE else -1
        met = [own.median * sign >= wanted * sign for wanted in (goal.floor, goal.aim)]
        return Verdict(goal, own.median, None, _result(met))
    others = [each for each in row.series[1:] if each.entrant.startswith(goal.against)]
    if not others:
        return None
    best = (max if row.better is Better.MORE else min)(others, key=lambda each: each.median)
    reached = ratio(own, best, row.better)
    met = [reached >= wanted for wanted in (goal.floor, goal.aim)]
    return Verdict(goal, reached, best.entrant, _result(met))


def ratio(own: Series, other: Series, better: Better) -> float:
    """How many times better one is than the other: the median of what each round says.

    Two values of one round were taken shortly one after the other: whatever else the machine
    did meanwhile happened to both.
    """
    pairs = _pairs(own.values, other.values)
    if better is Better.LESS:
        pairs = ((theirs, mine) for mine, theirs in pairs)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def medians(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By key; all have the same."""
    return {key: statistics.median(each[key] for each in many) for key in many[0]}


def _pairs(own: Sequence[float], other: Sequence[float]) -> Iterable[tuple[float, float]]:
    if len(own) == len(other):
        return zip(own, other, strict=True)
    return [(statistics.median(own), statistics.median(other))]


def _result(met: Sequence[bool]) -> str:
    floor, aim = met
    return "aim" if aim else "floor" if floor else "missed"
