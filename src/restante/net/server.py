"""Listeners: accept connections within limits, give each a session, end them in order."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from restante import maillog
from restante.net.acceptor import Acceptor
from restante.net.alarms import Alarms
from restante.net.connection import Connection, Stopping, TlsFailed
from restante.net.handshakes import Handshakes
from restante.net.outbox import Outbox
from restante.net.shares import COMPANY, Share
from restante.network import network_of, plain_address
from restante.records import record


class Service(Protocol):
    """What is spoken on a listener."""

    busy: bytes
    """Sent to a client that is turned away because a limit is reached."""
    failing: bytes
    """Sent before the connection is closed because of a bug."""
    in_company: bool
    """Whether sessions cost less where one worker holds several: they come to one that has some,
    and what they say in one turn of the event loop is sent together."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    async def serve(self, connection: Connection, session: str) -> str:
        """Hold one session to its end; the reason why it ended."""
        ...


class ConnectionLimits:
    """How many connections one worker holds, in all and from one address.

    For IPv6 that is a /64: one customer has as many addresses there as it likes.
    """

    def __init__(
        self, total: int, per_address: int, share: Share, arrived: Callable[[], None]
    ) -> None:
        """``arrived`` is called for each that is let in."""
        self.share = share
        self._total = total
        self._per_address = per_address
        # Else a client that may have few connections with each worker would have them with one.
        self._company = min(COMPANY, per_address or COMPANY)
        self._arrived = arrived
        self._held: Counter[str] = Counter()

    def due(self, *, in_company: bool) -> int:
        """Which worker's the next connection is."""
        share = self.share
        return share.due_for_company(self._company, self._total) if in_company else share.due()

    def enter(self, address: str, *, in_company: bool = False) -> str:
        """Count a connection; the reason why it must be turned away, or an empty string."""
        if self.share.held >= self._total:
            return "too many connections"
        network = network_of(address).narrow
        if self._per_address and self._held[network] >= self._per_address:
            return "too many connections from this address"
        self.share.enter(in_company=in_company)
        self._held[network] += 1
        self._arrived()
        return ""

    def leave(self, address: str, *, in_company: bool = False) -> None:
        """A counted connection ended."""
        network = network_of(address).narrow
        self.share.leave(in_company=in_company)
        self._held[network] -= 1
        if not self._held[network]:
            del self._held[network]


def session_ids(slot: int) -> Iterator[str]:
    """Names for the sessions of one worker, to find one's lines in the log, now or in a year."""
    started = int(time.time())
    return (f"{started:x}-{slot}-{count:x}" for count in itertools.count(1))


@record
class _Visit:
    """A connection that was let in, from its first log line to its last."""

    session: str
    peer: str
    began: float
    """By the event loop's clock."""


_Serve = Callable[[Connection], Coroutine[Any, Any, None]]


