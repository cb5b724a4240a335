"""Entrants take turns, round by round (A B A B): what the machine does meanwhile happens to all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.calls import counted_calls
from bench.figures import Series, medians
from bench.machine import speed
from bench.processes import Component, memory

_LOOK = 0.1
"""Seconds between two looks at memory."""
SAMPLE = 200
"""Units that are done while system calls are counted: that makes them slow."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """Somebody who does the work of a row."""

    name: str
    components: Sequence[Component]
    """Whose processor time and memory count; the first is the server itself."""
    generator: Component
    """What makes its work: its processor time is told as well."""
    work: Callable[[int], float]
    """Does so many units; the seconds that it took."""
    prepare: Callable[[], object] = lambda: None
    """Before every round, untimed."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What is done in a row."""

    units: int
    """In every round."""
    rounds: int
    warm_up: int = 0
    """Units before the first round."""
    seconds_for: int | None = None
    """The figure is the seconds for so many units; None: it is units a second."""
    settle: float = 0.5
    """Seconds before processor time is read: what a server does after the last message counts."""
    memory: bool = False
    """Is looked at as well, in a round that is not timed."""
    calls: bool = False
    """System calls are counted as well, in a round that is not timed."""

    def figure(self, seconds: float) -> float:
        """Of a round that took so long."""
        if self.seconds_for is None:
            return self.units / seconds
        return seconds * self.seconds_for / self.units


def take_turns(entrants: Sequence[Entrant], turns: Turns) -> tuple[list[Series], list[float]]:
    """All rounds: the entrants' figures in their order, and how fast the machine was in each."""
    for entrant in entrants:
        entrant.prepare()  # all of them now: what has to become older does so for all together
    if turns.warm_up:
        for entrant in entrants:
            _round(entrant, turns.warm_up, turns.settle)
    values: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    used: dict[str, list[dict[str, float]]] = {entrant.name: [] for entrant in entrants}
    speeds = []
    for _ in range(turns.rounds):
        speeds.append(speed())
        for entrant in entrants:
            seconds, processor = _round(entrant, turns.units, turns.settle)
            values[entrant.name].append(turns.figure(seconds))
            used[entrant.name].append(processor)
    series = [
        Series(each.name, tuple(values[each.name]), medians(used[each.name])) for each in entrants
    ]
    return [_sampled(*each, turns) for each in zip(entrants, series, strict=True)], speeds


def _round(entrant: Entrant, units: int, settle: float) -> tuple[float, dict[str, float]]:
    """Seconds, and by component the seconds of processor time for 1,000 units."""
    entrant.prepare()
    os.sync()
    time.sleep(settle)
    counted = (*entrant.components, entrant.generator)
    before = [each.seconds() for each in counted]
    seconds = entrant.work(units)
    time.sleep(settle)
    after = [each.seconds() for each in counted]
    spent = zip(counted, before, after, strict=True)
    return seconds, {each.name: (last - first) / units * 1000 for each, first, last in spent}


def _sampled(entrant: Entrant, series: Series, turns: Turns) -> Series:
    if turns.memory:
        entrant.prepare()
        with peaks(entrant.components) as most:
            entrant.work(turns.units)
        series = replace(series, memory=most)
    if turns.calls:
        entrant.prepare()
        units = min(SAMPLE, turns.units)
        counted = counted_calls(entrant.components[0].pids(), lambda: entrant.work(units))
        series = replace(series, calls={name: count / units for name, count in counted.items()})
    return series


@contextmanager
def peaks(components: Sequence[Component]) -> Iterator[dict[str, float]]:
    """By component: the most MiB that it has meanwhile."""
    most = {each.name: memory(each) for each in components}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            for each in components:
                most[each.name] = max(most[each.name], memory(each))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        ended.set()
        looking.join()
