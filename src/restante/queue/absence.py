"""Times in which nobody looked at a queue: the server was down, the machine slept, or the clock
jumped ahead.

A queue that is served is looked at every few minutes, so that the time of day alone tells of an
absence, whatever its reason.
"""

from __future__ import annotations

import contextlib
import os

ABSENT = 3600.0
"""Seconds between two looks at a queue that are an absence: more than any look takes."""
STAMP = "attended"
"""The file beside a queue whose time is that of the last look: it outlives the process."""
STAMP_EVERY = 300.0
"""Seconds after which it is set anew."""


def last_look(directory: str) -> float | None:
    """When the queue in ``directory`` was looked at; None: nobody knows."""
    try:
        return os.stat(os.path.join(directory, STAMP)).st_mtime
    except OSError:
        return None


def stamp(directory: str, now: float) -> None:
    """Note that the queue was looked at; what cannot be noted is as if nobody had looked."""
    path = os.path.join(directory, STAMP)
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path, (now, now))