class Server:
    """The sockets of one service in one worker."""

    def __init__(
        self,
        service: Service,
        limits: ConnectionLimits,
        ids: Iterator[str],
        handshakes: Handshakes | None = None,
    ) -> None:
        """Without ``handshakes`` no socket may begin with TLS."""
        self._service = service
        self._limits = limits
        self._ids = ids
        self._handshakes = handshakes
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._outbox = Outbox() if service.in_company else None
        self._alarms = Alarms()
        self._connections: set[Connection] = set()
        self._acceptors: list[Acceptor] = []

    def start(
        self, sockets: Sequence[socket.socket], tls_sockets: Sequence[socket.socket] = ()
    ) -> None:
        """Accept connections on listening sockets, the latter with TLS from the first octet on."""
        self._accept_on(sockets, self._take)
        if tls_sockets:
            assert self._handshakes is not None
            self._accept_on(tls_sockets, partial(self._take_tls, self._handshakes))

    def accept_no_more(self) -> None:
        """Leave all further connections to others; ``stop`` follows."""
        while self._acceptors:
            self._acceptors.pop().close()

    async def stop(self, timeout: float) -> None:
        """Accept no more; let commands in progress finish for ``timeout`` seconds; close."""
        self.accept_no_more()
        # What is cancelled before it has begun could not see its visit off: what was accepted last
        # is made a connection in this turn, and begins in the next one.
        for _ in range(2):
            await asyncio.sleep(0)
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

    def _accept_on(
        self, sockets: Sequence[socket.socket], take: Callable[[socket.socket, str], bool]
    ) -> None:
        for bound in sockets:
            self._acceptors.append(
                Acceptor(bound, self._limits.share, self._due, take, self._not_accepted)
            )

    def _due(self) -> int:
        return self._limits.due(in_company=self._service.in_company)

    def _not_accepted(self, error: OSError) -> None:
        maillog.session_refused(self._service.name, "", str(error))

    # Connections that come

    def _take(self, accepted: socket.socket, address: str) -> bool:
        """Whether a session begins; who is turned away is told why."""
        peer = plain_address(address)
        visit = self._let_in(peer)
        serve = self._turn_away if visit is None else partial(self._serve, visit)
        return self._attach(accepted, peer, visit, serve)

    def _take_tls(self, handshakes: Handshakes, accepted: socket.socket, address: str) -> bool:
        """As ``_take``, with a handshake first. Limits count before that costs anything."""
        peer = plain_address(address)
        visit = self._let_in(peer)
        if visit is None:
            accepted.close()
            return False
        serve = partial(self._serve, visit, handshakes=handshakes)
        return self._attach(accepted, peer, visit, serve)

    def _attach(
        self, accepted: socket.socket, peer: str, visit: _Visit | None, serve: _Serve
    ) -> bool:
        """Make it a connection; whether it is one for a visit."""
        connection = Connection(serve, self._stopping, peer, self._outbox, self._alarms)
        try:
            connection.attach(accepted)
        except OSError as error:
            accepted.close()
            self._not_accepted(error)
            if visit is not None:
                self._see_off(visit)
            return False
        return visit is not None

    async def _turn_away(self, connection: Connection) -> None:
        connection.send(self._service.busy)

    # Sessions

    def _let_in(self, peer: str) -> _Visit | None:
        """Count a connection; None if it must be turned away."""
        refusal = self._limits.enter(peer, in_company=self._service.in_company)
        if refusal:
            maillog.session_refused(self._service.name, peer, refusal)
            return None
        session = next(self._ids)
        maillog.session_opened(session, self._service.name, peer)
        return _Visit(session, peer, self._loop.time())

    async def _serve(
        self, visit: _Visit, connection: Connection, *, handshakes: Handshakes | None = None
    ) -> None:
        reason = "cancelled"
        self._connections.add(connection)
        try:
            if handshakes is not None:
                await handshakes.accept(connection, visit.session)
            reason = await self._service.serve(connection, visit.session)
        except TlsFailed:
            reason = "tls failed"
        except Stopping:
            reason = "shutdown"
        except Exception as error:  # noqa: BLE001 - a bug ends the session, not the worker
            maillog.unplanned(f"{self._service.name} session {visit.session}", error)
            connection.send(self._service.failing)
            reason = "unplanned"
        finally:
            self._connections.discard(connection)
            self._closed(visit, reason)
            # Whoever does not let go of the connection has one still.
            connection.when_gone(partial(self._leave, visit.peer))

    def _see_off(self, visit: _Visit) -> None:
        """A connection that came to no session is gone."""
        self._leave(visit.peer)
        self._closed(visit, "lost")

    def _leave(self, peer: str) -> None:
        self._limits.leave(peer, in_company=self._service.in_company)

    def _closed(self, visit: _Visit, reason: str) -> None:
        seconds = self._loop.time() - visit.began
        maillog.session_closed(visit.session, self._service.name, reason, seconds)
