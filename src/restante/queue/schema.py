"""The queue's tables, and how a connection to them is made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from restante.btrfs import prepare_index
from restante.queue import OF_ACCOUNT, QueueUnusable

DATABASE = "queue.db"
BODIES = "bodies"
WAKE = "wake"
"""The socket at which the owner of a queue hears that somebody else has changed it."""
VERSION = 4
"""Of the tables below and what is in them, kept in ``user_version``. Answers without ``put_off``
were of 3."""
BUSY_TIMEOUT = 10.0
"""Seconds to wait for an operator's tool that holds the database."""
PRIMARY_CODE = 0xFF
"""The bits of an SQLite result code that are not its extension."""

IN_LANE_OF_ACCOUNT = f"(substr(name, 1, 1) = '{OF_ACCOUNT}')"
"""Whether a lane is an account's (1 or 0), as questions and the index must both write it."""

TABLES = f"""
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
    received_at REAL NOT NULL,   -- from when its time counts: the message's at first
    attempts INTEGER NOT NULL,
    life INTEGER NOT NULL,       -- in which life.number every attempt was recorded; 0: unknown
    address TEXT NOT NULL,
    instruction TEXT NOT NULL,   -- [line, ...]: all that is left to be done; []: not said
    account TEXT NOT NULL,       -- whose lines these are; empty: nobody's
    reverse_path TEXT,           -- NULL: the message's
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
CREATE INDEX lane_due ON lane ({IN_LANE_OF_ACCOUNT}, next_attempt);
CREATE TABLE report (            -- messages of which some recipient has a notice
    queue_id TEXT PRIMARY KEY REFERENCES message ON DELETE CASCADE,
    due REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX report_due ON report (due);
CREATE TABLE taken (             -- files that messages here came from, until they are gone
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
"""  # noqa: S608 - constants
"""A semicolon at the end of a line ends a statement, and nothing else does."""


def connect_writer(directory: str) -> sqlite3.Connection:
    """A connection that writes to the queue in ``directory``, its tables made if need be.

    Raises QueueUnusable, also where the database is gone and its bodies are not.
    """
    path = os.path.join(directory, DATABASE)
    _check_is_whole(directory, path)
    prepare_index(path)
    connection = _connect(path, f"file://{_quote(path)}?mode=rwc")
    with _closed_if_unusable(connection, f"the queue {path} cannot be opened"):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _create(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_reader(directory: str) -> sqlite3.Connection:
    """A connection that cannot write; works while another process writes. Raises QueueUnusable."""
    path = os.path.join(directory, DATABASE)
    connection = _connect(path, f"file://{_quote(path)}?mode=ro")
    with _closed_if_unusable(connection, f"the queue {path} cannot be read"):
        if _version(connection, path) != VERSION:
            raise QueueUnusable(f"the queue {path} has no tables yet; a server's start makes them")
    return connection


def begin_life(connection: sqlite3.Connection) -> int:
    """The number of this process life: recipients that bear another one may have been tried."""
    row = connection.execute("UPDATE life SET number = number + 1 RETURNING number").fetchone()
    return int(row[0])


def is_damage(error: Exception) -> bool:
    """Whether the database itself is broken, rather than the disk full or failing."""
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: BaseException | None) -> int:
    """SQLite's result code, without its extension; SQLITE_OK for an error of another kind."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & PRIMARY_CODE


def _connect(path: str, uri: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise QueueUnusable(f"the queue {path} cannot be opened: {error}") from error


@contextmanager
def _closed_if_unusable(connection: sqlite3.Connection, complaint: str) -> Iterator[None]:
    """Close the connection where it is of no use; raises QueueUnusable then."""
    try:
        yield
    except sqlite3.Error as error:
        connection.close()
        raise QueueUnusable(f"{complaint}: {error}") from error
    except QueueUnusable:
        connection.close()
        raise


def _quote(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _check_is_whole(directory: str, path: str) -> None:
    """A database is made before the first body: bodies without one are mail, not what is left.

    A new one would name none of them, and SQLite would remove the log of the old one.
    """
    if os.path.exists(path) and os.path.getsize(path) > 0:
        return
    bodies = os.path.join(directory, BODIES)
    if os.path.exists(bodies) and os.listdir(bodies):
        raise QueueUnusable(
            f"the queue {directory} has bodies and no database: put its {DATABASE} back (a copy of"
            f" it only without the {DATABASE}-wal that is here), or move the whole directory away"
        )


def _create(connection: sqlite3.Connection, path: str) -> None:
    if _version(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection, path) == 0:  # another process may have been faster
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has had SQLite undo it already
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: str) -> int:
    """VERSION, or 0 where there are no tables yet; raises QueueUnusable."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise QueueUnusable(f"the queue {path} was written by a newer version of Restante")
    if version not in (0, VERSION):
        raise QueueUnusable(
            f"the queue {path} was written by a version of Restante that was never released:"
            " empty it with that one, or move the whole directory away"
        )
    return version
