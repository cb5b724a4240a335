"""From what is due to the messages themselves, in the reader's thread."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from restante.queue import (
    LOCAL_LANE,
    Notice,
    QueuedMessage,
    QueuedRecipient,
    is_account_lane,
    notices,
    rows,
)
from restante.queue.bodies import Bodies
from restante.queue.handout import Position, Selection, select_due, select_overdue
from restante.queue.rows import Arrival, Inserted
from restante.queue.traffic import Limits, Traffic
from restante.queue.work import PendingReport, Work

RECIPIENTS_PER_ATTEMPT = 1000
"""Recipients of one message that are tried together here; the others follow at once."""
REMOTE_RECIPIENTS_PER_ATTEMPT = 100
"""The same for another host: what it must at least take in one transaction (RFC 5321
§4.5.3.1.8)."""
RECIPIENTS_PER_ATTEMPT_OF_ACCOUNT = 1
"""The same where programs run: what they did is recorded before the next one begins."""
REPORTS_AT_ONCE = 20
"""Reports that are made at the same time."""
OVERDUE_AT_ONCE = 20
"""Messages of a failing lane that are given up, or called late, at the same time.

They count as attempts, of which all lanes together have a number (``Limits.remote``): a dead
lane in which very many wait must not take it from the others for as long as that lasts.
"""


class Loader:
    """Reads messages of one process life of a queue."""

    def __init__(self, bodies: Bodies, life: int) -> None:
        self._bodies = bodies
        self._life = life

    def due(
        self,
        connection: sqlite3.Connection,
        now: float,
        limits: Limits,
        view: Traffic,
        telling: Counter[str],
        ahead: int,
    ) -> tuple[Work, Selection, list[QueuedMessage]]:
        """What is due, what was learnt on the way, and ``ahead`` more that have no room yet.

        ``view`` is changed; ``telling``: messages of which so many reports are being made.
        """
        selection = select_due(connection, now, limits, view, ahead)
        messages = self._load_all(connection, selection.chosen, now)
        next_ones = self._load_all(connection, selection.ahead, now)
        room = REPORTS_AT_ONCE - telling.total()
        pending = (
            report
            for queue_id in notices.due_reports(connection, now, room, telling)
            for report in self._pending(connection, queue_id)
        )
        work = Work(
            tuple(messages),
            tuple(islice(pending, room)),
            min(selection.next_due, notices.next_report(connection, now)),
        )
        return work, selection, next_ones

    def fresh(self, arrival: Arrival, new: Inserted) -> list[QueuedMessage]:
        """What ``due`` would find of a message that has just been queued."""
        submission, body = arrival.submission, arrival.body
        path = self._bodies.path(submission.envelope.queue_id)
        content = replace(submission.content, body=path if body is None else body)
        by_lane: dict[str, list[QueuedRecipient]] = {}
        for recipient in new.recipients:
            by_lane.setdefault(recipient.target.lane, []).append(recipient)
        return [
            QueuedMessage(
                submission.envelope, content, tuple(those[: recipients_in(lane)]), False, lane
            )
            for lane, those in by_lane.items()
        ]

    def overdue(
        self,
        connection: sqlite3.Connection,
        lane: str,
        now: float,
        born: tuple[float, float],
        after: Position,
        spared: Sequence[tuple[float, float]],
        view: Traffic,
    ) -> tuple[list[QueuedMessage], Position | None]:
        """See QueueStore.overdue; without the bodies, which nobody will send."""
        positions = select_overdue(connection, lane, now, born, after, spared, OVERDUE_AT_ONCE)
        ids = dict.fromkeys(each.queue_id for each in positions)
        found = [
            self._load(connection, each, lane, now, RECIPIENTS_PER_ATTEMPT, with_body=False)
            for each in ids
            if not view.moves(each, lane)
        ]
        return [each for each in found if each is not None], positions[-1] if positions else None

    def _load_all(
        self, connection: sqlite3.Connection, chosen: Iterable[tuple[str, str]], now: float
    ) -> list[QueuedMessage]:
        found = (
            self._load(connection, queue_id, lane, now, recipients_in(lane))
            for queue_id, lane in chosen
        )
        return [message for message in found if message is not None]

    def _load(
        self,
        connection: sqlite3.Connection,
        queue_id: str,
        lane: str,
        now: float,
        most: int,
        *,
        with_body: bool = True,
    ) -> QueuedMessage | None:
        path = self._bodies.path(queue_id)
        loaded = rows.load_message(connection, queue_id, path, with_body=with_body)
        recipients, again = rows.waiting_recipients(
            connection, queue_id, lane, now, most, self._life
        )
        if loaded is None or not recipients:
            return None
        has_copies = lane == LOCAL_LANE and rows.has_copies(connection, queue_id)
        return QueuedMessage(*loaded, recipients, again, lane, has_copies)

    def _pending(self, connection: sqlite3.Connection, queue_id: str) -> Iterator[PendingReport]:
        """One report for each sender: that of the message, and owners of lists by which it went."""
        loaded = rows.load_message(connection, queue_id, self._bodies.path(queue_id))
        if loaded is None:
            return
        envelope, content = loaded
        by_sender: dict[str | None, list[Notice]] = {}
        for notice in notices.notices_of(connection, queue_id):
            by_sender.setdefault(notice.recipient.target.reverse_path, []).append(notice)
        for alike in by_sender.values():
            own = alike[0].recipient.target.envelope(envelope)
            yield PendingReport(QueuedMessage(own, content, (), again=False), tuple(alike))


def recipients_in(lane: str) -> int:
    """How many recipients of a message are tried together in the lane."""
    if is_account_lane(lane):
        return RECIPIENTS_PER_ATTEMPT_OF_ACCOUNT
    return RECIPIENTS_PER_ATTEMPT if lane == LOCAL_LANE else REMOTE_RECIPIENTS_PER_ATTEMPT
