"""From the tables of version 1 to those of now: in one transaction, losing nothing."""

from __future__ import annotations

import re
import sqlite3

from restante.queue import LastAnswer, answers
from restante.status import Reply

_REPLY = re.compile(r"([245]\d\d)(?: [245]\.(\d{1,3}\.\d{1,3}))? (.*)", re.DOTALL)


def migrate(connection: sqlite3.Connection, tables: str) -> None:
    """Take every row of version 1 into ``tables``; within a transaction, foreign keys off.

    What waited goes on waiting in the local lane, whose courier says where it belongs;
    what had failed was reported then.
    """
    connection.create_function("last_answer", 2, _last_answer, deterministic=True)
    for statement in (*_SET_ASIDE, *statements(tables), *_TAKE_OVER):
        connection.execute(statement)


def statements(script: str) -> list[str]:
    """The statements of a script that has a semicolon only at the end of each."""
    return [statement for statement in script.split(";\n") if statement.strip()]


_SET_ASIDE = (
    "DROP INDEX message_due",
    "DROP INDEX recipient_due",
    "ALTER TABLE life RENAME TO life_1",
    "ALTER TABLE message RENAME TO message_1",
    "ALTER TABLE recipient RENAME TO recipient_1",
)

_TAKE_OVER = (
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
        instruction, via, trail, NULL, '', last_answer(last_reply, m.received_at), '', 0
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


def _last_answer(last_reply: str, received_at: float) -> str:
    """``451 4.3.0 not now (detail)`` as it is kept now; nobody knows any more when it was said."""
    if not last_reply:
        return ""
    read = _REPLY.fullmatch(last_reply)
    code, topic, text = read.groups() if read else ("451", None, last_reply)
    reply = Reply(int(code), topic or "", text)
    return answers.encode(LastAnswer(reply, "", None, received_at))
