"""A row of the results for people at a terminal."""

from __future__ import annotations

from bench.calls import syncs
from bench.figures import Goal, Row, Series, Verdict, ratio


def show(row: Row, judged: Verdict | None) -> None:
    """Print it at once: a run takes long."""
    print(render(row, judged), flush=True)


def render(row: Row, judged: Verdict | None) -> str:
    """A headline, a line for each entrant, and what it means for the goal."""
    width = max(len(each.entrant) for each in row.series)
    lines = [f"{row.title}  [{row.key}]"]
    lines += [f"  {each.entrant:{width}}  {_figures(row, each)}" for each in row.series]
    if row.note:
        lines.append(f"  {row.note}")
    if judged:
        lines.append(f"  {_judgement(row, judged)}")
    return "\n".join([*lines, ""])


def number(value: float) -> str:
    """Three digits that matter, or all before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def goal_text(goal: Goal, unit: str) -> str:
    """What is wanted."""
    sign = f" {unit}" if goal.against is None else "x"
    return f"floor {number(goal.floor)}{sign}, aim {number(goal.aim)}{sign}"


def _figures(row: Row, series: Series) -> str:
    low, high = series.spread
    text = f"{number(series.median):>8} {row.unit} ({number(low)} to {number(high)})"
    if series is not row.series[0]:
        text += f"  {number(ratio(series, row.series[0], row.better))}x"
    if series.processor:
        parts = [f"{name} {number(each)}" for name, each in series.processor.items()]
        text += "  CPU s/1000: " + ", ".join(parts)
    if series.calls:
        total = sum(series.calls.values())
        text += f"  calls {number(total)}, syncs {number(syncs(series.calls))} each"
    if series.memory:
        text += "  MiB: " + ", ".join(f"{name} {number(n)}" for name, n in series.memory.items())
    return text


def _judgement(row: Row, judged: Verdict) -> str:
    words = {"aim": "aim met", "floor": "floor met", "missed": "MISSED"}
    what = f"{number(judged.reached)}x {judged.entrant}" if judged.entrant else "goal"
    return f"{what} ({goal_text(judged.goal, row.unit)}): {words[judged.result]}"
