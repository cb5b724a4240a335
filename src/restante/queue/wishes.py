"""What a sender has asked for of a copy, where that changes once the copy is in the queue.

An alias may lead to somebody whom the message is for anyway. He or she gets one copy, and the
sender is told of it what either RCPT asks for (``RecipientDsn.merged``).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from restante.address import NullReversePath
from restante.envelope import Envelope, Notify, RecipientDsn
from restante.queue import Action, LastAnswer, RecipientState, Target, answers


def wants(envelope: Envelope, target: Target, what: Notify) -> bool:
    """Whether somebody is to be told of what becomes of ``target``.

    Of a message from nobody only that it failed, whatever was asked: reports ask for
    nothing (RFC 3461 §6.1), and it is the postmaster who is told.
    """
    if isinstance(target.envelope(envelope).reverse_path, NullReversePath):
        return what is Notify.FAILURE
    return target.dsn.wants(what)


def are_more(before: RecipientDsn, other: RecipientDsn) -> bool:
    """Whether a sender is told more where ``other`` counts as well."""
    if other == before:
        return False
    after = before.merged(other)
    return any(_is_new(each, before, after) for each in Notify)


def widen(
    connection: sqlite3.Connection, envelope: Envelope, rows: Sequence[int], target: Target
) -> dict[int, RecipientDsn]:
    """The message has ``target`` already, in ``rows``: what is asked for of it counts there too.

    What counts from now on, where that is more.

    Where the rows are parts of an alias, none of them can tell of its success. Nothing is told of
    what an operator has removed, and an alias that was expanded has handed on what it had.
    """
    if isinstance(target.envelope(envelope).reverse_path, NullReversePath):
        return {}  # told of failures alone, and of these whatever is asked for
    found = connection.execute(
        "SELECT id, state, notify, orcpt, last FROM recipient"
        " WHERE id IN (SELECT value FROM json_each(?))"
        " AND state IN ('waiting', 'held', 'delivered', 'failed')",
        (json.dumps(rows),),
    ).fetchall()
    more = _without_success(target.dsn) if len(found) > 1 else target.dsn
    widened: dict[int, RecipientDsn] = {}
    for number, state, notify, orcpt, last in found:
        before = dsn_of(notify, orcpt)
        if not are_more(before, more):
            continue
        after = widened[number] = before.merged(more)
        notice = belated(RecipientState(state), answers.decode(last), before, after)
        connection.execute(
            "UPDATE recipient SET notify = ?, orcpt = ?, notice = coalesce(?, notice) WHERE id = ?",
            (notify_column(after), after.orcpt, notice, number),
        )
    return widened


def belated(
    state: RecipientState, last: LastAnswer | None, before: RecipientDsn, after: RecipientDsn
) -> Action | None:
    """What is to be told of a settled recipient since ``after`` counts instead of ``before``.

    A host that has taken the message did so without that wish, whether it knows of RFC 3461 or
    not: it will not tell.
    """
    if state is RecipientState.FAILED and _is_new(Notify.FAILURE, before, after):
        return Action.FAILED
    if state is RecipientState.DELIVERED and _is_new(Notify.SUCCESS, before, after):
        return Action.RELAYED if last is not None and last.peer is not None else Action.DELIVERED
    return None


def dsn_of(notify: int | None, orcpt: str) -> RecipientDsn:
    """The wishes as their columns have them."""
    return RecipientDsn(None if notify is None else Notify(notify), orcpt)


def notify_column(dsn: RecipientDsn) -> int | None:
    """What ``dsn_of`` reads."""
    return None if dsn.notify is None else dsn.notify.value


def _is_new(what: Notify, before: RecipientDsn, after: RecipientDsn) -> bool:
    return after.wants(what) and not before.wants(what)


def _without_success(dsn: RecipientDsn) -> RecipientDsn:
    if dsn.notify is None:
        return dsn
    return replace(dsn, notify=dsn.notify & ~Notify.SUCCESS)
