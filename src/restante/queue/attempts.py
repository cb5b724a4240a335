"""What attempts came to, as the database learns it: many in one go."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from restante.envelope import NO_DSN, Notify, RecipientDsn
from restante.queue import QueuedMessage, RecipientState, is_here, lanes, rows
from restante.queue.rows import Result, Settled
from restante.queue.work import LaneNews

_ENDS = frozenset({RecipientState.DELIVERED, RecipientState.FAILED})


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An attempt, what became of each recipient, and what was learnt of its lane."""

    message: QueuedMessage
    results: Sequence[Result]
    now: float
    """Seconds since the epoch."""
    news: LaneNews | None

    @property
    def queue_id(self) -> str:
        """The message's."""
        return self.message.envelope.queue_id

    @property
    def asked(self) -> dict[int, RecipientDsn]:
        """What the attempt knew of the sender's wishes, by recipient."""
        return {each.id: each.target.dsn for each in self.message.recipients}

    @property
    def lanes(self) -> set[str]:
        """The lanes in which it changes who waits."""
        fresh = {target.lane for result in self.results for target in result.targets}
        moved = {result.lane for result in self.results if result.lane is not None}
        return {self.message.lane} | fresh | moved

    @property
    def ends(self) -> bool:
        """Whether all that it does is to settle recipients of whom nobody is to be told."""
        fails = self.news is not None and self.news.back_off is not None
        return not fails and all(
            each.state in _ENDS and each.notice is None for each in self.results
        )


@dataclass(frozen=True, slots=True)
class Entered:
    """What a record led to."""

    settled: Settled
    states: Mapping[int, RecipientState | None]
    """See ``Recorded``."""
    blocked_until: float | None = None
    """See ``Recorded``."""
    recovered: bool = False
    """See ``Recorded``."""


def enter(connection: sqlite3.Connection, records: Sequence[Record], life: int) -> list[Entered]:
    """Enter records; what an operator has changed is respected (see ``rows.record_result``).

    Most attempts are the last of their messages. These are entered together, and leave as
    little to be written as there is left of them.
    """
    finished = _remove(connection, [each for each in records if each.ends])
    recovered = _learn_of_successes(connection, finished)
    if finished:
        changed = {each.message.lane for each in finished}
        lanes.settle_lanes(connection, changed, max(each.now for each in finished))
    last = {each.queue_id: each for each in finished}
    together = {
        each: Entered(
            Settled.FINISHED if last[each.queue_id] is each else Settled.KEPT,
            {result.recipient: result.state for result in each.results},
            recovered=each in recovered,
        )
        for each in finished
    }
    return [together.get(each) or _enter_one(connection, each, life) for each in records]


_UNSAID = -1
"""Stands for NULL where a recipient's ``notify`` is compared."""
_OPEN = "state IN ('waiting', 'held')"
_ENDING = (
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')"
    " FROM json_each(:recipients))"
)
"""Recipients with their messages: a number alone may be another's since its message was removed.

And with what was known to be asked for: if there is more by now, somebody may be to be told."""
_ENDS_NOW = f"((queue_id, id, coalesce(notify, {_UNSAID})) IN {_ENDING})"
_OTHERS = f"(NOT {_OPEN} OR NOT {_ENDS_NOW})"
_REMOVE = (
    "DELETE FROM message WHERE queue_id IN (SELECT value FROM json_each(:ids))"  # noqa: S608 - constants
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE queue_id = message.queue_id"
    f" AND {_OPEN} AND {_OTHERS})"
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE queue_id = message.queue_id"
    f" AND notice != '' AND {_OTHERS})"
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE queue_id = message.queue_id"
    f" AND state IN ('failed', 'removed') AND {_ENDS_NOW})"
    " RETURNING queue_id"
)
"""Those messages of which nothing is open but what ends now, nobody else being to be told.

And of which an operator has settled nothing that would end now."""


def _remove(connection: sqlite3.Connection, ending: Sequence[Record]) -> list[Record]:
    """Remove the messages of which nothing is left; those records after which it is so."""
    if not ending:
        return []
    about = {
        "ids": json.dumps([each.queue_id for each in ending]),
        "recipients": json.dumps([known for each in ending for known in _as_known(each)]),
    }
    removed = {queue_id for (queue_id,) in connection.execute(_REMOVE, about)}
    return [each for each in ending if each.queue_id in removed]


def _as_known(record: Record) -> list[tuple[str, int, int]]:
    """The recipients that an attempt has settled, as _ENDING has them."""
    asked = record.asked
    return [
        (record.queue_id, each.recipient, _number(asked.get(each.recipient, NO_DSN).notify))
        for each in record.results
    ]


def _number(notify: Notify | None) -> int:
    return _UNSAID if notify is None else notify.value


def _learn_of_successes(connection: sqlite3.Connection, records: Iterable[Record]) -> set[Record]:
    """Have lanes count as working; the records that end a time of failures.

    In each lane the attempt that began last decides for all.
    """
    latest: dict[str, tuple[float, Record]] = {}
    for each in records:
        lane, news = each.message.lane, each.news
        if news is None or is_here(lane):
            continue
        if lane not in latest or news.began > latest[lane][0]:
            latest[lane] = news.began, each
    return {
        each for lane, (began, each) in latest.items() if lanes.works_again(connection, lane, began)
    }


def _enter_one(connection: sqlite3.Connection, record: Record, life: int) -> Entered:
    """Any record, by itself."""
    asked, envelope = record.asked, record.message.envelope
    copies = rows.Copies(envelope)
    states: dict[int, RecipientState | None] = {}
    for result in record.results:
        known = asked.get(result.recipient)
        states[result.recipient] = rows.record_result(
            connection, envelope, result, life, known, copies, record.now
        )
    until, recovered = _learn(connection, record)
    lanes.settle_lanes(connection, record.lanes, record.now)
    settled = rows.settle_message(connection, record.queue_id, record.now)
    return Entered(settled, states, until, recovered)


def _learn(connection: sqlite3.Connection, record: Record) -> tuple[float | None, bool]:
    """Until when the lane is left alone from now on, and whether it works again."""
    lane, news = record.message.lane, record.news
    if news is None or is_here(lane):
        return None, False
    if news.back_off is None:
        return None, lanes.works_again(connection, lane, news.began)
    until = lanes.leave_alone(connection, lane, news.back_off, news.began, record.now)
    return until, False
