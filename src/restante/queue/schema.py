"""The queue's tables, and how a connection to them is made."""

from __future__ import annotations

import os
import sqlite3

from restante.queue import QueueUnusable

DATABASE = "queue.db"
BODIES = "bodies"
VERSION = 1
"""Of the tables below, kept in ``user_version``."""
BUSY_TIMEOUT = 10.0
"""Seconds to wait for an operator's tool that holds the database."""

_TABLES = """
CREATE TABLE life (number INTEGER NOT NULL);
INSERT INTO life VALUES (0);
CREATE TABLE message (
    queue_id TEXT PRIMARY KEY,
    next_attempt REAL NOT NULL,  -- the earliest of its waiting recipients
    sender_local TEXT,           -- NULL: the null reverse-path
    sender_domain TEXT,
    accepted_for TEXT NOT NULL,  -- [[local, domain], ...]
    received_at REAL NOT NULL,
    eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    received_fields INTEGER NOT NULL,
    delivered_to TEXT NOT NULL,  -- [address, ...]
    body_size INTEGER NOT NULL,
    body_lines INTEGER NOT NULL,
    trace BLOB NOT NULL,
    body BLOB                    -- NULL: it is the file bodies/QUEUE_ID
) STRICT;
CREATE INDEX message_due ON message (next_attempt, queue_id);
CREATE TABLE recipient (
    id INTEGER PRIMARY KEY,
    queue_id TEXT NOT NULL REFERENCES message ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'expanded', 'failed')),
    next_attempt REAL NOT NULL,
    attempts INTEGER NOT NULL,
    life INTEGER NOT NULL,       -- in which life.number every attempt was recorded; 0: unknown
    address TEXT NOT NULL,
    instruction TEXT NOT NULL,
    via TEXT NOT NULL,           -- [address, ...]
    trail TEXT NOT NULL,         -- [address, ...]
    last_reply TEXT NOT NULL
) STRICT;
CREATE INDEX recipient_due ON recipient (queue_id, state, next_attempt);
"""


def connect_writer(directory: str) -> sqlite3.Connection:
    """The one connection that writes to the queue in ``directory``, its tables made if need be.

    Raises QueueUnusable.
    """
    path = os.path.join(directory, DATABASE)
    connection = _connect(path, f"file:{_quote(path)}?mode=rwc")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _create(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise QueueUnusable(f"the queue {path} cannot be opened: {error}") from error
    except QueueUnusable:
        connection.close()
        raise
    return connection


def connect_reader(directory: str) -> sqlite3.Connection:
    """A connection that cannot write; works while another process writes. Raises QueueUnusable."""
    path = os.path.join(directory, DATABASE)
    connection = _connect(path, f"file:{_quote(path)}?mode=ro")
    try:
        _check_version(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise QueueUnusable(f"the queue {path} cannot be read: {error}") from error
    except QueueUnusable:
        connection.close()
        raise
    return connection


def begin_life(connection: sqlite3.Connection) -> int:
    """The number of this process life: recipients that bear another one may have been tried."""
    row = connection.execute("UPDATE life SET number = number + 1 RETURNING number").fetchone()
    return int(row[0])


def _connect(path: str, uri: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise QueueUnusable(f"the queue {path} cannot be opened: {error}") from error


def _quote(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _create(connection: sqlite3.Connection, path: str) -> None:
    if _check_version(connection, path) == 0:
        connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {VERSION};COMMIT;")


def _check_version(connection: sqlite3.Connection, path: str) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise QueueUnusable(f"the queue {path} was written by a newer version of Restante")
    return version
