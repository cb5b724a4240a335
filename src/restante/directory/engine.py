"""How the database is asked: the seam between statements and drivers.

An engine answers or raises CannotKnow; a driver's own error never leaves this
room, and neither does the password of the connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from restante import maillog
from restante.config.tree import Database
from restante.directory.encryption import OPTIONS, Encryption, read_encryption
from restante.errors import CannotKnow, OperatorError

if TYPE_CHECKING:
    from restante.tls.files import PemFiles

Value = str | bytes | int | float | None
Row = tuple[Value, ...]

MYSQL_PORT = 3306
MAX_REASON = 300
"""Characters of a driver's error text that are kept."""

_SEVERAL_HOSTS = re.compile(
    "(?P<before>mysql://(?:[^/?#]*@)?[^/?#@,]*)(?P<others>(?:,[^/?#@,]*)+)(?P<after>[/?#].*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and its parameters; ``?`` stands for each of them."""

    text: str
    parameters: tuple[Value, ...] = field(default=(), repr=False)
    secrets: frozenset[int] = frozenset()
    """Which parameters are never logged."""
    must_change: bool = False
    """Whether the transaction is undone if it changes no row."""


class Rejected(CannotKnow):
    """The database answers, though not this statement: another may well be answered."""


class Unfit(Rejected):
    """A value has letters that the column it is compared with cannot hold: no row has it."""


class Overtaken(Rejected):
    """Something else goes first, as often as this one was tried, or takes the room that it needs:
    it may well succeed later."""


class NothingChanged(Exception):
    """A statement changed no row and had to; the transaction was undone."""


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """Where the engines differ in what SQL they speak; there are two, SQLITE and MYSQL."""

    name: str
    """``sqlite`` or ``mysql``."""
    convert: str
    """What makes any column a text that can stand beside any other in a UNION."""

    compare: str
    """The condition that a column is a parameter to the letter."""

    join: str
    """The join that reads its left side first: planners without statistics guess badly."""

    compares_rows: bool
    """Whether an index serves ``(a, b) > (?, ?)``; else it serves ``a > ? OR a = ? AND b > ?``."""

    select: str = "SELECT"
    """What begins a statement with joins: for each row on the left, those on the right by index."""

    def text(self, column: str) -> str:
        """The expression that selects ``column`` as text."""
        return self.convert.format(column)

    def exactly(self, column: str) -> str:
        """The condition that ``column`` is a parameter, case, accents and blanks included."""
        return self.compare.format(column)


SQLITE = Dialect(
    "sqlite",
    convert="{}",
    compare="{} COLLATE BINARY = ?",
    join="CROSS JOIN",
    compares_rows=True,
)
MYSQL = Dialect(
    "mysql",
    convert="CONVERT({} USING utf8mb4) COLLATE utf8mb4_bin",
    compare="CAST(CONVERT({} USING utf8mb4) AS BINARY) = CAST(? AS BINARY)",
    join="STRAIGHT_JOIN",
    compares_rows=False,
    # MySQL 8 would rather read all of a table that its statistics call small into a hash table:
    # they may be old, and the rows come in no order. To MariaDB before 12 it is a comment.
    select="SELECT /*+ NO_BNL() */",
)


class Engine(Protocol):
    """A database that can be asked; safe to share between tasks of one event loop."""

    @property
    def dialect(self) -> Dialect:
        """The SQL it speaks."""
        ...

    @property
    def concurrency(self) -> int:
        """How many statements it has under way at a time; others wait."""
        ...

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """The rows of one reading statement; raises CannotKnow."""
        ...

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        """Carry out all statements or none, and say how many rows each changed.

        Raises CannotKnow, and NothingChanged.
        """
        ...

    async def close(self) -> None:
        """Give all connections back."""
        ...


class Health:
    """Says once that the database is away, and once that it is back.

    Questions overlap, and the answer to an old one may come last: the state is
    what the question that was asked last found.
    """

    def __init__(self) -> None:
        self._away = False
        self._latest = 0.0

    def answered(self, asked: float) -> None:
        """A question asked at ``asked`` (monotonic seconds) was answered."""
        if asked >= self._latest:
            self._latest = asked
            if self._away:
                self._away = False
                maillog.database_back()

    def failed(self, asked: float, why: str) -> None:
        """A question asked at ``asked`` was not answered."""
        if asked >= self._latest:
            self._latest = asked
            if not self._away:
                self._away = True
                maillog.database_away(why)


@dataclass(frozen=True, slots=True)
class StatementLog:
    """Records statements when log.sql asks for it."""

    enabled: bool

    def note(self, statement: Statement, rows: int, started: float) -> None:
        """``statement`` took from ``started`` (monotonic seconds) until now."""
        if self.enabled:
            milliseconds = round((time.monotonic() - started) * 1000, 3)
            maillog.sql(statement.text, shown_parameters(statement), rows, milliseconds)


def shown_parameters(statement: Statement) -> str:
    """The parameters as the log may have them."""
    shown = (
        "***" if place in statement.secrets else repr(value)
        for place, value in enumerate(statement.parameters)
    )
    return ", ".join(shown)


def cannot_know(where: str, why: object, kind: type[CannotKnow] = CannotKnow) -> CannotKnow:
    """The error for a question to the database ``where`` that got no answer.

    ``kind``: Rejected, if it is about this one statement rather than about the database.
    """
    reason = " ".join(str(why).split())[:MAX_REASON]
    return kind(f"{where}: {reason}")


@dataclass(frozen=True, slots=True)
class SQLiteLocation:
    """A file."""

    path: str

    def __str__(self) -> str:
        return f"the database {self.path}"


@dataclass(frozen=True, slots=True)
class MySQLServer:
    """Where a server listens."""

    host: str
    port: int = MYSQL_PORT
    unix_socket: str | None = None

    def __str__(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MySQLLocation:
    """A database, how to log in to it, and the servers that have it, in the order of choice."""

    servers: tuple[MySQLServer, ...]
    user: str
    password: str
    database: str
    encryption: Encryption | None = None
    """None: clear text."""

    def __str__(self) -> str:
        """For logs: without the password."""
        return f"the database {self.database} at {', '.join(map(str, self.servers))}"

    def __repr__(self) -> str:
        return f"MySQLLocation({self})"


def parse_url(url: str, directory: str) -> SQLiteLocation | MySQLLocation:
    """Where ``url`` points; relative paths start at ``directory``.

    Raises OperatorError, whose text never holds the password.
    """
    try:
        url, others = _other_hosts(url)
        parts = urlsplit(url)
        reader = _READERS.get(parts.scheme)
        if reader is not None:
            return reader(parts, directory, others)
    except ValueError:
        raise OperatorError(
            "database.url cannot be read: percent-encode special characters in the user name "
            "and the password, put an IPv6 address in brackets, and give the port as a number"
        ) from None
    raise OperatorError(
        f"database.url has the scheme {parts.scheme!r}: it must begin with sqlite:/// or mysql://"
    )


def _other_hosts(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL with its first host alone, and further ones, each perhaps with its port."""
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return url, ()
    return match["before"] + match["after"], tuple(match["others"].split(",")[1:])


def _read_sqlite(
    parts: SplitResult, directory: str, _other_hosts: tuple[str, ...]
) -> SQLiteLocation:
    if parts.netloc:
        raise OperatorError(
            "database.url names a host for SQLite: write sqlite:///FILE for a file relative to "
            "the instance directory, or sqlite:////FILE for an absolute one"
        )
    if parts.query or parts.fragment:
        raise OperatorError("database.url has options that SQLite does not know: encode ? as %3F")
    path = unquote(parts.path.removeprefix("/"), errors="strict")
    if not path or path.endswith("/") or "\0" in path:
        raise OperatorError("database.url names no file: write sqlite:///FILE")
    return SQLiteLocation(str(Path(directory) / path))


def _read_mysql(parts: SplitResult, directory: str, other_hosts: tuple[str, ...]) -> MySQLLocation:
    options = _mysql_options(parts.query)
    database = unquote(parts.path.removeprefix("/"), errors="strict")
    if not database or "/" in parts.path[1:] or parts.fragment:
        raise OperatorError("database.url must end in the name of one database: mysql://…/NAME")
    if not parts.username:
        raise OperatorError("database.url names no user: write mysql://USER:PASSWORD@HOST/NAME")
    return MySQLLocation(
        servers=_servers(parts, options.get("unix_socket"), other_hosts),
        user=unquote(parts.username, errors="strict"),
        password=unquote(parts.password or "", errors="strict"),
        database=database,
        encryption=read_encryption(options, directory),
    )


def _servers(
    parts: SplitResult, unix_socket: str | None, other_hosts: tuple[str, ...]
) -> tuple[MySQLServer, ...]:
    others = [urlsplit(f"//{each}") for each in other_hosts]
    if others and not all(each.hostname for each in (parts, *others)):
        raise OperatorError("database.url has a comma without a host on one of its sides")
    if others and unix_socket:
        raise OperatorError("database.url has a unix_socket and several hosts: name one or others")
    return tuple(
        MySQLServer(
            unquote(each.hostname or "localhost", errors="strict"),
            MYSQL_PORT if each.port is None else each.port,
            unix_socket,
        )
        for each in (parts, *others)
    )


def _mysql_options(query: str) -> dict[str, str]:
    if "@" in query:
        raise ValueError("what looks like options is the rest of a password with a ? in it")
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    known = {"unix_socket", *OPTIONS}
    if unknown := sorted(options.keys() - known):
        raise OperatorError(
            f"database.url has the unknown option {unknown[0]!r}; known are "
            f"{', '.join(sorted(known))}"
        )
    if "unix_socket" in options and not options["unix_socket"].startswith("/"):
        raise OperatorError("database.url: unix_socket must be an absolute path")
    return options


_Reader = Callable[[SplitResult, str, tuple[str, ...]], SQLiteLocation | MySQLLocation]
_READERS: Mapping[str, _Reader] = {
    "sqlite": _read_sqlite,
    "mysql": _read_mysql,
}


def pem_files(database: Database, directory: str) -> frozenset[str]:
    """The certificates and keys that the URL names; raises OperatorError."""
    location = parse_url(database.url, directory)
    if isinstance(location, SQLiteLocation) or location.encryption is None:
        return frozenset()
    return location.encryption.files


def open_engine(
    database: Database,
    directory: str,
    *,
    create: bool = False,
    log_sql: bool = False,
    pem: PemFiles | None = None,
) -> Engine:
    """The engine that ``database`` names; nothing is connected before the first question.

    ``create`` lets a missing SQLite file be made by the first transaction, readable by its owner
    alone. ``pem`` has what ``pem_files`` names; None: this process may read it. Raises
    OperatorError for a URL that cannot be used, or files that it names.
    """
    # Each driver is loaded only where it is used.
    location = parse_url(database.url, directory)
    log = StatementLog(log_sql)
    if isinstance(location, SQLiteLocation):
        from restante.directory.sqlite import SQLiteEngine

        return SQLiteEngine(location, database.query_timeout, create=create, log=log)
    from restante.directory.mysql import MySQLEngine

    return MySQLEngine(location, database, log=log, pem=pem)
