"""What is due: questions to the database, asked in the reader's thread.

A lane that is left alone, or has as much in motion as it may, costs one row of the
index; none of its recipients is looked at.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from restante.queue import LOCAL_LANE
from restante.queue.traffic import Limits, Traffic


@dataclass(slots=True)
class Selection:
    """What may begin to move, and what was learnt on the way."""

    chosen: list[tuple[str, str]] = field(default_factory=list)
    """Messages and the lanes in which they are due, the longest due lane first."""
    quiet: dict[str, float] = field(default_factory=dict)
    """Lanes that have nothing more to be chosen, and until when."""
    stale: list[str] = field(default_factory=list)
    """Lanes that the table has due though nobody is due in them."""
    next_due: float = math.inf
    """When there is more, unless something changes before; infinity: never."""


def select_due(
    connection: sqlite3.Connection, now: float, limits: Limits, traffic: Traffic
) -> Selection:
    """What is due and may move; ``traffic`` (a copy for this purpose) is as if it did."""
    selection = Selection()
    for lane, failures in _due_lanes(connection, now):
        if lane != LOCAL_LANE and not traffic.has_room_elsewhere(limits):
            break
        if traffic.rests(lane, now):
            continue
        room = traffic.room(lane, limits, suspect=failures > 0)
        if room > 0:
            _select_in(connection, lane, now, room, limits, traffic, selection)
    for lane, until in selection.quiet.items():
        traffic.rest(lane, until)
    selection.next_due = min(_next_lane(connection, now), traffic.end_of_rest(now))
    return selection


def _due_lanes(connection: sqlite3.Connection, now: float) -> Iterator[tuple[str, int]]:
    """The local lane, which has limits of its own, then the others, the longest due first.

    With each, how often it failed. The others may be a million: who asks stops when they are full.
    """
    yield from connection.execute(
        "SELECT name, failures FROM lane WHERE name = ? AND next_attempt <= ?", (LOCAL_LANE, now)
    )
    yield from connection.execute(
        "SELECT name, failures FROM lane WHERE name != ? AND next_attempt <= ?"
        " ORDER BY next_attempt",
        (LOCAL_LANE, now),
    )


def _select_in(
    connection: sqlite3.Connection,
    lane: str,
    now: float,
    room: int,
    limits: Limits,
    traffic: Traffic,
    selection: Selection,
) -> None:
    """Choose at most ``room`` messages of one lane."""
    all_seen = True
    for queue_id in _due_in(connection, lane, now):
        if traffic.moves(queue_id, lane):
            continue
        if traffic.lanes_of(queue_id) >= limits.per_message:
            all_seen = False
            continue
        if room == 0:
            return
        room -= 1
        traffic.take(queue_id, lane)
        selection.chosen.append((queue_id, lane))
    if all_seen and traffic.moving_in(lane):
        selection.quiet[lane] = _next_in(connection, lane, now)
    elif all_seen:
        selection.stale.append(lane)


def _due_in(connection: sqlite3.Connection, lane: str, now: float) -> Iterator[str]:
    """The messages that are due in the lane, longest due first; one may come more than once."""
    rows = connection.execute(
        "SELECT queue_id FROM recipient WHERE lane = ? AND state = 'waiting' AND next_attempt <= ?"
        " GROUP BY next_attempt, queue_id ORDER BY next_attempt, queue_id",
        (lane, now),
    )
    return (queue_id for (queue_id,) in rows)


def _next_in(connection: sqlite3.Connection, lane: str, now: float) -> float:
    (due,) = connection.execute(
        "SELECT min(next_attempt) FROM recipient WHERE lane = ? AND state = 'waiting'"
        " AND next_attempt > ?",
        (lane, now),
    ).fetchone()
    return math.inf if due is None else float(due)


def _next_lane(connection: sqlite3.Connection, now: float) -> float:
    (due,) = connection.execute(
        "SELECT min(next_attempt) FROM lane WHERE next_attempt > ?", (now,)
    ).fetchone()
    return math.inf if due is None else float(due)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a lane was looked through."""

    next_attempt: float = 0.0
    queue_id: str = ""


def select_overdue(
    connection: sqlite3.Connection,
    lane: str,
    now: float,
    born: tuple[float, float],
    after: Position,
    limit: int,
) -> list[Position]:
    """Messages due in the lane that a failure of the lane as a whole ends or delays.

    ``born``: accepted before the first, they are given up; before the second, their sender is
    told that they wait, unless it was. Both in seconds since the epoch.
    """
    expired, late = born
    rows = connection.execute(
        "SELECT next_attempt, queue_id FROM recipient WHERE lane = ? AND state = 'waiting'"
        " AND next_attempt <= ? AND (next_attempt, queue_id) > (?, ?)"
        " AND (received_at <= ? OR (received_at <= ? AND NOT delay_told))"
        " GROUP BY next_attempt, queue_id ORDER BY next_attempt, queue_id LIMIT ?",
        (lane, now, after.next_attempt, after.queue_id, expired, late, limit),
    )
    return [Position(*row) for row in rows]
