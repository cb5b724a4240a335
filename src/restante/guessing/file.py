"""The file that counts guesses: shared by all workers, restante-checkpassword and operators."""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from restante.guessing import CLEAR, KNOWN_FOR, GuessesUnusable, Standing
from restante.network import Network
from restante.tally.file import BUSY_TIMEOUT, Layout, SharedFile

FILE_NAME = "guesses.db"
"""In ``queue.root``, which is local disk, as WAL asks for."""
MAX_WRONG = 100_000
"""Guesses that are kept; beyond, the oldest are forgotten. Some 10 MB."""
MAX_KNOWN = 500_000
"""Pairs of account and network that are kept, as above, but for an hour. Some 50 MB."""
KNOW_AGAIN = 43_200
"""Seconds for which a pair is left as it is: each worker tells of it, and again when it is new."""
MOST = 1000
"""Guesses beyond which nobody counts on: any limit is far below."""
SKEW = 60
"""Seconds that a guess may lie in the future: a clock that was set back a little."""

_TABLES = """
CREATE TABLE IF NOT EXISTS wrong (
    id INTEGER PRIMARY KEY,      -- grows: the lowest is the oldest
    account TEXT NOT NULL,       -- folded; the login where there is no account
    network TEXT NOT NULL,
    wide TEXT NOT NULL,
    digest BLOB NOT NULL,        -- of account and password
    at INTEGER NOT NULL          -- when it was first tried, seconds since the epoch
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS wrong_once ON wrong (account, network, digest);
CREATE INDEX IF NOT EXISTS wrong_network ON wrong (network, at);
CREATE INDEX IF NOT EXISTS wrong_wide ON wrong (wide, at);
CREATE TABLE IF NOT EXISTS known (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    network TEXT NOT NULL,
    at INTEGER NOT NULL,         -- of the last login, to within two days
    UNIQUE (account, network)
) STRICT;
"""
_LAYOUT = Layout(_TABLES, 1, GuessesUnusable)

_RECENT = "at BETWEEN :since AND :until"
_STANDING = f"""
SELECT
(SELECT count(*) FROM (SELECT 1 FROM wrong
    WHERE account = :account AND network = :network AND {_RECENT} LIMIT {MOST})),
(SELECT count(*) FROM (SELECT DISTINCT digest FROM wrong
    WHERE account = :account AND {_RECENT} LIMIT {MOST})),
(SELECT count(*) FROM (SELECT 1 FROM wrong WHERE network = :network AND {_RECENT} LIMIT {MOST})),
(SELECT count(*) FROM (SELECT 1 FROM wrong WHERE wide = :wide AND {_RECENT} LIMIT {MOST}))
"""
_KNOWN = "SELECT 1 FROM known WHERE account = ? AND network = ? AND at > ?"
_COUNT = """
INSERT INTO wrong (account, network, wide, digest, at)
VALUES (:account, :network, :wide, :digest, :now)
ON CONFLICT DO UPDATE SET at = excluded.at WHERE at NOT BETWEEN :since AND :until
"""
_KNOW = f"""
INSERT OR REPLACE INTO known (account, network, at) SELECT ?1, ?2, ?3 WHERE NOT EXISTS (
    SELECT 1 FROM known WHERE account = ?1 AND network = ?2
    AND at BETWEEN ?3 - {KNOW_AGAIN} AND ?3 + {SKEW})
"""
_TRIM_WRONG = "DELETE FROM wrong WHERE id <= (SELECT max(id) FROM wrong) - ?"
# By rows, for a pair that is written again leaves its number unused; that reads all of them.
_TRIM_KNOWN = """
DELETE FROM known WHERE id <= (SELECT id FROM known ORDER BY id DESC LIMIT 1 OFFSET ?)
"""
_GUESSED = f"""
SELECT account, network, count(*), max(at) FROM wrong WHERE {_RECENT}
GROUP BY account, network ORDER BY 3 DESC, 1, 2
"""


