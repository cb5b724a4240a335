"""The file that counts: SQLite, shared by all workers and by the operator's commands.

A row is what one account sent in one minute. Durability is relaxed on purpose (WAL with
``synchronous = NORMAL``): no fsync stands between a message and its answer, a killed process
loses nothing, and a power cut may lose the last moments' counts, never the file.
"""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from restante.usage import DAY, HOUR, Counts, Limits, UsageUnusable

FILE_NAME = "usage.db"
"""In ``queue.root``, which is local disk, as WAL asks for."""
VERSION = 1
"""Of the table below, kept in ``user_version``."""
BUSY_TIMEOUT = 5.0
"""Seconds to wait for other workers and operators."""

_TABLE = """
CREATE TABLE IF NOT EXISTS sent (
    account TEXT NOT NULL,       -- folded
    minute INTEGER NOT NULL,     -- since the epoch
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (account, minute)
) STRICT, WITHOUT ROWID
"""
_SUMS = """
coalesce(sum(messages) FILTER (WHERE minute >= :hour), 0), coalesce(sum(messages), 0),
coalesce(sum(recipients) FILTER (WHERE minute >= :hour), 0), coalesce(sum(recipients), 0)
"""
# Not beyond :now: what a wrong clock has counted in the future is none of the last hour's.
_SPENT = f"SELECT {_SUMS} FROM sent WHERE account = :account AND minute BETWEEN :day AND :now"
_ALL = f"SELECT account, {_SUMS} FROM sent WHERE minute BETWEEN :day AND :now GROUP BY account"
_COUNT = """
INSERT INTO sent VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE
SET messages = messages + 1, recipients = recipients + excluded.recipients
"""
_UNCOUNT = """
UPDATE sent SET messages = max(messages - 1, 0), recipients = max(recipients - ?, 0)
WHERE account = ? AND minute = ?
"""


@dataclass(frozen=True, slots=True)
class AccountUsage:
    """One account that has sent something in the last day."""

    account: str
    spent: Counts


class UsageFile:
    """One connection to the file; blocks, and belongs to one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: str, *, create: bool) -> UsageFile:
        """The file at ``path``, made readable by its owner alone if ``create``.

        Raises UsageUnusable, also where there is none and it is not to be made.
        """
        try:
            if create:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                f"file:{_quoted(path)}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        try:
            _prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise _unusable(path, error) from error
        return cls(connection, path)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside is done at once or not at all; raises UsageUnusable."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error

    def spent(self, account: str, now: float) -> Counts:
        """What the account has sent in the hour and the day before ``now``."""
        row = self._connection.execute(_SPENT, {"account": account, **_window(now)}).fetchone()
        return Counts(*row)

    def everybody(self, now: float) -> list[AccountUsage]:
        """Every account that has sent something in the day before ``now``, by name."""
        rows = self._connection.execute(_ALL + " ORDER BY account", _window(now))
        return [AccountUsage(account, Counts(*counts)) for account, *counts in rows]

    def take(self, account: str, recipients: int, limits: Limits, now: float) -> str:
        """Count a message, unless that exceeds a limit: then its name."""
        exceeded = limits.exceeded(self.spent(account, now), recipients)
        if not exceeded:
            self._connection.execute(_COUNT, (account, _minute(now), recipients))
        return exceeded

    def give_back(self, account: str, recipients: int, taken: float) -> None:
        """Forget a message that was counted at ``taken``."""
        self._connection.execute(_UNCOUNT, (recipients, account, _minute(taken)))

    def reset(self, account: str) -> bool:
        """Forget all that the account has sent; whether there was anything."""
        found = self._connection.execute("DELETE FROM sent WHERE account = ?", (account,))
        return found.rowcount > 0

    def forget_old(self, now: float) -> None:
        """Remove what no window reaches any more, and what lies in the future."""
        window = _window(now)
        self._connection.execute(
            "DELETE FROM sent WHERE minute NOT BETWEEN ? AND ?", (window["day"], window["now"] + 1)
        )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise sqlite3.DatabaseError("it was written by a newer version of Restante")
    if version < VERSION:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA user_version = {VERSION}; COMMIT;"
        )


def _minute(moment: float) -> int:
    return int(moment // 60)


def _window(now: float) -> dict[str, int]:
    minute = _minute(now)
    return {"hour": minute - HOUR, "day": minute - DAY, "now": minute}


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _unusable(path: str, error: Exception) -> UsageUnusable:
    return UsageUnusable(f"{path} cannot be used: {error}")
