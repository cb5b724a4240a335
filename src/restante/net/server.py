"""Listeners: accept connections within limits, give each a session, end them in order."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from restante import maillog
from restante.net.connection import Connection

BACKLOG = 1024
"""Connections that the kernel holds until they are accepted."""


class Service(Protocol):
    """What is spoken on a listener."""

    name: str
    busy: bytes
    """Sent to a client that is turned away because a limit is reached."""
    failing: bytes
    """Sent before the connection is closed because of a bug."""

    async def serve(self, connection: Connection, session: str) -> str:
        """Hold one session to its end; the reason why it ended."""
        ...


class ConnectionLimits:
    """How many connections one worker holds, in all and from one address."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._held: Counter[str] = Counter()
        self._count = 0

    def enter(self, address: str) -> str:
        """Count a connection; the reason why it must be turned away, or an empty string."""
        if self._count >= self._total:
            return "too many connections"
        if self._per_address and self._held[address] >= self._per_address:
            return "too many connections from this address"
        self._count += 1
        self._held[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """A counted connection ended."""
        self._count -= 1
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]


def session_ids(slot: int) -> Iterator[str]:
    """Names for the sessions of one worker, to find one's lines in the log, now or in a year."""
    started = int(time.time())
    return (f"{started:x}-{slot}-{count:x}" for count in itertools.count(1))


class Server:
    """The sockets of one service in one worker."""

    def __init__(self, service: Service, limits: ConnectionLimits, ids: Iterator[str]) -> None:
        self._service = service
        self._limits = limits
        self._ids = ids
        self._stopping = asyncio.Event()
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: list[socket.socket]) -> None:
        """Accept connections on bound sockets."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            server = await loop.create_server(self._connection, sock=bound, backlog=BACKLOG)
            self._servers.append(server)

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109
        """Accept no more; let commands in progress finish for ``timeout`` seconds; close."""
        for server in self._servers:
            server.close()
        self._stopping.set()
        for connection in list(self._connections):
            connection.interrupt()
        tasks = [connection.task for connection in self._connections if connection.task]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout or 0.001)
            for connection in list(self._connections):
                connection.abort()
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _connection(self) -> Connection:
        return Connection(self._hold, self._stopping)

    async def _hold(self, connection: Connection) -> None:
        refusal = self._limits.enter(connection.peer)
        if refusal:
            maillog.session_refused(self._service.name, connection.peer, refusal)
            connection.send(self._service.busy)
            return
        session = next(self._ids)
        began = asyncio.get_running_loop().time()
        reason = "cancelled"
        self._connections.add(connection)
        maillog.session_opened(session, self._service.name, connection.peer)
        try:
            reason = await self._service.serve(connection, session)
        except Exception as error:  # noqa: BLE001 - a bug ends the session, not the worker
            maillog.unplanned(f"{self._service.name} session {session}", error)
            connection.send(self._service.failing)
            reason = "unplanned"
        finally:
            self._connections.discard(connection)
            self._limits.leave(connection.peer)
            seconds = asyncio.get_running_loop().time() - began
            maillog.session_closed(session, self._service.name, reason, seconds)
