"""SQLite: one connection, asked inline, since a look-up takes microseconds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

from restante.directory.engine import (
    SQLITE,
    Dialect,
    Health,
    NothingChanged,
    Overtaken,
    Rejected,
    Row,
    SQLiteLocation,
    Statement,
    StatementLog,
    Value,
    cannot_know,
)
from restante.errors import CannotKnow, reason_of

STATEMENT_CACHE = 128
"""Prepared statements kept."""
PAGE_CACHE = 512
"""KiB of pages that SQLite keeps for itself; its own default is 2,000.

A page that it does not have is copied out of the kernel's memory to where the one lies that was
not used for longest. Among so few, that place is still in the processor's own cache, and there
the copy is read: a look-up among ten million mailboxes takes a twentieth less time than with
2,000, and one among a thousand, whose pages all fit, the same.
"""
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05
"""Seconds between two attempts while another process holds the lock."""

_T = TypeVar("_T")

_OPENED = {sqlite3.SQLITE_CANTOPEN: os.O_RDONLY, sqlite3.SQLITE_READONLY: os.O_RDWR}
"""How the file was to be opened, after errors that do not say why it was not."""
_NO_INDEX = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP})
"""Errors of the index of a write-ahead log; one that cannot be made is CANTOPEN."""
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNCHANGEABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_FULL}
)
"""Errors of changes alone: what keeps a file from being read has other extended codes."""
_PRIMARY = 0xFF
"""An extended result code holds its primary code in the low octet (sqlite.org/rescode.html)."""


class SQLiteEngine:
    """The engine for one file, which is opened again when it fails or was replaced."""

    dialect: Dialect = SQLITE
    concurrency = 1

    def __init__(
        self, location: SQLiteLocation, query_timeout: float, *, create: bool, log: StatementLog
    ) -> None:
        self._location = location
        self._query_timeout = query_timeout
        self._create = create
        self._log = log
        self._health = Health()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """The rows of one reading statement; raises CannotKnow."""
        started = time.monotonic()
        rows = await self._ask(lambda connection: _rows(connection, sql, params))
        self._log.note(Statement(sql, tuple(params)), len(rows), started)
        return rows

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        """Carry out all statements or none; raises CannotKnow and NothingChanged."""
        if self._create:
            self._make_file()
        return await self._ask(lambda connection: self._carry_out(connection, statements))

    async def close(self) -> None:
        """Close the file."""
        self._drop()

    async def _ask(self, question: Callable[[sqlite3.Connection], _T]) -> _T:
        asked = time.monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                answer = question(self._open())
            except (sqlite3.Error, OSError, UnicodeError) as error:
                if not _is_busy(error) or time.monotonic() - asked > self._query_timeout:
                    raise self._failure(asked, error) from error
            else:
                self._health.answered(asked)
                return answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _open(self) -> sqlite3.Connection:
        """The connection to the file that now bears the name."""
        status = os.stat(self._location.path)
        file = (status.st_dev, status.st_ino)
        if self._connection is None or self._file != file:
            self._drop()
            self._connection = self._connect()
            self._file = file
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a look-up must never make the file that it does not find.
        connection = sqlite3.connect(
            f"file://{quote(self._location.path)}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            cached_statements=STATEMENT_CACHE,
            check_same_thread=False,
        )
        try:
            connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE}")  # below 0: KiB, not pages
            # A commit is the end of its journal: one that came back with its name, after a power
            # cut, would undo what a command has told of already.
            connection.execute("PRAGMA synchronous = EXTRA")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self) -> None:
        """Make the file if there is none, readable by its owner alone: it will hold passwords.

        It keeps SQLite's usual journal: readers of a write-ahead log have to write as well, and
        on a full disk nobody could log in who might make room.
        """
        try:
            descriptor = os.open(self._location.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise cannot_know(str(self._location), reason_of(error)) from error
        os.close(descriptor)

    def _carry_out(
        self, connection: sqlite3.Connection, statements: Sequence[Statement]
    ) -> list[int]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            counts = [self._change(connection, statement) for statement in statements]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return counts

    def _change(self, connection: sqlite3.Connection, statement: Statement) -> int:
        started = time.monotonic()
        count = _execute(connection, statement.text, statement.parameters).rowcount
        self._log.note(statement, count, started)
        if statement.must_change and not count:
            raise NothingChanged
        return count

    def _failure(self, asked: float, error: Exception) -> CannotKnow:
        kind = _kind(error)
        failure = cannot_know(str(self._location), self._reason(error), kind)
        if kind is CannotKnow:
            self._health.failed(asked, str(failure))
        if kind is CannotKnow or _is_unchangeable(
            error
        ):  # what was opened to be read alone would stay so
            self._drop()
        return failure

    def _reason(self, error: Exception) -> str:
        """What SQLite says, and what the system does where SQLite keeps that to itself."""
        if getattr(error, "sqlite_errorcode", None) in _NO_INDEX:
            return (
                f"{error}: no room for the index of its write-ahead log; with another journal "
                "(PRAGMA journal_mode = DELETE) reading needs none"
            )
        path, flags = self._location.path, _OPENED.get(_code(error))
        if flags is None:
            return reason_of(error)
        try:
            os.close(os.open(path, flags | os.O_CLOEXEC))
        except OSError as refused:
            return f"{error}: {reason_of(refused)}"
        writable = os.access(os.path.dirname(path), os.W_OK)
        return str(error) if writable else f"{error}: its directory cannot be written to"

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _rows(connection: sqlite3.Connection, sql: str, params: Sequence[Value]) -> list[Row]:
    """The rows of a statement; a TEXT that is no UTF-8 is its octets, as a BLOB is."""
    try:
        return _execute(connection, sql, params).fetchall()
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        # It is Python's own: a TEXT is no UTF-8. It repeats the text, which may be a password.
    connection.text_factory = _text  # called for each text: only where there is no other way
    try:
        return _execute(connection, sql, params).fetchall()
    finally:
        connection.text_factory = str


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _execute(connection: sqlite3.Connection, sql: str, params: Sequence[Value]) -> sqlite3.Cursor:
    try:
        return connection.execute(sql, params)
    except UnicodeEncodeError:  # what a TEXT that is no UTF-8 was read as can be given as octets
        octets = [v.encode("utf-8", "surrogateescape") if isinstance(v, str) else v for v in params]
        marks = ["CAST(? AS TEXT)" if isinstance(v, str) else "?" for v in params]
    first, *others = sql.split("?")  # there is none in a literal
    text = first + "".join(map(str.__add__, marks, others))
    return connection.execute(text, octets)


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else 0


def _is_busy(error: Exception) -> bool:
    return _code(error) in _BUSY


def _is_unchangeable(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) in _UNCHANGEABLE


def _kind(error: Exception) -> type[CannotKnow]:
    if not _is_about_the_statement(error):
        return CannotKnow
    return Overtaken if _code(error) == sqlite3.SQLITE_FULL else Rejected


def _is_about_the_statement(error: Exception) -> bool:
    """Whether the database answered, though not this statement (no such table, a constraint)."""
    if isinstance(error, UnicodeError) or _is_unchangeable(error):
        return True
    return _code(error) in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)
