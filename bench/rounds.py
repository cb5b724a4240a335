"""What is printed: the median of a few rounds, with the slowest and the fastest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 3


def measure(label: str, unit: str, count: int, work: Callable[[], object]) -> None:
    """Do ``work``, which is ``count`` units, in ROUNDS rounds."""
    rates = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        work()
        rates.append(count / (time.monotonic() - began))
    show(label, unit, rates)


def show(label: str, unit: str, rates: list[float]) -> None:
    """One line for the rates of all rounds, in units a second."""
    middle = statistics.median(rates)
    print(f"{label}: {middle:.0f} {unit}/s ({min(rates):.0f} to {max(rates):.0f})", flush=True)
