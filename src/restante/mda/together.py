"""Waits for a disk, many at the same time: one that is far takes long for each, and for all of them
together hardly longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

MOST = 16
"""That are waited for at the same time."""

Act = Callable[[], None]


def all_together(acts: Sequence[Act]) -> list[Exception | None]:
    """What each has raised; where no threads can be started, they are done one after another."""
    if len(acts) > 1:
        try:
            with ThreadPoolExecutor(min(len(acts), MOST), "sync") as executor:
                return list(executor.map(_tried, acts))
        except RuntimeError:
            pass  # whatever was done may be done again
    return list(map(_tried, acts))


def _tried(act: Act) -> Exception | None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - the caller says what it means
        return error
    return None
