"""Queues as former versions of Restante wrote them: before lanes, and before lists with owners."""

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


VERSION_2 = """
CREATE TABLE life (number INTEGER NOT NULL);
INSERT INTO life VALUES (0);
CREATE TABLE message (           -- a row never changes
    queue_id TEXT PRIMARY KEY,
    sender_local TEXT,           -- NULL: the null reverse-path
    sender_domain TEXT,
    accepted_for TEXT NOT NULL,  -- [[local, domain], ...]
    received_at REAL NOT NULL,
    eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL,
    received_fields INTEGER NOT NULL,
    delivered_to TEXT NOT NULL,  -- [address, ...]
    body_size INTEGER NOT NULL,
    body_lines INTEGER NOT NULL,
    trace BLOB NOT NULL,
    body BLOB                    -- NULL: it is the file bodies/QUEUE_ID
) STRICT;
CREATE TABLE recipient (
    id INTEGER PRIMARY KEY,
    queue_id TEXT NOT NULL REFERENCES message ON DELETE CASCADE,
    lane TEXT NOT NULL,
    state TEXT NOT NULL CHECK (
        state IN ('waiting', 'held', 'delivered', 'expanded', 'failed', 'removed')
    ),
    next_attempt REAL NOT NULL,
    received_at REAL NOT NULL,   -- the message's
    attempts INTEGER NOT NULL,
    life INTEGER NOT NULL,       -- in which life.number every attempt was recorded; 0: unknown
    address TEXT NOT NULL,
    instruction TEXT NOT NULL,
    via TEXT NOT NULL,           -- [address, ...]
    trail TEXT NOT NULL,         -- [address, ...]
    notify INTEGER,              -- the bits of envelope.Notify; NULL: not said
    orcpt TEXT NOT NULL,
    last TEXT NOT NULL,          -- see answers.py; empty before the first attempt
    notice TEXT NOT NULL CHECK ( -- what its sender is still to be told
        notice IN ('', 'failed', 'delayed', 'delivered', 'relayed', 'expanded')
    ),
    delay_told INTEGER NOT NULL  -- the moment for a notice of delay has come
) STRICT;
CREATE INDEX recipient_of ON recipient (queue_id, state, lane, next_attempt);
CREATE INDEX recipient_lane ON recipient (
    lane, next_attempt, queue_id, received_at, delay_told,
    state                        -- or else SQLite reads the row itself to see that it waits
) WHERE state = 'waiting';
CREATE INDEX recipient_notice ON recipient (queue_id) WHERE notice != '';
CREATE TABLE lane (              -- those in which somebody waits, or that are left alone
    name TEXT PRIMARY KEY,
    next_attempt REAL NOT NULL,  -- the earliest of its waiting recipients, blocked_until if later
    blocked_until REAL NOT NULL, -- 0: not
    failures INTEGER NOT NULL,   -- times that it was to be left alone since it worked last
    why TEXT NOT NULL            -- of the last failure
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_due ON lane (next_attempt);
CREATE TABLE report (            -- messages of which some recipient has a notice
    queue_id TEXT PRIMARY KEY REFERENCES message ON DELETE CASCADE,
    due REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX report_due ON report (due);
CREATE TABLE taken (             -- files that messages here came from, until they are gone
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
UPDATE life SET number = 41;
INSERT INTO message VALUES ('m1', 'ann', 'example.org', '[["all", "example.com"]]', 1800000000.5,
    1, 0, 'FULL', 'id-7', 2, '["a@x"]', 6, 1, x'543a20780a', x'48656c6c6f0a');
INSERT INTO recipient VALUES (1, 'm1', '', 'expanded', 0, 1800000000.5, 1, 41, 'all@example.com',
    '', '[]', '[]', NULL, '', '', '', 0);
INSERT INTO recipient VALUES (2, 'm1', '', 'waiting', 1800000100.5, 1800000000.5, 1, 41,
    'iain@example.com', './Maildir/', '["all@example.com"]', '["all@example.com"]', 2,
    'rfc822;all@example.com', '', 'delayed', 1);
INSERT INTO recipient VALUES (3, 'm1', 'example.net', 'waiting', 1800000100.5, 1800000000.5, 1, 41,
    'bob@example.net', '', '["all@example.com"]', '["all@example.com"]', NULL, '', '', '', 0);
INSERT INTO lane VALUES ('', 1800000100.5, 0, 0, '');
INSERT INTO lane VALUES ('example.net', 1800000200.5, 1800000200.5, 3, 'it is down');
INSERT INTO report VALUES ('m1', 1800000100.5);
INSERT INTO taken VALUES ('m123');
PRAGMA user_version = 2;
"""


def write_former_queue(directory: Path, script: str = VERSION_1) -> None:
    """Make ``directory`` such a queue; in version 1 it has a message ``m2`` with a file."""
    (directory / "bodies").mkdir(parents=True)
    if script == VERSION_1:
        (directory / "bodies" / "m2").write_bytes(LARGE)
    with closing(sqlite3.connect(directory / "queue.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(script)
