"""Messages and recipients as rows: what the store, operators' reader and their changes share."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from restante.address import NULL_REVERSE_PATH, Address, NullReversePath, ReversePath, fold
from restante.envelope import Content, Envelope, HeaderFacts, Notify, RecipientDsn
from restante.queue import (
    LOCAL_LANE,
    Action,
    DuplicateMessage,
    LastAnswer,
    QueuedRecipient,
    RecipientState,
    Submission,
    Target,
    answers,
    is_here,
    wishes,
)
from restante.queue.lanes import touch_lane

REPORT_PATIENCE = 600.0
"""Seconds that a notice waits at most for others of its message to share a report."""

_SELECT_MESSAGE = (
    "SELECT queue_id, sender_local, sender_domain, accepted_for, received_at, eight_bit, smtputf8,"
    " ret, envid, received_fields, delivered_to, body_size, body_lines, trace, body"
    " FROM message WHERE queue_id = ?"
)
_SELECT_WITHOUT_BODY = _SELECT_MESSAGE.replace(", body FROM", ", iif(body IS NULL, NULL, x'') FROM")
SELECT_RECIPIENTS = (
    "SELECT id, address, instruction, via, lane, notify, orcpt, state, attempts, next_attempt,"
    " last, trail, delay_told, notice, reverse_path, account, received_at, life FROM recipient"
)
_RECIPIENT = (
    "recipient (id, queue_id, lane, state, next_attempt, received_at, attempts, life,"
    " address, instruction, account, reverse_path, via, trail, notify, orcpt, last, notice,"
    " delay_told)"
)
MOST_ROWS = 64
"""Rows that one statement adds: a power of two, and far from the number of parameters that SQLite
takes (32,766)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that is to be added."""

    submission: Submission
    body: bytes | None
    """None: it is a file."""
    taken_from: str = ""
    """The name of a file that it came from; empty: none."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt made of one recipient."""

    recipient: int
    state: RecipientState
    last: LastAnswer | None = None
    """What it was told; None: what it was told before still stands."""
    next_attempt: float = 0.0
    """If it waits: until when, in seconds since the epoch."""
    lane: str | None = None
    """Where it waits from now on; None: where it did. Set only if this was no attempt."""
    notice: Action | None = None
    """What its sender is to be told; None: nothing new."""
    late: bool = False
    """The moment for a notice of delay has come: it is told now, or not wanted."""
    targets: tuple[Target, ...] = ()
    """If it was expanded: who is tried in its place."""
    looping: tuple[Looping, ...] = ()
    """If it was expanded: targets that lead back to it."""
    instruction: str | None = None
    """If it waits: what is left to be done; None: what was to be done before."""
    account: str | None = None
    """Whose instructions these are; None: as before."""
    certain: bool = True
    """False: the attempt may have delivered all the same."""


@dataclass(frozen=True, slots=True)
class Looping:
    """A target that is not tried at all, and what it fails with."""

    target: Target
    failure: LastAnswer


@dataclass(frozen=True, slots=True)
class Inserted:
    """A message's recipients as they would be read, and what was seen on the way."""

    recipients: tuple[QueuedRecipient, ...]
    failing: bool
    """A lane of one of them has been failing."""


class Settled(Enum):
    """What is left of a message."""

    KEPT = auto()
    FINISHED = auto()
    """Nothing of it waited any more, and nobody was to be told: it has been removed."""
    GONE = auto()
    """Somebody had removed it before."""


def insert_messages(
    connection: sqlite3.Connection, arrivals: Sequence[Arrival], life: int
) -> list[Inserted]:
    """Add the messages and their targets, due at once; repeated targets of a message once.

    Raises DuplicateMessage if an id is known, and has done something then.
    """
    _insert_without_recipients(connection, arrivals)
    fresh = [_distinct(each.submission.targets) for each in arrivals]
    pairs = [
        (arrival.submission.envelope, target)
        for arrival, targets in zip(arrivals, fresh, strict=True)
        for target in targets
    ]
    rows = [
        _recipient_row(envelope, target, life, envelope.received_at, envelope.received_at)
        for envelope, target in pairs
    ]
    numbers = iter(_insert_recipients(connection, rows))
    failing = _touch_lanes(connection, pairs)
    return [
        Inserted(
            tuple(_fresh(next(numbers), target, arrival) for target in targets),
            any(target.lane in failing for target in targets),
        )
        for arrival, targets in zip(arrivals, fresh, strict=True)
    ]


