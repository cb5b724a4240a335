"""MySQL and MariaDB: questions to a few connections, every wait on which has an end.

Of several servers the first that is well is asked (``restante.directory.servers``).

A connection whose question was cancelled, timed out or failed in any way other
than a plain error from the server is closed and never used again: the answer
to one question can never be taken for the answer to another.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from functools import lru_cache

from restante.config.tree import Database
from restante.directory.driver import (
    FOUND_ROWS,
    Connection,
    MySQLError,
    learn_rsa,
    make_lean,
    offers_tls,
)
from restante.directory.engine import (
    MYSQL,
    Dialect,
    Health,
    MySQLLocation,
    MySQLServer,
    NothingChanged,
    Row,
    Statement,
    StatementLog,
    Value,
    cannot_know,
)
from restante.directory.handshake import client_context
from restante.directory.mysql_errors import (
    ChangeWaited,
    NotOffered,
    explanation,
    is_away,
    is_lost,
    is_overtaken,
    kind_of,
)
from restante.directory.overdue import Overdue
from restante.directory.pool import Lease, Pool
from restante.directory.servers import Servers
from restante.errors import CannotKnow
from restante.tls.files import DiskFiles, PemFiles

MAX_WAIT = 9.0
"""Seconds for one question in all, whatever the settings say: a peer hears 451 within ten."""
STATEMENT_CACHE = 64
"""Prepared statements kept on each connection."""
ATTEMPTS = 4
"""How often a transaction is tried that the server undoes in favour of another one."""
FIRST_PAUSE = 0.05
"""Seconds before the second attempt, twice as many before each further one."""

OWN_WAYS = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, autocommit = 1, completion_type = NO_CHAIN"
    " /*M!110001 , optimizer_scan_setup_cost = 1000000 */"
)
"""What a connection begins with, whatever the server's ``init_connect`` has told it: within one
transaction that never ends, or one that a commit has begun, it would see the rows of its beginning
for ever. And MariaDB from 11.0.1 on would rather read all of a table that its statistics call
small, though they may be old: let it think that to begin with a table costs a second (in
microseconds; a comment to all others)."""
STRICT = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
"""What a change begins with: a value that does not fit is an error on every server."""


class MySQLEngine:
    """The engine for one MySQL or MariaDB database."""

    dialect: Dialect = MYSQL

    def __init__(
        self,
        location: MySQLLocation,
        settings: Database,
        *,
        log: StatementLog,
        pem: PemFiles | None = None,
    ) -> None:
        """``pem`` as in ``open_engine``; raises OperatorError if its files cannot be used."""
        self._location = location
        self._tls: ssl.SSLContext | None = None
        if location.encryption is not None:
            self._tls = client_context(location.encryption, pem or DiskFiles())
        self.concurrency = settings.pool_size
        self._connect_timeout = settings.connect_timeout
        self._query_timeout = settings.query_timeout
        whole = settings.connect_timeout + settings.query_timeout
        self._patience = min(whole, MAX_WAIT)
        self._for_an_answer = self._patience * settings.query_timeout / whole
        self._overdue = Overdue()
        self._servers = Servers(location.servers)
        self._pool = Pool(settings.pool_size, self._servers, self._connect_to)
        self._log = log
        self._health = Health()

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """The rows of one reading statement; raises CannotKnow."""
        asked = time.monotonic()
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            lease = self._pool.at_once() or await self._lease(deadline)
            try:
                rows = await self._ask(lease, sql, params, deadline)
            except _AskAgain as again:
                rows = await self._ask_again(lease, sql, params, deadline, again.failure)
            finally:
                self._pool.give_back(lease)
        except Exception as error:
            raise self._failure(error, asked) from error
        self._health.answered(asked)
        if self._log.enabled:
            self._log.note(Statement(sql, tuple(params)), len(rows), asked)
        return rows

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        """Carry out all statements or none; raises CannotKnow and NothingChanged.

        What the server undoes in favour of another transaction is tried a few times.
        """
        asked = time.monotonic()
        try:
            counts = await self._transaction(statements)
        except NothingChanged:
            raise
        except Exception as error:
            raise self._failure(error, asked) from error
        self._health.answered(asked)
        return counts

    async def close(self) -> None:
        """Give all idle connections back."""
        self._overdue.close()
        await self._pool.close()

    def _failure(self, error: Exception, asked: float) -> CannotKnow:
        """What a question comes to that was ``asked`` then (monotonic seconds) and failed.

        All that can go wrong is CannotKnow, also what the driver trips over when the other end
        speaks no MySQL.
        """
        failure = cannot_know(str(self._location), explanation(error), kind_of(error))
        if is_away(error):
            self._health.failed(asked, str(failure))
        return failure

    async def _lease(self, deadline: float, *, fresh: bool = False) -> Lease:
        """A connection that others have left soon enough for an answer: what they take longer is
        no failure of the server, and a statement that is cut off would go on there for nobody.
        Where it was one, and they are answered by another server, there is time for that."""
        return await self._pool.lease(deadline - self._for_an_answer, deadline, fresh=fresh)

    async def _ask_again(
        self,
        lease: Lease,
        sql: str,
        params: Sequence[Value],
        deadline: float,
        failure: Exception,
    ) -> list[Row]:
        """The rows, as often asked for as there are servers; raises the last ``failure``."""
        for _ in self._location.servers:
            await self._pool.renew(lease, deadline)
            try:
                return await self._ask(lease, sql, params, deadline)
            except _AskAgain as again:
                failure = again.failure
        raise failure

    async def _ask(
        self, lease: Lease, sql: str, params: Sequence[Value], deadline: float
    ) -> list[Row]:
        try:
            until = min(asyncio.get_running_loop().time() + self._query_timeout, deadline)
            cursor = lease.connection.cursor()  # read to its end: nothing is left to be closed
            await self._overdue.by(until, cursor.execute(_driver_text(sql), params))
            rows: list[Row] = list(await cursor.fetchall())  # they are here already
            self._servers.answered(lease.server)
            lease.clean = True
        except (MySQLError, TimeoutError) as error:
            lease.clean = not (is_away(error) or is_lost(error))
            if self._is_to_be_asked_again(lease, error):
                raise _AskAgain(error) from error
            raise
        return rows

    def _is_to_be_asked_again(self, lease: Lease, error: Exception) -> bool:
        """Whether another connection may do better; the server is left alone if that is to blame.

        It may take connections, and yet hang or end at each question, or refuse them all.
        """
        if lease.used and is_lost(error):
            return True
        if not is_away(error):
            return False
        self._servers.failed(lease.server)
        return self._servers.is_any_well

    async def _transaction(self, statements: Sequence[Statement]) -> list[int]:
        deadline = asyncio.get_running_loop().time() + self._patience
        lease = await self._lease(deadline, fresh=True)
        try:
            async with asyncio.timeout_at(deadline):
                # No cursor: it prints what MySQL 8 has to say about a sql_mode of one's own.
                await lease.connection.query(STRICT)  # type: ignore[no-untyped-call]
                counts = await self._carry_out(lease.connection, statements)
            self._servers.answered(lease.server)
            lease.clean = True
        except TimeoutError as error:  # look-ups find out by themselves what hangs
            raise ChangeWaited from error
        except MySQLError as error:
            if is_away(error):
                self._servers.failed(lease.server)
            raise
        finally:
            self._pool.give_back(lease)
        return counts

    async def _connect_to(self, server: MySQLServer) -> Connection:
        async with asyncio.timeout(self._connect_timeout):
            try:
                return await self._logged_in(server)
            except RuntimeError:  # the driver lacks what it wants to encrypt the password with
                if not learn_rsa():
                    raise
            return await self._logged_in(server)

    async def _logged_in(self, server: MySQLServer) -> Connection:
        location = self._location
        connection = Connection(  # type: ignore[no-untyped-call]
            host=server.host,
            port=server.port,
            unix_socket=server.unix_socket,
            user=location.user,
            password=location.password.encode(),
            database=location.database,
            charset="utf8mb4",
            client_flag=FOUND_ROWS,
            autocommit=True,
            connect_timeout=self._connect_timeout,
            stmt_cache_size=STATEMENT_CACHE,
            # The driver goes on in no other way than with a handshake, whatever the server offers.
            ssl=self._tls,
        )
        try:
            await connection.connect()
        except MySQLError as error:
            if self._tls is not None and not offers_tls(connection):
                raise NotOffered from error
            raise
        try:
            await connection.query(OWN_WAYS)  # type: ignore[no-untyped-call]
        except BaseException:
            connection.close()
            raise
        make_lean(connection)
        return connection

    async def _carry_out(
        self, connection: Connection, statements: Sequence[Statement]
    ) -> list[int]:
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._carry_out_once(connection, statements)
            except MySQLError as error:
                if not is_overtaken(error):
                    raise
            await asyncio.sleep(FIRST_PAUSE * 2**attempt)
        return await self._carry_out_once(connection, statements)

    async def _carry_out_once(
        self, connection: Connection, statements: Sequence[Statement]
    ) -> list[int]:
        await connection.begin()
        try:
            counts = [await self._change(connection, statement) for statement in statements]
            await connection.commit()
        except (MySQLError, NothingChanged):
            await connection.rollback()
            raise
        return counts

    async def _change(self, connection: Connection, statement: Statement) -> int:
        started = time.monotonic()
        count = await _count(connection, statement)
        self._log.note(statement, count, started)
        if statement.must_change and not count:
            raise NothingChanged
        return count


class _AskAgain(Exception):
    """A connection from the pool was dead before it answered, or another server is to be asked."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(failure)
        self.failure = failure


@lru_cache(maxsize=512)
def _driver_text(text: str) -> str:
    """The statement with the placeholders of the driver; ours hold no ``?`` in literals."""
    return text.replace("%", "%%").replace("?", "%s")


async def _count(connection: Connection, statement: Statement) -> int:
    async with connection.cursor() as cursor:
        count: int = await cursor.execute(_driver_text(statement.text), statement.parameters)
        return count
