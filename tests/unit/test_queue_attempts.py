"""Attempts that are recorded together: the same comes of them as of one after another."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from restante.envelope import NO_DSN, Notify, RecipientDsn
from restante.queue import (
    Action,
    BackOff,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Submission,
    Target,
    lanes,
    rows,
    schema,
)
from restante.queue.attempts import Entered, Record, enter
from restante.queue.rows import Arrival, Result, Settled
from restante.queue.work import LaneNews
from tests.support.jumping_clock import START
from tests.support.queued import content, envelope

LANES = ("", "a.example", "b.example")
NOW = START + 10
LIFE = 1
TABLES = ("message", "recipient", "lane", "report")


@dataclass(frozen=True)
class Case:
    """A recipient: what an operator or an earlier attempt made of it, and what this one does."""

    lane: str
    before: str
    """A state; ``message`` if the operator removed all of its message."""
    notice: str
    result: Result | None
    """None: it was not tried."""


RESULTS = st.sampled_from(
    [
        *[Result(0, RecipientState.DELIVERED)] * 5,
        Result(0, RecipientState.FAILED),
        Result(0, RecipientState.FAILED, notice=Action.FAILED),
        Result(0, RecipientState.WAITING, next_attempt=NOW + 60),
        Result(0, RecipientState.WAITING, lane="c.example"),
        Result(0, RecipientState.EXPANDED, targets=(Target("fresh@x", lane="c.example"),)),
        None,
    ]
)
CASES = st.builds(
    Case,
    st.sampled_from(LANES),
    st.sampled_from(["waiting"] * 6 + ["held", "removed", "message"]),
    st.sampled_from(["", "", "", "delayed"]),
    RESULTS,
)
MESSAGES = st.lists(st.lists(CASES, min_size=1, max_size=4), min_size=1, max_size=5)
NEWS = st.fixed_dictionaries(
    {
        lane: st.sampled_from([None, LaneNews(NOW, None), LaneNews(NOW, BackOff("down"))])
        for lane in LANES
    }
)


@given(MESSAGES, NEWS, st.sets(st.sampled_from(LANES)))
def test_together_or_one_by_one_is_the_same(
    messages: Sequence[Sequence[Case]], news: dict[str, LaneNews | None], failing: set[str]
) -> None:
    one, many = Queue(), Queue()
    with closing(one.connection), closing(many.connection):
        for queue in (one, many):
            queue.fill(messages, failing)
        records = one.records(messages, news)
        alone = [each for record in records for each in enter(one.connection, [record], LIFE)]
        together = enter(many.connection, records, LIFE)
        assert many.rows() == one.rows()
        assert told(records, together) == told(records, alone)


def told(records: Sequence[Record], entered: Sequence[Entered]) -> object:
    """What hangs on the order of the records only in who of them is told."""
    pairs = [*zip(records, entered, strict=True)]
    ends = sorted((each.queue_id, result.settled is Settled.FINISHED) for each, result in pairs)
    recovered = sorted(each.message.lane for each, result in pairs if result.recovered)
    blocked = {each.message.lane: result.blocked_until for each, result in pairs}
    states = {(each.queue_id, *of) for each, result in pairs for of in result.states.items()}
    return ends, recovered, {lane: until is not None for lane, until in blocked.items()}, states


class Queue:
    """The tables of a queue, filled with cases."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(schema.TABLES)
        self.connection.execute("PRAGMA foreign_keys = ON")

    def fill(self, messages: Sequence[Sequence[Case]], failing: set[str]) -> None:
        arrivals = [
            Arrival(Submission(envelope(queue_id=f"m{number}"), content(), targets(cases)), b"")
            for number, cases in enumerate(messages)
        ]
        rows.insert_messages(self.connection, arrivals, LIFE)
        for lane in failing:
            self.connection.execute("UPDATE lane SET failures = 2 WHERE name = ?", (lane,))
        for number, cases in enumerate(messages):
            for place, case in enumerate(cases):
                self._change(f"m{number}", address(place), case)
        lanes.settle_lanes(self.connection, LANES, NOW)

    def _change(self, queue_id: str, recipient: str, case: Case) -> None:
        if case.before == "message":
            self.connection.execute("DELETE FROM message WHERE queue_id = ?", (queue_id,))
            return
        self.connection.execute(
            "UPDATE recipient SET state = ?, notice = ? WHERE queue_id = ? AND address = ?",
            (case.before, case.notice, queue_id, recipient),
        )

    def records(
        self, messages: Sequence[Sequence[Case]], news: dict[str, LaneNews | None]
    ) -> list[Record]:
        """An attempt for each lane of each message."""
        numbers = iter(range(1, 1000))
        found = []
        for number, cases in enumerate(messages):
            tried = [(next(numbers), place, case) for place, case in enumerate(cases)]
            for lane in LANES:
                results = [
                    Result(
                        recipient,
                        case.result.state,
                        next_attempt=case.result.next_attempt,
                        lane=case.result.lane,
                        notice=case.result.notice,
                        targets=case.result.targets,
                    )
                    for recipient, _, case in tried
                    if case.lane == lane and case.result is not None
                ]
                waiting = tuple(
                    QueuedRecipient(
                        recipient,
                        Target(address(place), lane=lane),
                        RecipientState.WAITING,
                        0,
                        START,
                        START,
                        None,
                    )
                    for recipient, place, case in tried
                    if case.lane == lane
                )
                if results:
                    sent = envelope(queue_id=f"m{number}")
                    message = QueuedMessage(sent, content(), waiting, False, lane)
                    found.append(Record(message, results, NOW, news[lane]))
        return found

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """All that the tables say, but for the numbers of recipients that were added."""
        return {
            table: sorted(
                (row[1:] if table == "recipient" else row for row in self._all(table)), key=repr
            )
            for table in TABLES
        }

    def _all(self, table: str) -> list[tuple[object, ...]]:
        return self.connection.execute(f"SELECT * FROM {table}").fetchall()


