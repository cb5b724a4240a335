"""The file that counts: shared by all workers and by the operator's commands.

A row is what one account sent in one minute.
"""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from restante.tally.file import Layout, SharedFile
from restante.usage import DAY, HOUR, Counts, Limits, UsageUnusable

FILE_NAME = "usage.db"
"""In ``queue.root``, which is local disk, as WAL asks for."""
_TABLES = """
CREATE TABLE IF NOT EXISTS sent (
    account TEXT NOT NULL,       -- folded
    minute INTEGER NOT NULL,     -- since the epoch
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (account, minute)
) STRICT, WITHOUT ROWID;
"""
_LAYOUT = Layout(_TABLES, 1, UsageUnusable)
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

    def __init__(self, shared: SharedFile) -> None:
        self._shared = shared
        self._connection = shared.connection

    @classmethod
    def open(cls, path: str, *, create: bool) -> UsageFile:
        """The file at ``path``, made readable by its owner alone if ``create``.

        Raises UsageUnusable, also where there is none and it is not to be made.
        """
        return cls(SharedFile.open(path, _LAYOUT, create=create))

    def close(self) -> None:
        """Give the connection back."""
        self._shared.close()

    def transaction(self) -> AbstractContextManager[None]:
        """All that is done inside is done at once or not at all; raises UsageUnusable."""
        return self._shared.transaction()

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


def _minute(moment: float) -> int:
    return int(moment // 60)


def _window(now: float) -> dict[str, int]:
    minute = _minute(now)
    return {"hour": minute - HOUR, "day": minute - DAY, "now": minute}
