"""One connection to a shared file: opened, made, locked, and its failures named."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from restante.btrfs import prepare_index
from restante.errors import TemporaryError, reason_of

BUSY_TIMEOUT = 5.0
"""Seconds to wait for other workers and operators."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of file holds, and how its failures are called."""

    tables: str
    """Statements that make them, each ended by a semicolon."""
    version: int
    """Of the tables, kept in ``user_version``."""
    unusable: Callable[[str], TemporaryError]
    """Makes the error that says so."""


class SharedFile:
    """One connection to such a file; blocks, and belongs to one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: str, layout: Layout) -> None:
        self.connection = connection
        self._path = path
        self._layout = layout

    @classmethod
    def open(
        cls, path: str, layout: Layout, *, create: bool, patience: float = BUSY_TIMEOUT
    ) -> SharedFile:
        """The file at ``path``, made readable by its owner alone if ``create``.

        ``patience``: seconds to wait for others. Raises ``layout.unusable``, also where there is
        no file and it is not to be made.
        """
        try:
            if create:
                _make(path)
                prepare_index(path)
            connection = sqlite3.connect(
                f"file://{_quoted(path)}?mode=rw",
                uri=True,
                timeout=patience,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise _unusable(layout, path, error) from error
        try:
            _prepare(connection, layout)
        except sqlite3.Error as error:
            connection.close()
            raise _unusable(layout, path, error) from error
        return cls(connection, path, layout)

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside is done at once or not at all; raises ``layout.unusable``."""
        with self.named_failures():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    @contextmanager
    def named_failures(self) -> Iterator[None]:
        """What SQLite raises inside becomes ``layout.unusable``."""
        try:
            yield
        except sqlite3.Error as error:
            raise _unusable(self._layout, self._path, error) from error


def _make(path: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(path, flags, 0o600))


def _prepare(connection: sqlite3.Connection, layout: Layout) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > layout.version:
        raise sqlite3.DatabaseError("it was written by a newer version of Restante")
    if version < layout.version:
        connection.executescript(
            f"BEGIN IMMEDIATE; {layout.tables} PRAGMA user_version = {layout.version}; COMMIT;"
        )


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _unusable(layout: Layout, path: str, error: Exception) -> TemporaryError:
    return layout.unusable(f"{path} cannot be used: {reason_of(error)}")