def insert_failed(
    connection: sqlite3.Connection, arrival: Arrival, failure: LastAnswer, life: int
) -> Settled:
    """Add a message all of whose targets have failed; it is KEPT until its sender is told.

    Raises DuplicateMessage if its id is known, and has done something then.
    """
    _insert_without_recipients(connection, [arrival])
    envelope = arrival.submission.envelope
    now = envelope.received_at
    _insert_recipients(
        connection,
        [
            _recipient_row(envelope, target, life, now, now, failure=failure)
            for target in _distinct(arrival.submission.targets)
        ],
    )
    return settle_message(connection, envelope.queue_id, now)


def _insert_without_recipients(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
    for each in arrivals:
        if each.taken_from:
            note_taken(connection, each.taken_from)
    try:
        _insert(connection, "message", [_message_row(each) for each in arrivals])
    except sqlite3.IntegrityError as error:
        ids = ", ".join(each.submission.envelope.queue_id for each in arrivals)
        raise DuplicateMessage(f"the queue has {ids} already") from error


def _touch_lanes(
    connection: sqlite3.Connection, pairs: Iterable[tuple[Envelope, Target]]
) -> set[str]:
    """Have the lanes of the targets due as early as these are; those that have been failing."""
    due: dict[str, float] = {}
    for envelope, target in pairs:
        due[target.lane] = min(due.get(target.lane, math.inf), envelope.received_at)
    return {lane for lane, earliest in due.items() if touch_lane(connection, lane, earliest)}


def _fresh(number: int, target: Target, arrival: Arrival) -> QueuedRecipient:
    born = arrival.submission.envelope.received_at
    return QueuedRecipient(number, target, RecipientState.WAITING, 0, born, born, None)


def _message_row(arrival: Arrival) -> tuple[Any, ...]:
    assert arrival.submission.targets, "a message for nobody would stay for ever"
    envelope, content = arrival.submission.envelope, arrival.submission.content
    sender = envelope.reverse_path
    local, domain = (None, None) if isinstance(sender, NullReversePath) else _pair(sender)
    return (
        envelope.queue_id,
        local,
        domain,
        json.dumps([_pair(address) for address in envelope.recipients]),
        envelope.received_at,
        envelope.eight_bit,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        content.facts.received,
        json.dumps(sorted(content.facts.delivered_to)),
        content.body_size,
        content.body_lines,
        content.trace,
        arrival.body,
    )


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows, many with each statement.

    So many as a power of two has, that there are few statements and SQLite keeps them compiled.
    """
    start = 0
    while start < len(rows):
        count = min(MOST_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        some = rows[start : start + count]
        marks = f"({', '.join('?' * len(some[0]))})"
        connection.execute(
            f"INSERT INTO {into} VALUES {', '.join([marks] * count)}",  # noqa: S608 - constants
            [*itertools.chain.from_iterable(some)],
        )
        start += count


def record_result(
    connection: sqlite3.Connection,
    envelope: Envelope,
    result: Result,
    life: int,
    asked: RecipientDsn | None,
    copies: Copies,
    now: float,
) -> RecipientState | None:
    """Take one recipient where its attempt led; what it is now. None: what it was before.

    An operator may have changed it meanwhile: what is held stays held if it is to wait, and
    is settled if it is settled; what is removed, settled or gone is left as it is. ``asked``:
    what the attempt knew of the sender's wishes, of which there may be more by now. ``copies``:
    the message's, the same for all of an attempt.
    """
    row = _settle_row(connection, envelope.queue_id, result, life)
    if row is None:
        return None
    address, trail, born, notify, orcpt, state = row
    if result.state is RecipientState.EXPANDED:
        due = min(born, now)  # the clock may have been ahead then
        way = (*json.loads(trail), address)
        _expand(connection, envelope, result, life, born, due, copies, way)
    if asked is None:
        return RecipientState(state)
    notice = wishes.belated(result.state, result.last, asked, wishes.dsn_of(notify, orcpt))
    if notice is not None:
        connection.execute(
            "UPDATE recipient SET notice = ? WHERE id = ?", (notice, result.recipient)
        )
    return RecipientState(state)


def _settle_row(
    connection: sqlite3.Connection, queue_id: str, result: Result, life: int
) -> tuple[Any, ...] | None:
    """What the row has of a recipient that was still to be settled."""
    waits = result.state is RecipientState.WAITING
    found: tuple[Any, ...] | None = connection.execute(
        "UPDATE recipient SET state = iif(? AND state = 'held', 'held', ?),"
        " last = coalesce(?, last), next_attempt = ?, lane = coalesce(?, lane),"
        " instruction = coalesce(?, instruction), account = coalesce(?, account),"
        " attempts = attempts + ?,"
        " life = coalesce(?, life), notice = coalesce(?, notice), delay_told = delay_told OR ?"
        " WHERE id = ? AND queue_id = ? AND state IN ('waiting', 'held')"
        " RETURNING address, trail, received_at, notify, orcpt, state",
        (
            waits,
            result.state,
            None if result.last is None else answers.encode(result.last),
            result.next_attempt,
            result.lane,
            None if result.instruction is None else _column(result.instruction),
            result.account,
            result.lane is None,
            _life_after(result, life),
            result.notice or (None if waits else ""),
            result.late,
            result.recipient,
            queue_id,
        ),
    ).fetchone()
    return found


def settle_message(connection: sqlite3.Connection, queue_id: str, now: float) -> Settled:
    """Remove the message if it has served its time, else see to it that notices are told.

    For whoever has changed a recipient, in the same transaction, after its lane was settled.
    """
    told, open_still = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM recipient WHERE queue_id = :id AND notice != ''),"
        " EXISTS (SELECT 1 FROM recipient WHERE queue_id = :id AND state = 'waiting')"
        " OR EXISTS (SELECT 1 FROM recipient WHERE queue_id = :id AND state = 'held')",
        {"id": queue_id},
    ).fetchone()
    if told:
        due = now + (REPORT_PATIENCE if _round_goes_on(connection, queue_id, now) else 0)
        connection.execute(
            "INSERT INTO report VALUES (?, ?) ON CONFLICT DO UPDATE SET due = excluded.due"
            " WHERE excluded.due < due",
            (queue_id, due),
        )
    elif open_still:
        connection.execute("DELETE FROM report WHERE queue_id = ?", (queue_id,))
    else:
        deleted = connection.execute("DELETE FROM message WHERE queue_id = ?", (queue_id,))
        return Settled.FINISHED if deleted.rowcount else Settled.GONE
    return Settled.KEPT


def _round_goes_on(connection: sqlite3.Connection, queue_id: str, now: float) -> bool:
    """Whether a recipient is due, or in flight, in a lane that is not left alone."""
    row = connection.execute(
        "SELECT 1 FROM recipient LEFT JOIN lane ON lane.name = recipient.lane"
        " WHERE queue_id = ? AND state = 'waiting' AND recipient.next_attempt <= ?"
        " AND coalesce(blocked_until, 0) <= ? LIMIT 1",
        (queue_id, now, now),
    ).fetchone()
    return row is not None


def exists(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Whether there is such a message."""
    row = connection.execute("SELECT 1 FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    return row is not None


def note_taken(connection: sqlite3.Connection, name: str) -> None:
    """Remember that the message of this transaction came from a file of that name."""
    connection.execute("INSERT OR IGNORE INTO taken VALUES (?)", (name,))


def taken_names(connection: sqlite3.Connection) -> frozenset[str]:
    """The names that are remembered."""
    return frozenset(name for (name,) in connection.execute("SELECT name FROM taken"))


def forget_taken(connection: sqlite3.Connection, names: Collection[str]) -> None:
    """Remember these no more."""
    connection.executemany("DELETE FROM taken WHERE name = ?", ((name,) for name in names))


def count_messages(connection: sqlite3.Connection) -> int:
    """How many messages there are."""
    return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def load_message(
    connection: sqlite3.Connection, queue_id: str, body_path: str, *, with_body: bool = True
) -> tuple[Envelope, Content] | None:
    """The message, or None if it is gone; if its body is not wanted, one in its row is empty."""
    select = _SELECT_MESSAGE if with_body else _SELECT_WITHOUT_BODY
    row = connection.execute(select, (queue_id,)).fetchone()
    return None if row is None else (_envelope(row), _content(row, body_path))


def waiting_recipients(
    connection: sqlite3.Connection, queue_id: str, lane: str, now: float, limit: int, life: int
) -> tuple[tuple[QueuedRecipient, ...], bool]:
    """Those due in the lane, and whether one may have been tried without a record of it."""
    rows = connection.execute(
        f"{SELECT_RECIPIENTS} WHERE queue_id = ? AND state = 'waiting' AND lane = ?"
        " AND next_attempt <= ? ORDER BY next_attempt, id LIMIT ?",
        (queue_id, lane, now, limit),
    ).fetchall()
    return tuple(map(recipient_of, rows)), any(row[-1] != life for row in rows)


def has_copies(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Whether a recipient has the message in a mailbox here, from the message's own sender."""
    row = connection.execute(
        "SELECT 1 FROM recipient WHERE queue_id = ? AND state = 'delivered' AND lane = ?"
        " AND reverse_path IS NULL LIMIT 1",
        (queue_id, LOCAL_LANE),
    ).fetchone()
    return row is not None


def all_recipients(connection: sqlite3.Connection, queue_id: str) -> tuple[QueuedRecipient, ...]:
    """Every recipient of the message in whatever state, in the order in which they came."""
    rows = connection.execute(f"{SELECT_RECIPIENTS} WHERE queue_id = ? ORDER BY id", (queue_id,))
    return tuple(map(recipient_of, rows))


def recipient_of(row: tuple[Any, ...]) -> QueuedRecipient:
    """The recipient that a row of SELECT_RECIPIENTS tells of."""
    number, address, instruction, via, lane, notify, orcpt, state, attempts, next_attempt = row[:10]
    dsn = wishes.dsn_of(notify, orcpt)
    return QueuedRecipient(
        number,
        Target(address, _lines(instruction), tuple(json.loads(via)), lane, dsn, row[14], row[15]),
        RecipientState(state),
        attempts,
        row[16],
        next_attempt,
        answers.decode(row[10]),
        tuple(json.loads(row[11])),
        bool(row[12]),
    )


def _life_after(result: Result, life: int) -> int | None:
    """What an attempt's record says of its certainty; None: it was none."""
    if not result.certain:
        return 0
    return life if result.lane is None else None


def _expand(
    connection: sqlite3.Connection,
    envelope: Envelope,
    result: Result,
    life: int,
    born: float,
    due: float,
    copies: Copies,
    trail: tuple[str, ...],
) -> None:
    fresh = _distinct(each for each in result.targets if not copies.has(connection, each))
    rows = [_recipient_row(envelope, target, life, born, due, trail) for target in fresh]
    rows += [
        _recipient_row(envelope, each.target, life, born, due, trail, each.failure)
        for each in result.looping
    ]
    numbers = _insert_recipients(connection, rows)
    copies.add(zip(numbers, (*fresh, *(each.target for each in result.looping)), strict=True))
    for lane in _lanes_of(fresh):
        touch_lane(connection, lane, due)


class Copies:
    """What a message has already, in whatever state.

    It is read once for all that an attempt adds: a thousand of the message's recipients may lead
    to one and the same.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._known: dict[_Key, list[int]] | None = None
        """None: nobody has asked yet."""
        self._asked: dict[int, RecipientDsn] = {}

    def has(self, connection: sqlite3.Connection, target: Target) -> bool:
        """Whether the message has the target; what is asked for of it counts there too then."""
        if self._known is None:
            self._known = {}
            self._read(connection)
        numbers = self._known.get(_key(target), [])
        if any(wishes.are_more(self._asked[each], target.dsn) for each in numbers):
            self._asked |= wishes.widen(connection, self._envelope, numbers, target)
        return bool(numbers)

    def add(self, recipients: Iterable[tuple[int, Target]]) -> None:
        """The message has these as well, each under its number."""
        for number, target in recipients:
            self._add(number, target.address, target.instruction, target.reverse_path, target.dsn)

    def _read(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            "SELECT id, address, instruction, reverse_path, notify, orcpt FROM recipient"
            " WHERE queue_id = ?",
            (self._envelope.queue_id,),
        )
        for number, address, instruction, sender, notify, orcpt in rows:
            asked = wishes.dsn_of(notify, orcpt)
            self._add(number, address, _lines(instruction), sender, asked)

    def _add(
        self, number: int, address: str, instruction: str, sender: str | None, asked: RecipientDsn
    ) -> None:
        """Also as the address as a whole, where only some of its instructions are left."""
        if self._known is None:
            return  # it will be read
        self._asked[number] = asked
        for name in {address, fold(address)}:
            for each in {instruction, ""}:
                self._known.setdefault((name, each, sender), []).append(number)


_Key = tuple[str, str, str | None]
"""What makes two targets one and the same copy."""


def _key(target: Target) -> _Key:
    return _name(target), target.instruction, target.reverse_path


def _name(target: Target) -> str:
    """The address as it is compared: what a local part means elsewhere is known there alone.

    RFC 5321 §2.4. Whom an alias leads to is not routed yet, and compared as those here are.
    """
    return fold(target.address) if is_here(target.lane) else target.address


def _distinct(targets: Iterable[Target]) -> list[Target]:
    """Each copy once, in the order in which they are named first, with the wishes of all."""
    copies: dict[_Key, Target] = {}
    for target in targets:
        key = _key(target)
        first = copies.setdefault(key, target)
        if first is not target:
            copies[key] = replace(first, dsn=first.dsn.merged(target.dsn))
    return list(copies.values())


def _recipient_row(
    envelope: Envelope,
    target: Target,
    life: int,
    born: float,
    due: float,
    trail: tuple[str, ...] = (),
    failure: LastAnswer | None = None,
) -> tuple[Any, ...]:
    """A target that is ``due`` then; or failed if there is a ``failure``. Without its id."""
    return (
        envelope.queue_id,
        target.lane,
        RecipientState.WAITING if failure is None else RecipientState.FAILED,
        due,
        born,
        0,
        life,
        target.address,
        _column(target.instruction),
        target.account,
        target.reverse_path,
        json.dumps(target.via),
        json.dumps(trail),
        wishes.notify_column(target.dsn),
        target.dsn.orcpt,
        answers.encode(failure),
        Action.FAILED if failure and wishes.wants(envelope, target, Notify.FAILURE) else "",
        0,
    )


def _insert_recipients(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> range:
    """Add the rows; their ids."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM recipient").fetchone()
    numbers = range(last + 1, last + 1 + len(rows))
    _insert(
        connection, _RECIPIENT, [(number, *row) for number, row in zip(numbers, rows, strict=True)]
    )
    return numbers


def _column(instruction: str) -> str:
    """The instructions as their column has them: those of a file may hold octets of any kind."""
    return json.dumps(instruction.split("\n") if instruction else [])


def _lines(column: str) -> str:
    return "\n".join(json.loads(column))


def _lanes_of(targets: Iterable[Target]) -> set[str]:
    return {target.lane for target in targets}


def _pair(address: Address) -> tuple[str, str]:
    return address.local, address.domain


def _envelope(row: tuple[Any, ...]) -> Envelope:
    queue_id, local, domain, accepted_for, received_at, eight_bit, smtputf8, ret, envid = row[:9]
    sender: ReversePath = NULL_REVERSE_PATH if local is None else Address(local, domain)
    recipients = tuple(Address(*pair) for pair in json.loads(accepted_for))
    return Envelope(
        queue_id, sender, recipients, received_at, bool(eight_bit), bool(smtputf8), ret, envid
    )


def _content(row: tuple[Any, ...], body_path: str) -> Content:
    received, delivered_to, size, lines, trace, body = row[9:]
    facts = HeaderFacts(received, frozenset(json.loads(delivered_to)))
    return Content(trace, body_path if body is None else body, size, lines, facts)
