"""Messages and recipients as rows: what the store and the operators' reader share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from restante.address import NULL_REVERSE_PATH, Address, NullReversePath, ReversePath, fold
from restante.envelope import Content, Envelope, HeaderFacts
from restante.queue import LastAnswer, QueuedRecipient, RecipientState, Submission, Target, answers

_SELECT_MESSAGE = (
    "SELECT queue_id, sender_local, sender_domain, accepted_for, received_at, eight_bit, smtputf8,"
    " received_fields, delivered_to, body_size, body_lines, trace, body"
    " FROM message WHERE queue_id = ?"
)
_SELECT_WITHOUT_BODY = _SELECT_MESSAGE.replace(", body FROM", ", x'' FROM")
_SELECT_RECIPIENTS = (
    "SELECT id, address, instruction, via, state, attempts, next_attempt, last_reply, trail, life"
    " FROM recipient"
)


class IllegalTransition(Exception):
    """A bug: a recipient that is settled, or of another message, was to change its state."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt made of one recipient."""

    recipient: int
    state: RecipientState
    last: LastAnswer | None = None
    """What it was told."""
    next_attempt: float = 0.0
    """If it waits: until when, in seconds since the epoch."""
    targets: tuple[Target, ...] = ()
    """If it was expanded: who is tried in its place."""
    looping: tuple[Target, ...] = ()
    """If it was expanded: targets that lead back to it; they fail with ``last``."""
    certain: bool = True
    """False: the attempt may have delivered all the same."""


def insert_message(
    connection: sqlite3.Connection, submission: Submission, body: bytes | None, life: int
) -> None:
    """Add the message and its targets, due at once.

    Raises sqlite3.IntegrityError for an id that is known.
    """
    assert submission.targets, "a message for nobody would stay for ever"
    envelope, content = submission.envelope, submission.content
    sender = envelope.reverse_path
    local, domain = (None, None) if isinstance(sender, NullReversePath) else _pair(sender)
    row = (
        envelope.queue_id,
        envelope.received_at,
        local,
        domain,
        json.dumps([_pair(address) for address in envelope.recipients]),
        envelope.received_at,
        envelope.eight_bit,
        envelope.smtputf8,
        content.facts.received,
        json.dumps(sorted(content.facts.delivered_to)),
        content.body_size,
        content.body_lines,
        content.trace,
        body,
    )
    connection.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    fresh = _distinct(submission.targets, known=set())
    _insert_targets(connection, envelope, fresh, life=life, trail=())


def record_result(
    connection: sqlite3.Connection, envelope: Envelope, result: Result, life: int
) -> None:
    """Take one recipient where its attempt led; raises IllegalTransition unless it was waiting."""
    changed = connection.execute(
        "UPDATE recipient SET state = ?, last_reply = ?, next_attempt = ?, life = ?,"
        " attempts = attempts + 1 WHERE id = ? AND queue_id = ? AND state = 'waiting'"
        " RETURNING address, trail",
        (
            result.state,
            answers.encode(result.last),
            result.next_attempt,
            life if result.certain else 0,
            result.recipient,
            envelope.queue_id,
        ),
    ).fetchone()
    if changed is None:
        raise IllegalTransition(f"{envelope.queue_id}/{result.recipient} to {result.state}")
    if result.state is RecipientState.EXPANDED:
        trail = (*json.loads(changed[1]), changed[0])
        _expand(connection, envelope, result, life, trail)


