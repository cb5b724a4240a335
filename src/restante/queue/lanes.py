"""The table of lanes: the scheduler's index, so that a lane that is left alone costs nothing.

A lane has a row while somebody waits in it, or while it is left alone. Whoever changes a
recipient settles its lane, before or after, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from restante.queue import BackOff
from restante.queue.retry import (
    LONGEST_BACK_OFF,
    REPORT_RETRY,
    back_off_seconds,
    furthest_attempt,
)

MAX_WHY = 500
"""Characters that are kept of why a lane is left alone; hosts may have greeted at any length."""


def touch_lane(connection: sqlite3.Connection, lane: str, due: float) -> bool:
    """Somebody waits in the lane from now on, and is ``due`` then; whether it has been failing."""
    row = connection.execute(
        "SELECT next_attempt, blocked_until, failures FROM lane WHERE name = ?", (lane,)
    ).fetchone()
    if row is None:
        connection.execute("INSERT INTO lane VALUES (?, ?, 0, 0, '')", (lane, due))
        return False
    next_attempt, blocked_until, failures = row
    earliest = max(due, blocked_until)
    if earliest < next_attempt:
        connection.execute("UPDATE lane SET next_attempt = ? WHERE name = ?", (earliest, lane))
    return bool(failures)


def settle_lanes(connection: sqlite3.Connection, lanes: Iterable[str], now: float) -> None:
    """Set anew when the lanes are due, after recipients in them have changed in any way."""
    for lane in lanes:
        (earliest,) = connection.execute(
            "SELECT min(next_attempt) FROM recipient WHERE lane = ? AND state = 'waiting'", (lane,)
        ).fetchone()
        if earliest is None:
            _settle_empty(connection, lane, now)
            continue
        connection.execute(
            "INSERT INTO lane VALUES (?, ?, 0, 0, '') ON CONFLICT DO UPDATE"
            " SET next_attempt = max(excluded.next_attempt, blocked_until)"
            " WHERE max(excluded.next_attempt, blocked_until) != next_attempt",
            (lane, earliest),
        )


def _settle_empty(connection: sqlite3.Connection, lane: str, now: float) -> None:
    """One that is left alone is remembered for as long: mail may come for it meanwhile."""
    deleted = connection.execute(
        "DELETE FROM lane WHERE name = ? AND blocked_until <= ?", (lane, now)
    )
    if not deleted.rowcount:
        connection.execute("UPDATE lane SET next_attempt = blocked_until WHERE name = ?", (lane,))


def leave_alone(
    connection: sqlite3.Connection, lane: str, back_off: BackOff, began: float, now: float
) -> float | None:
    """Block the lane after a failure; until when, or None if it was blocked for as long already.

    Attempts that were in motion together fail together: one that ``began`` before the lane
    was blocked does not double the time again, nor does it begin anew when that is over.
    """
    row = connection.execute(
        "SELECT blocked_until, failures FROM lane WHERE name = ?", (lane,)
    ).fetchone()
    blocked_until, failures = row or (0.0, 0)
    until = now + back_off.minimum
    if blocked_until <= began:
        failures += 1
        until = now + max(back_off.minimum, back_off_seconds(failures))
    elif until <= max(blocked_until, now):
        return None
    connection.execute(
        "INSERT INTO lane VALUES (:lane, :until, :until, :failures, :why) ON CONFLICT DO UPDATE SET"
        " next_attempt = :until, blocked_until = :until, failures = :failures, why = :why",
        {"lane": lane, "until": until, "failures": failures, "why": back_off.why[:MAX_WHY]},
    )
    return until


def bring_forward(connection: sqlite3.Connection, seconds: float, now: float) -> None:
    """All that is to happen after ``now`` happens so much sooner: the time of day was set back.

    A lane may be due before anybody in it is, never later: that is found out when it is looked at.
    """
    connection.execute(
        "UPDATE recipient SET next_attempt = next_attempt - ?"
        " WHERE state = 'waiting' AND next_attempt > ?",
        (seconds, now),
    )
    connection.execute(
        "UPDATE lane SET next_attempt = next_attempt - iif(next_attempt > :now, :seconds, 0),"
        " blocked_until = blocked_until - iif(blocked_until > :now, :seconds, 0)"
        " WHERE next_attempt > :now OR blocked_until > :now",
        {"now": now, "seconds": seconds},
    )
    connection.execute("UPDATE report SET due = due - ? WHERE due > ?", (seconds, now))


def too_far_ahead(connection: sqlite3.Connection, now: float, ahead: float) -> float:
    """Seconds by which something waits longer than it was ever to wait; 0: nothing does.

    By so much, at the least, the time of day was ahead when it was put off. ``ahead``: by so much
    it is known to have been ahead, until what waits was brought forward; it was older by that.
    """
    waiting = connection.execute(
        "SELECT next_attempt, received_at FROM recipient"
        " WHERE state = 'waiting' AND next_attempt > ?",
        (now,),
    )
    attempts = (due - furthest_attempt(born - ahead, now) for due, born in waiting)
    (blocked,) = connection.execute("SELECT max(blocked_until) FROM lane").fetchone()
    (report,) = connection.execute("SELECT max(due) FROM report").fetchone()
    return max(
        max(attempts, default=0.0),
        (blocked or 0.0) - (now + LONGEST_BACK_OFF),
        (report or 0.0) - (now + REPORT_RETRY),
        0.0,
    )


def works_again(connection: sqlite3.Connection, lane: str, began: float) -> bool:
    """After a success: whether it ends a time of failures.

    One that ``began`` before the lane was blocked says nothing of the time since.
    """
    changed = connection.execute(
        "UPDATE lane SET blocked_until = 0, failures = 0, why = ''"
        " WHERE name = ? AND failures > 0 AND blocked_until <= ?",
        (lane, began),
    )
    return changed.rowcount > 0