def address(place: int) -> str:
    return f"r{place}@x"


def targets(cases: Sequence[Case]) -> tuple[Target, ...]:
    return tuple(Target(address(place), lane=case.lane) for place, case in enumerate(cases))


def test_a_number_that_was_another_messages_before_settles_nothing() -> None:
    """A message that was removed in flight leaves its recipients' numbers to the next one."""
    queue = Queue()
    with closing(queue.connection) as connection:
        _add(connection, "gone", "a.example")
        connection.execute("DELETE FROM message")
        _add(connection, "next", "a.example", "b.example")
        enter(
            connection, [_delivered("gone", 1, "a.example"), _delivered("next", 2, "b.example")], 1
        )
        waiting = connection.execute("SELECT id FROM recipient WHERE state = 'waiting'").fetchall()
    assert waiting == [(1,)]


LED_TO = st.lists(
    st.builds(
        Target,
        st.sampled_from(["r0@x", "R1@x", "fresh@x", "Fresh@x", "other@x"]),
        st.sampled_from(["", "", "./mbox"]),
        dsn=st.sampled_from(
            [NO_DSN, RecipientDsn(Notify.SUCCESS, "o"), RecipientDsn(Notify.DELAY), RecipientDsn()]
        ),
        reverse_path=st.sampled_from([None, None, "owner@x"]),
    ),
    max_size=5,
)


@given(st.lists(LED_TO, min_size=2, max_size=5))
def test_aliases_of_one_attempt_are_as_those_of_many(led_to: list[list[Target]]) -> None:
    """What a message has already is read once for all of an attempt."""
    one, many = Queue(), Queue()
    with closing(one.connection), closing(many.connection):
        for queue in (one, many):
            _add(queue.connection, "m", *[""] * (len(led_to) + 1))
        records = [_expanded("m", {number: led}) for number, led in enumerate(led_to, 1)]
        for record in records:
            enter(one.connection, [record], LIFE)
        enter(many.connection, [_expanded("m", dict(enumerate(led_to, 1)))], LIFE)
        assert many.rows() == one.rows()


def test_what_a_message_has_is_read_once_however_many_lead_to_it() -> None:
    queue = Queue()
    with closing(queue.connection) as connection:
        _add(connection, "m", *[""] * 20)
        boss = Target("boss@x", dsn=RecipientDsn(Notify.SUCCESS))
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        enter(connection, [_expanded("m", {number: [boss] for number in range(1, 21)})], LIFE)
    reads = [each for each in asked if each.startswith("SELECT id, ")]
    assert len(reads) == 1


def _expanded(queue_id: str, led_to: dict[int, list[Target]]) -> Record:
    """An attempt that found aliases: which targets each has."""
    message = QueuedMessage(envelope(queue_id=queue_id), content(), (), False, "")
    results = [
        Result(number, RecipientState.EXPANDED, targets=tuple(targets))
        for number, targets in led_to.items()
    ]
    return Record(message, results, NOW, None)


def _add(connection: sqlite3.Connection, queue_id: str, *lanes: str) -> None:
    recipients = tuple(Target(address(place), lane=lane) for place, lane in enumerate(lanes))
    submission = Submission(envelope(queue_id=queue_id), content(), recipients)
    rows.insert_messages(connection, [Arrival(submission, b"")], LIFE)


def _delivered(queue_id: str, recipient: int, lane: str) -> Record:
    message = QueuedMessage(envelope(queue_id=queue_id), content(), (), False, lane)
    return Record(message, [Result(recipient, RecipientState.DELIVERED)], NOW, None)


def test_what_an_operator_has_settled_is_not_settled_anew_by_the_end_of_all() -> None:
    queue = Queue()
    with closing(queue.connection) as connection:
        _add(connection, "m", "a.example", "a.example")
        connection.execute("UPDATE recipient SET state = 'removed' WHERE id = 1")
        message = QueuedMessage(envelope(queue_id="m"), content(), (), False, "a.example")
        results = [Result(number, RecipientState.FAILED) for number in (1, 2)]
        (entered,) = enter(connection, [Record(message, results, NOW, None)], LIFE)
    assert entered == Entered(Settled.FINISHED, {1: None, 2: RecipientState.FAILED})
