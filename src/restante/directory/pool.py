"""Connections to MySQL or MariaDB, which questions share: a few, in turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from restante.directory.driver import Connection, MySQLError
from restante.directory.engine import MySQLServer
from restante.directory.mysql_errors import AllTaken, is_full
from restante.directory.overdue import Overdue
from restante.directory.servers import Servers

MAX_IDLE = 30.0
"""Seconds after which an unused connection is not used any more, since firewalls and servers
forget it; within as many more it is closed, for other processes."""
CLOSE_SECONDS = 1.0
"""How long the server may take to hear that a connection is closed."""
RECOUNT = 0.02
"""Seconds after which a server that takes no further connection, though none of this process is in
use, is asked once more: it may have counted one of whose end it had not heard yet."""


@dataclass(slots=True, eq=False)
class Lease:
    """A connection, in the hands of one task or idle."""

    server: MySQLServer
    connection: Connection
    used: bool = False
    """Whether it answered before, and so may have died unnoticed since."""
    clean: bool = False
    """Whether its last answer was read to the end, so that it may be used again."""
    since: float = 0.0
    """When it became idle, in monotonic seconds."""


class Pool:
    """At most ``size`` connections to the first server that is well; belongs to one event loop."""

    def __init__(
        self,
        size: int,
        servers: Servers,
        connect: Callable[[MySQLServer], Awaitable[Connection]],
    ) -> None:
        self._servers = servers
        self._connect_to = connect
        self._size = size
        self._free = size
        """Places for questions; none is free as long as somebody waits for one."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        """Those that wait for a place; who has gone meanwhile is passed over."""
        self._overdue = Overdue()
        self._idle: deque[Lease] = deque()
        self._closing: asyncio.TimerHandle | None = None
        """Closes idle connections that nobody has used for long, while there are any."""
        self._refused: deque[asyncio.Future[Lease | None]] = deque()
        """Those that wait for another's connection, since the server takes no further one."""
        self._refusal: MySQLError | None = None
        """What it has said, if it has taken none since."""
        self._renewals = 0
        """How often a question has gone on with another connection."""

    def at_once(self) -> Lease | None:
        """An idle connection and a place, as nearly every look-up finds them: no timer is set."""
        if self._free and (lease := self._take_idle()):
            self._free -= 1
            return lease
        return None

    async def lease(self, by: float, deadline: float, *, fresh: bool = False) -> Lease:
        """A connection; ``fresh``: one of nobody's before.

        Others are waited for until ``by``, and the server until ``deadline`` (seconds of the loop).
        Where others have hung meanwhile and gone on elsewhere, that was to wait for the server.
        """
        await self._place(by, deadline)
        try:
            return await self._any_lease(by, deadline, fresh=fresh)
        except BaseException:
            self._leave()
            raise

    async def renew(self, lease: Lease, deadline: float) -> None:
        """Give a question that has its place another connection; those that are idle are closed.

        What happened to this one has happened to them, most likely.
        """
        lease.connection.close()
        while self._idle:
            self._idle.pop().connection.close()
        self._renewals += lease.server is not self._servers.first  # or else it had died while idle
        new = await self._any_lease(deadline, deadline, fresh=True)
        lease.server, lease.connection, lease.used = new.server, new.connection, False

    def give_back(self, lease: Lease) -> None:
        """Somebody else may have the place of this one, and the connection if it is clean."""
        if lease.clean:
            lease.used, lease.clean = True, False
            lease.since = time.monotonic()
            self._leave(lease)
        else:
            lease.connection.close()
            self._leave()

    async def close(self) -> None:
        """Give all idle connections back."""
        self._overdue.close()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        while self._idle:
            connection = self._idle.pop().connection
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await connection.ensure_closed()
            except (MySQLError, OSError):
                connection.close()

    async def _place(self, by: float, deadline: float) -> None:
        """Wait for a place: first come, first served, and who is too late passes it on."""
        if self._free:
            self._free -= 1
            return
        loop, renewals = asyncio.get_running_loop(), self._renewals
        place = loop.create_future()
        self._waiting.append(place)
        try:
            await self._overdue.by(deadline, place)
        except BaseException as error:
            if not place.cancelled():  # it has been given meanwhile
                self._leave()
            if not isinstance(error, TimeoutError):
                raise
            raise self._in_vain() from None
        if loop.time() > by and self._renewals == renewals:
            self._pass_on()
            raise self._in_vain()

    async def _any_lease(self, by: float, deadline: float, *, fresh: bool) -> Lease:
        """An idle connection, or a new one, or the next that is given back if none can be had."""
        is_last = False
        while True:
            if not fresh and (lease := self._take_idle()):
                return lease
            if self._idle:  # with it there would be one too many
                self._idle.popleft().connection.close()
            try:
                async with asyncio.timeout_at(deadline):
                    lease = await self._connect()
            except MySQLError as error:
                if not is_full(error):
                    raise
                self._refusal = error
            else:
                self._refusal = None
                return lease
            if self._idle:  # given back while the server refused
                continue
            if self._at_work > 1:
                await self._turn(by)
            elif is_last:
                raise self._in_vain()
            else:
                is_last = True
                await asyncio.sleep(RECOUNT)

    @property
    def _at_work(self) -> int:
        """Questions that have a place, and are not among the refused, or have their turn."""
        return self._size - self._free - len(self._refused)

    async def _turn(self, by: float) -> None:
        """Wait until another question is done; its connection is idle then, if it can be used."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._refused.append(turn)
        try:
            await asyncio.wait((turn,), timeout=by - loop.time())
            if not turn.done():
                raise self._in_vain()
        finally:
            if not turn.done():
                self._refused.remove(turn)
            elif lease := turn.result():
                self._keep(lease)

    def _in_vain(self) -> Exception:
        """Why there is no connection: for a limit of the server's, or of this pool."""
        return self._refusal.with_traceback(None) if self._refusal else AllTaken(self._size)

    def _leave(self, lease: Lease | None = None) -> None:
        """Give the first that was refused a turn, with the connection if there is one, and then a
        place to who waits for one."""
        if self._refused:
            self._refused.popleft().set_result(lease)
        elif lease is not None:
            self._keep(lease)
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the place to who waits for one first."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _keep(self, lease: Lease) -> None:
        self._idle.append(lease)
        if self._closing is None:
            self._close_unused()

    def _close_unused(self) -> None:
        """For other workers, where the server has a limit; and come again for what is left."""
        oldest = time.monotonic() - MAX_IDLE
        while self._idle and self._idle[0].since < oldest:
            self._idle.popleft().connection.close()
        loop = asyncio.get_running_loop()
        self._closing = loop.call_later(MAX_IDLE, self._close_unused) if self._idle else None

    def _take_idle(self) -> Lease | None:
        oldest, first = time.monotonic() - MAX_IDLE, self._servers.first
        while self._idle:
            lease = self._idle.pop()
            if lease.since >= oldest and lease.server is first and lease.connection.connected:
                return lease
            lease.connection.close()
        return None

    async def _connect(self) -> Lease:
        """A new connection, to the first server that takes one; raises what the last one did.

        One that takes no further connection is well: it is left alone only for another that takes
        one, and that is tried only where nobody is about to give one back.
        """
        failure: Exception | None = None
        full: list[MySQLServer] = []
        for server in self._servers.turns():
            try:
                connection = await self._connect_to(server)
            except Exception as error:
                if not is_full(error):
                    self._servers.failed(server)
                    failure = failure if full else error
                elif self._at_work > 1:
                    raise
                else:
                    full.append(server)
                    failure = error
            else:
                for each in full:
                    self._servers.failed(each)
                return Lease(server, connection)
        assert failure is not None, "there is a server at least"
        raise failure