def settle_message(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Set when the message is due next, or remove it if nothing waits; True if it was removed."""
    (earliest,) = connection.execute(
        "SELECT min(next_attempt) FROM recipient WHERE queue_id = ? AND state = 'waiting'",
        (queue_id,),
    ).fetchone()
    if earliest is None:
        connection.execute("DELETE FROM message WHERE queue_id = ?", (queue_id,))
        return True
    connection.execute(
        "UPDATE message SET next_attempt = ? WHERE queue_id = ?", (earliest, queue_id)
    )
    return False


def due_ids(
    connection: sqlite3.Connection, now: float, limit: int, skip: Collection[str]
) -> list[str]:
    """The messages that are due, the longest due first, without those in ``skip``."""
    rows = connection.execute(
        "SELECT queue_id FROM message WHERE next_attempt <= ? ORDER BY next_attempt LIMIT ?",
        (now, limit + len(skip)),
    )
    return [queue_id for (queue_id,) in rows if queue_id not in skip][:limit]


def next_due(connection: sqlite3.Connection, skip: Collection[str]) -> float | None:
    """When the first message that is not in ``skip`` is due."""
    rows = connection.execute(
        "SELECT queue_id, next_attempt FROM message ORDER BY next_attempt LIMIT ?",
        (len(skip) + 1,),
    )
    return next((float(due) for queue_id, due in rows if queue_id not in skip), None)


def exists(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Whether there is such a message."""
    row = connection.execute("SELECT 1 FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    return row is not None


def count_messages(connection: sqlite3.Connection) -> int:
    """How many messages there are."""
    return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def all_ids(connection: sqlite3.Connection) -> list[str]:
    """Every message; ids sort by age."""
    rows = connection.execute("SELECT queue_id FROM message ORDER BY queue_id")
    return [queue_id for (queue_id,) in rows]


def load_message(
    connection: sqlite3.Connection, queue_id: str, body_path: str, *, with_body: bool = True
) -> tuple[Envelope, Content] | None:
    """The message, or None if it is gone; without its body (empty then) if that is not wanted."""
    select = _SELECT_MESSAGE if with_body else _SELECT_WITHOUT_BODY
    row = connection.execute(select, (queue_id,)).fetchone()
    return None if row is None else (_envelope(row), _content(row, body_path))


def waiting_recipients(
    connection: sqlite3.Connection, queue_id: str, now: float, limit: int, life: int
) -> tuple[tuple[QueuedRecipient, ...], bool]:
    """Recipients that are due, and whether one may have been tried without a record of it."""
    rows = connection.execute(
        f"{_SELECT_RECIPIENTS} WHERE queue_id = ? AND state = 'waiting'"
        " AND next_attempt <= ? ORDER BY next_attempt, id LIMIT ?",
        (queue_id, now, limit),
    ).fetchall()
    return tuple(_recipient(row) for row in rows), any(row[-1] != life for row in rows)


def all_recipients(connection: sqlite3.Connection, queue_id: str) -> tuple[QueuedRecipient, ...]:
    """Every recipient of the message in whatever state, in the order in which they came."""
    rows = connection.execute(f"{_SELECT_RECIPIENTS} WHERE queue_id = ? ORDER BY id", (queue_id,))
    return tuple(_recipient(row) for row in rows)


def _expand(
    connection: sqlite3.Connection,
    envelope: Envelope,
    result: Result,
    life: int,
    trail: tuple[str, ...],
) -> None:
    rows = connection.execute(
        "SELECT address, instruction FROM recipient WHERE queue_id = ?", (envelope.queue_id,)
    )
    known = {(fold(address), instruction) for address, instruction in rows}
    fresh = _distinct(result.targets, known)
    _insert_targets(connection, envelope, fresh, life=life, trail=trail)
    _insert_targets(
        connection, envelope, result.looping, life=life, trail=trail, failure=result.last
    )


def _distinct(targets: Iterable[Target], known: set[tuple[str, str]]) -> list[Target]:
    fresh = []
    for target in targets:
        key = (fold(target.address), target.instruction)
        if key not in known:
            known.add(key)
            fresh.append(target)
    return fresh


def _insert_targets(
    connection: sqlite3.Connection,
    envelope: Envelope,
    targets: Sequence[Target],
    *,
    life: int,
    trail: tuple[str, ...],
    failure: LastAnswer | None = None,
) -> None:
    state = RecipientState.FAILED if failure else RecipientState.WAITING
    led = json.dumps(trail)
    connection.executemany(
        "INSERT INTO recipient (queue_id, state, next_attempt, attempts, life, address,"
        " instruction, via, trail, last_reply) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
        (
            (
                envelope.queue_id,
                state,
                envelope.received_at,
                life,
                target.address,
                target.instruction,
                json.dumps(target.via),
                led,
                answers.encode(failure),
            )
            for target in targets
        ),
    )


def _pair(address: Address) -> tuple[str, str]:
    return address.local, address.domain


def _envelope(row: tuple[Any, ...]) -> Envelope:
    queue_id, local, domain, accepted_for, received_at, eight_bit, smtputf8 = row[:7]
    sender: ReversePath = NULL_REVERSE_PATH if local is None else Address(local, domain)
    recipients = tuple(Address(*pair) for pair in json.loads(accepted_for))
    return Envelope(queue_id, sender, recipients, received_at, bool(eight_bit), bool(smtputf8))


def _content(row: tuple[Any, ...], body_path: str) -> Content:
    received, delivered_to, size, lines, trace, body = row[7:]
    facts = HeaderFacts(received, frozenset(json.loads(delivered_to)))
    return Content(trace, body_path if body is None else body, size, lines, facts)


def _recipient(row: tuple[Any, ...]) -> QueuedRecipient:
    number, address, instruction, via, state, attempts, next_attempt, last_reply, trail = row[:9]
    return QueuedRecipient(
        number,
        Target(address, instruction, tuple(json.loads(via))),
        RecipientState(state),
        attempts,
        next_attempt,
        answers.decode(last_reply),
        tuple(json.loads(trail)),
    )
