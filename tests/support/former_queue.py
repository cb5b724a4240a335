"""A queue as the version of Restante before lanes wrote it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

LARGE = (b"0123456789\n" * 6364)[:70000]
"""The body of the message ``m2``."""

VERSION_1 = """
CREATE TABLE life (number INTEGER NOT NULL);
INSERT INTO life VALUES (41);
CREATE TABLE message (
    queue_id TEXT PRIMARY KEY, next_attempt REAL NOT NULL, sender_local TEXT, sender_domain TEXT,
    accepted_for TEXT NOT NULL, received_at REAL NOT NULL, eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL, received_fields INTEGER NOT NULL, delivered_to TEXT NOT NULL,
    body_size INTEGER NOT NULL, body_lines INTEGER NOT NULL, trace BLOB NOT NULL, body BLOB
) STRICT;
CREATE INDEX message_due ON message (next_attempt, queue_id);
CREATE TABLE recipient (
    id INTEGER PRIMARY KEY, queue_id TEXT NOT NULL REFERENCES message ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'expanded', 'failed')),
    next_attempt REAL NOT NULL, attempts INTEGER NOT NULL, life INTEGER NOT NULL,
    address TEXT NOT NULL, instruction TEXT NOT NULL, via TEXT NOT NULL, trail TEXT NOT NULL,
    last_reply TEXT NOT NULL
) STRICT;
CREATE INDEX recipient_due ON recipient (queue_id, state, next_attempt);
INSERT INTO message VALUES ('m1', 1800000100.5, 'ann', 'example.org', '[["all", "example.com"]]',
    1800000000.5, 1, 0, 2, '["a@x"]', 6, 1, x'543a20780a', x'48656c6c6f0a');
INSERT INTO message VALUES ('m2', 1800000001.0, NULL, NULL, '[["iain", "example.com"]]',
    1800000001.0, 0, 1, 0, '[]', 70000, 9, x'', NULL);
INSERT INTO recipient VALUES (1, 'm1', 'expanded', 0, 1, 41, 'all@example.com', '', '[]', '[]', '');
INSERT INTO recipient VALUES (2, 'm1', 'waiting', 1800000100.5, 1, 41, 'iain@example.com',
    './Maildir/', '["all@example.com"]', '["all@example.com"]',
    '451 4.3.0 not now (the disk is away)');
INSERT INTO recipient VALUES (3, 'm1', 'failed', 0, 1, 41, 'ann@example.com', '', '[]', '[]',
    '550 no such user');
INSERT INTO recipient VALUES (4, 'm2', 'waiting', 1800000001.0, 0, 41, 'iain@example.com', '',
    '[]', '[]', '');
PRAGMA user_version = 1;
"""


def write_former_queue(directory: Path) -> None:
    """Make ``directory`` such a queue, with the messages ``m1`` and ``m2``."""
    (directory / "bodies").mkdir(parents=True)
    (directory / "bodies" / "m2").write_bytes(LARGE)
    with closing(sqlite3.connect(directory / "queue.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
