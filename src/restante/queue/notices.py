"""What senders are still to be told: the tables' side of reports."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from restante.queue import Action, Notice
from restante.queue.rows import SELECT_RECIPIENTS, recipient_of

NOTICES_PER_REPORT = 1000
"""Recipients that one report tells of; the others follow in another one at once."""


def due_reports(
    connection: sqlite3.Connection, now: float, limit: int, skip: Collection[str]
) -> list[str]:
    """At most ``limit`` messages whose report is due, without those in ``skip``."""
    rows = connection.execute(
        "SELECT queue_id FROM report WHERE due <= ? ORDER BY due LIMIT ?", (now, limit + len(skip))
    )
    return [queue_id for (queue_id,) in rows if queue_id not in skip][:limit]


def next_report(connection: sqlite3.Connection, now: float) -> float:
    """When the next report is due that is not yet; infinity: never."""
    (due,) = connection.execute("SELECT min(due) FROM report WHERE due > ?", (now,)).fetchone()
    return math.inf if due is None else float(due)


def notices_of(connection: sqlite3.Connection, queue_id: str) -> tuple[Notice, ...]:
    """What is to be told of the message's recipients, in the order in which they came."""
    rows = connection.execute(
        f"{SELECT_RECIPIENTS} WHERE queue_id = ? AND notice != '' ORDER BY id LIMIT ?",
        (queue_id, NOTICES_PER_REPORT),
    )
    return tuple(Notice(recipient_of(row), Action(row[13])) for row in rows)


def clear_notices(
    connection: sqlite3.Connection, queue_id: str, told: Iterable[Notice]
) -> Sequence[Notice]:
    """Those of ``told`` that still were to be told; they are no more.

    An operator may have removed a recipient, an attempt may have given it another notice.
    """
    return [
        notice
        for notice in told
        if connection.execute(
            "UPDATE recipient SET notice = '' WHERE id = ? AND queue_id = ? AND notice = ?",
            (notice.recipient.id, queue_id, notice.action),
        ).rowcount
    ]


def put_off(connection: sqlite3.Connection, queue_id: str, until: float) -> None:
    """The report cannot be made now."""
    connection.execute("UPDATE report SET due = ? WHERE queue_id = ?", (until, queue_id))
