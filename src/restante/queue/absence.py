"""Times in which nobody looked at a queue: the server was down, the machine slept, or the clock
jumped ahead.

Nobody could be tried then, and yet mail grew old: the first failure afterwards would have all of
a lane given up, perhaps before the network is up. A queue that is served is looked at every few
minutes, so that the time of day alone tells of an absence, whatever its reason.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

ABSENT = 3600.0
"""Seconds between two looks at a queue that are an absence: more than any look takes."""
STAMP = "attended"
"""The file beside a queue whose time is that of the last look: it outlives the process."""
STAMP_EVERY = 300.0
"""Seconds after which it is set anew."""


def spare(connection: sqlite3.Connection, born: float) -> int:
    """Have everybody's time count from ``born`` at the earliest; how many are spared by that.

    Each once, or else a machine that is off most of the time would give up nobody ever.
    """
    spared = connection.execute(
        "UPDATE recipient SET received_at = :born WHERE state = 'waiting' AND received_at < :born"
        " AND received_at <= (SELECT received_at FROM message WHERE queue_id = recipient.queue_id)",
        {"born": born},
    )
    return spared.rowcount


def count_from(connection: sqlite3.Connection, now: float) -> None:
    """Have nobody's time count from later than ``now``: the clock was ahead, and is right again.

    Who was spared by such a clock counts from when the message came, if that is not later, too.
    """
    connection.execute(
        "UPDATE recipient SET received_at = min(:now, message.received_at) FROM message"
        " WHERE message.queue_id = recipient.queue_id AND recipient.received_at > :now",
        {"now": now},
    )


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
