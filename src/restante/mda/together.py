"""Waits for a disk, many at the same time: one that is far takes long for each, and for all of them
together hardly longer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

MOST = 16
"""That are waited for at the same time."""

Act = Callable[[], None]


def all_together(acts: Sequence[Act]) -> list[Exception | None]:
    """What each has raised; where no threads can be started, they are done one after another.

    None is done a second time: the kernel tells of a failed write once, and the next fsync(2) of
    the same file is none the wiser.
    """
    told: dict[int, Exception | None] = {}

    def do(number: int) -> None:
        told[number] = _tried(acts[number])

    if len(acts) > 1:
        with (
            contextlib.suppress(RuntimeError),
            ThreadPoolExecutor(min(len(acts), MOST), "sync") as executor,
        ):
            for number in range(len(acts)):
                executor.submit(do, number)
    # The threads there were, if any, have done by now all that they were given.
    for number in range(len(acts)):
        if number not in told:
            do(number)
    return [told[number] for number in range(len(acts))]


def _tried(act: Act) -> Exception | None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - the caller says what it means
        return error
    return None
