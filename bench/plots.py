"""Pictures of the results: a bar for each entrant, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl

from bench.figures import Row

mpl.use("Agg")
from matplotlib import pyplot as plt

_INCHES = 0.28
"""Of height, for each bar."""


def draw(rows: Iterable[Row], directory: Path, stem: str) -> list[Path]:
    """A PNG for each bench and unit; their paths."""
    drawn = []
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.key.partition("/")[0], row.unit), []).append(row)
    for (bench, unit), some in together.items():
        name = unit.replace("/", "-per-")
        path = directory / f"{stem}-{bench}-{name}.png"
        _draw(some, path)
        drawn.append(path)
    return drawn


def _draw(rows: Sequence[Row], path: Path) -> None:
    entrants = list(dict.fromkeys(each.entrant for row in rows for each in row.series))
    colours = dict(zip(entrants, plt.get_cmap("tab10").colors, strict=False))
    bars = sum(len(row.series) + 1 for row in rows)
    figure, axes = plt.subplots(figsize=(9, 1.2 + _INCHES * bars), layout="constrained")
    place, ticks = 0.0, []
    for row in rows:
        ticks.append((place + (len(row.series) - 1) / 2, row.title))
        for each in row.series:
            low, high = each.spread
            error = [[each.median - low], [high - each.median]]
            axes.barh(place, each.median, color=colours.get(each.entrant), xerr=error, capsize=2)
            place += 1
        place += 1
    axes.set_yticks([at for at, _ in ticks], [title for _, title in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"{rows[0].unit} ({rows[0].better} is better; lines: slowest to fastest round)")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours.get(each)) for each in entrants]
    figure.legend(handles, entrants, fontsize=8, loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