@dataclass(frozen=True, slots=True)
class Guessed:
    """What was guessed for one account from one network."""

    account: str
    network: str
    guesses: int
    last: int
    """When the latest of them was first tried, seconds since the epoch."""


class GuessFile:
    """One connection to the file; blocks, and belongs to one thread at a time.

    ``window``: seconds for which a guess counts.
    """

    def __init__(self, shared: SharedFile, window: float) -> None:
        self._shared = shared
        self._connection = shared.connection
        self._window = window

    @classmethod
    def open(
        cls, path: str, window: float, *, create: bool, patience: float = BUSY_TIMEOUT
    ) -> GuessFile:
        """The file at ``path``; see SharedFile.open. Raises GuessesUnusable."""
        return cls(SharedFile.open(path, _LAYOUT, create=create, patience=patience), window)

    def close(self) -> None:
        """Give the connection back."""
        self._shared.close()

    def transaction(self) -> AbstractContextManager[None]:
        """All that is done inside is done at once or not at all; raises GuessesUnusable."""
        return self._shared.transaction()

    def standing(self, account: str, network: Network, now: float) -> Standing:
        """What counts now; raises GuessesUnusable. Whether it is known, only where it matters."""
        asked = {
            "account": account,
            "network": network.narrow,
            "wide": network.wide,
            **self._recent(now),
        }
        with self._shared.named_failures():
            counts = self._connection.execute(_STANDING, asked).fetchone()
            if not any(counts):
                return CLEAR
            since = int(now) - KNOWN_FOR
            known = self._connection.execute(_KNOWN, (account, network.narrow, since)).fetchone()
        here, everywhere, narrow, wide = counts
        return Standing(here, everywhere, narrow, wide, known is not None)

    def count(self, account: str, network: Network, digest: bytes, now: float) -> None:
        """Count a wrong password; once, however often it is tried while it counts."""
        row = {
            "account": account,
            "network": network.narrow,
            "wide": network.wide,
            "digest": digest,
            "now": int(now),
            **self._recent(now),
        }
        self._connection.execute(_COUNT, row)
        self._connection.execute(_TRIM_WRONG, (MAX_WRONG,))

    def know(self, logins: Iterable[tuple[str, str, float]]) -> None:
        """Accounts have logged in from narrow networks, at some times."""
        self._connection.executemany(_KNOW, ((*pair, int(at)) for *pair, at in logins))

    def forgive(self, account: str, network: str) -> None:
        """Forget what was guessed for an account from a narrow network."""
        self._connection.execute(
            "DELETE FROM wrong WHERE account = ? AND network = ?", (account, network)
        )

    def guessed(self, now: float) -> list[Guessed]:
        """All that counts now, by account and network, most guesses first."""
        rows = self._connection.execute(_GUESSED, self._recent(now))
        return [Guessed(*row) for row in rows]

    def clear(self, name: str) -> int:
        """Forget the guesses at an account, or from a narrow or wide network; how many."""
        return self._connection.execute(
            "DELETE FROM wrong WHERE account = :name OR network = :name OR wide = :name",
            {"name": name},
        ).rowcount

    def clear_all(self) -> int:
        """Forget all guesses; how many."""
        return self._connection.execute("DELETE FROM wrong").rowcount

    def forget_old(self, now: float) -> None:
        """Remove what counts no more, what lies in the future, and what is too much."""
        self._connection.execute(f"DELETE FROM wrong WHERE NOT ({_RECENT})", self._recent(now))
        self._connection.execute("DELETE FROM known WHERE at <= ?", (int(now) - KNOWN_FOR,))
        self._connection.execute(_TRIM_KNOWN, (MAX_KNOWN,))

    def _recent(self, now: float) -> dict[str, int]:
        return {"since": int(now - self._window) + 1, "until": int(now) + SKEW}
