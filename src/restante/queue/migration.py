"""From the tables of former versions to those of now: in one transaction, losing nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable

from restante.queue import LastAnswer, answers
from restante.status import Reply

_REPLY = re.compile(r"([245]\d\d)(?: [245]\.(\d{1,3}\.\d{1,3}))? (.*)", re.DOTALL)


def from_version_1(connection: sqlite3.Connection, tables: str) -> None:
    """Take every row of version 1 into ``tables``; within a transaction, foreign keys off.

    What waited goes on waiting in the local lane, whose courier says where it belongs;
    what had failed was reported then.
    """
    connection.create_function("last_answer", 2, _last_answer, deterministic=True)
    _migrate(connection, _SET_ASIDE_1, tables, _TAKE_OVER_1)


def from_version_2(connection: sqlite3.Connection, recipients: str) -> None:
    """Take every recipient of version 2 into the tables of now; messages stay where they are.

    ``recipients`` makes the table and all indexes of which version 2 has others. Within a
    transaction, foreign keys off.
    """
    _migrate(connection, _SET_ASIDE_2, recipients, _TAKE_OVER_2)


def _migrate(
    connection: sqlite3.Connection, aside: Iterable[str], script: str, take_over: Iterable[str]
) -> None:
    """Indexes are made when the rows are there: sorted once, they need not be kept in order."""
    made = statements(script)
    indexes = [each for each in made if each.startswith("CREATE INDEX")]
    tables = [each for each in made if each not in indexes]
    for statement in (*aside, *tables, *take_over, *indexes):
        connection.execute(statement)


def statements(script: str) -> list[str]:
    """The statements of a script that has a semicolon only at the end of each."""
    return [statement for statement in script.split(";\n") if statement.strip()]


_SET_ASIDE_1 = (
    "DROP INDEX message_due",
    "DROP INDEX recipient_due",
    "ALTER TABLE life RENAME TO life_1",
    "ALTER TABLE message RENAME TO message_1",
    "ALTER TABLE recipient RENAME TO recipient_1",
)

_TAKE_OVER_1 = (
    "UPDATE life SET number = (SELECT number FROM life_1)",
    """
    INSERT INTO message
    SELECT queue_id, sender_local, sender_domain, accepted_for, received_at, eight_bit, smtputf8,
        '', '', received_fields, delivered_to, body_size, body_lines, trace, body
    FROM message_1
    """,
    """
    INSERT INTO recipient
    SELECT id, queue_id, '', state, r.next_attempt, m.received_at, attempts, life, address,
        iif(instruction = '', '[]', json_array(instruction)), '', NULL, via, trail, NULL, '',
        last_answer(last_reply, m.received_at), '', 0
    FROM recipient_1 AS r JOIN message_1 AS m USING (queue_id)
    """,
    """
    INSERT INTO lane
    SELECT lane, min(next_attempt), 0, 0, '' FROM recipient WHERE state = 'waiting' GROUP BY lane
    """,
    "DROP TABLE recipient_1",
    "DROP TABLE message_1",
    "DROP TABLE life_1",
)

_SET_ASIDE_2 = (
    "DROP INDEX recipient_of",
    "DROP INDEX recipient_lane",
    "DROP INDEX recipient_notice",
    "DROP INDEX lane_due",
    "ALTER TABLE recipient RENAME TO recipient_2",
)

_TAKE_OVER_2 = (
    """
    INSERT INTO recipient
    SELECT id, queue_id, lane, state, next_attempt, received_at, attempts, life, address,
        iif(instruction = '', '[]', json_array(instruction)), '', NULL, via, trail, notify, orcpt,
        last, notice, delay_told
    FROM recipient_2
    """,
    "DROP TABLE recipient_2",
)


def _last_answer(last_reply: str, received_at: float) -> str:
    """``451 4.3.0 not now (detail)`` as it is kept now; nobody knows any more when it was said."""
    if not last_reply:
        return ""
    read = _REPLY.fullmatch(last_reply)
    code, topic, text = read.groups() if read else ("451", None, last_reply)
    reply = Reply(int(code), topic or "", text)
    return answers.encode(LastAnswer(reply, "", None, received_at))
