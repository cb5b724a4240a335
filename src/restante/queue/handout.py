"""What is due: questions to the database, asked in the reader's thread.

A lane that is left alone, or has as much in motion as it may, costs one row of the
index; none of its recipients is looked at.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from restante.queue import LOCAL_LANE
from restante.queue.schema import IN_LANE_OF_ACCOUNT
from restante.queue.traffic import Limits, Traffic


@dataclass(slots=True)
class Selection:
    """What may begin to move, and what was learnt on the way."""

    chosen: list[tuple[str, str]] = field(default_factory=list)
    """Messages and the lanes in which they are due, the longest due lane first."""
    ahead: dict[tuple[str, str], None] = field(default_factory=dict)
    """The same of what is due next, when there is room."""
    crowded: set[str] = field(default_factory=set)
    """Lanes of which more is due than was chosen."""
    complete: bool = True
    """What is due and was not chosen waits for nothing but room in crowded lanes that work."""
    quiet: dict[str, float] = field(default_factory=dict)
    """Lanes that have nothing more to be chosen, and until when."""
    stale: list[str] = field(default_factory=list)
    """Lanes that the table has due though nobody is due in them."""
    next_due: float = math.inf
    """When there is more, unless something changes before; infinity: never."""


def select_due(
    connection: sqlite3.Connection, now: float, limits: Limits, traffic: Traffic, ahead: int
) -> Selection:
    """What is due and may move; ``traffic`` (a copy for this purpose) is as if it did.

    ``ahead``: how many messages at most are chosen that have no room yet.
    """
    look = _Look(connection, now, limits, traffic, ahead)
    for kind in (_LOCAL, _ACCOUNTS, _ELSEWHERE):
        look.through(kind)
    selection = look.selection
    for lane, until in selection.quiet.items():
        traffic.rest(lane, until)
    selection.next_due = min(_next_lane(connection, now), traffic.end_of_rest(now))
    return selection


@dataclass(frozen=True, slots=True)
class _Kind:
    """Lanes that share a limit."""

    due: str
    """Asks for those that are due, the longest due first, each with how often it failed.

    They may be a million: who asks stops when the limit is reached.
    """
    has_room: Callable[[Traffic, Limits], bool]
    """Whether more may move in some lane of them."""


_LOCAL = _Kind(
    f"SELECT name, failures FROM lane WHERE name = '{LOCAL_LANE}' AND next_attempt <= ?",  # noqa: S608 - constants
    lambda traffic, limits: True,
)
_ACCOUNTS = _Kind(
    f"SELECT name, failures FROM lane WHERE {IN_LANE_OF_ACCOUNT} = 1 AND next_attempt <= ?"  # noqa: S608 - constants
    " ORDER BY next_attempt",
    Traffic.has_room_for_accounts,
)
_ELSEWHERE = _Kind(
    f"SELECT name, failures FROM lane WHERE {IN_LANE_OF_ACCOUNT} = 0 AND next_attempt <= ?"  # noqa: S608 - constants
    f" AND name != '{LOCAL_LANE}' ORDER BY next_attempt",
    Traffic.has_room_elsewhere,
)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at what is due; the selection and ``traffic`` grow by what is chosen."""

    connection: sqlite3.Connection
    now: float
    limits: Limits
    traffic: Traffic
    ahead: int
    """See ``select_due``."""
    selection: Selection = field(default_factory=Selection)

    def through(self, kind: _Kind) -> None:
        """Choose what may move in lanes of one kind."""
        for lane, failures in self.connection.execute(kind.due, (self.now,)):
            if not kind.has_room(self.traffic, self.limits):
                self.selection.complete = False
                return
            if not self.traffic.rests(lane, self.now):
                self._lane(lane, is_failing=failures > 0)

    def _lane(self, lane: str, *, is_failing: bool) -> None:
        """Choose what may move in one lane."""
        selection = self.selection
        room = self.traffic.room(lane, self.limits, suspect=is_failing)
        beyond = 0 if is_failing else self.ahead - len(selection.ahead)
        if room > 0 or beyond > 0:
            self._messages(lane, room, beyond)
        else:
            selection.crowded.add(lane)
        if is_failing and lane in selection.crowded:
            selection.complete = False

    def _messages(self, lane: str, room: int, beyond: int) -> None:
        """Choose at most ``room`` messages of one lane, and ``beyond`` more for when there is."""
        traffic, selection = self.traffic, self.selection
        all_seen = True
        for queue_id in _due_in(self.connection, lane, self.now):
            if traffic.moves(queue_id, lane):
                continue
            if not traffic.may_spread(queue_id, lane, self.limits):
                all_seen = selection.complete = False
            elif room > 0:
                room -= 1
                traffic.take(queue_id, lane)
                selection.chosen.append((queue_id, lane))
            elif (queue_id, lane) in selection.ahead:
                continue
            elif beyond > 0:
                all_seen = False
                beyond -= 1
                selection.ahead[queue_id, lane] = None
            else:
                selection.crowded.add(lane)
                return
        if all_seen and traffic.moving_in(lane):
            selection.quiet[lane] = _next_in(self.connection, lane, self.now)
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
    return min(
        math.inf if due is None else float(due)
        for kind in (0, 1)
        for (due,) in connection.execute(
            f"SELECT min(next_attempt) FROM lane WHERE {IN_LANE_OF_ACCOUNT} = {kind}"  # noqa: S608 - constants
            " AND next_attempt > ?",
            (now,),
        )
    )


@dataclass(frozen=True, slots=True)
class Position:
    """How far a lane was looked through."""

    next_attempt: float = -math.inf
    """0 would be 1970, and what was brought forward by years may be due before that."""
    queue_id: str = ""


def select_overdue(
    connection: sqlite3.Connection,
    lane: str,
    now: float,
    born: tuple[float, float],
    after: Position,
    spared: Sequence[tuple[float, float]],
    limit: int,
) -> list[Position]:
    """Messages due in the lane that a failure of the lane as a whole ends or delays.

    ``born``: accepted before the first, they are given up; before the second, their sender is
    told that they wait, unless it was. Both in seconds since the epoch. ``spared``: those of the
    first kind who are not given up, accepted later than the one and not later than the other.
    """
    expired, late = born
    given_up = "received_at <= ?" + " AND NOT (received_at > ? AND received_at <= ?)" * len(spared)
    rows = connection.execute(
        "SELECT next_attempt, queue_id FROM recipient WHERE lane = ? AND state = 'waiting'"  # noqa: S608 - constants
        " AND next_attempt <= ? AND (next_attempt, queue_id) > (?, ?)"
        f" AND ({given_up} OR (received_at <= ? AND NOT delay_told))"
        " GROUP BY next_attempt, queue_id ORDER BY next_attempt, queue_id LIMIT ?",
        (lane, now, after.next_attempt, after.queue_id, expired, *chain(*spared), late, limit),
    )
    return [Position(*row) for row in rows]
