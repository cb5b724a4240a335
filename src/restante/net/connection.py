"""One TCP connection: bytes in, bytes out, every wait bounded, every buffer bounded."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from socket import socket
from types import MappingProxyType
from typing import Any, TypeVar, cast

from restante.net.alarms import TICK, Alarms, tick_of
from restante.net.outbox import Outbox
from restante.network import is_loopback
from restante.tls import HandshakeContexts, TlsSession
from restante.tls_stream import TlsStream, Transport

READ_HIGH = 256 * 1024
"""Octets that wait unread before the peer is told to wait (TCP flow control)."""
PIECE = 64
"""Octets that each piece of it takes besides its own: a peer may send single ones."""
WRITE_HIGH = 256 * 1024
"""Octets that wait unsent before the session waits for the peer."""
CLOSE_TIMEOUT = 30.0
"""Seconds that a peer may take to read the last octets after the session ended."""

_Result = TypeVar("_Result")


class PeerTimeout(Exception):
    """The peer sent nothing, or took nothing, for too long."""


class PeerLost(Exception):
    """The connection is gone."""


class TlsFailed(Exception):
    """A handshake was not finished; the text says why, for the log."""


class Stopping(Exception):
    """The server shuts down and this session is between two commands."""


def always() -> bool:
    """For a session that a shutdown may end in any wait: the same for all, as it is kept."""
    return True


class Connection(asyncio.Protocol):
    """A stream to one peer, for one session's coroutine.

    ``serve`` is run as a task when the connection is made; the connection closes
    when it ends, and refers to nothing of the session any more.
    """

    __slots__ = (
        "_absence",
        "_alarms",
        "_attaching",
        "_drain_waiter",
        "_eof",
        "_farewell",
        "_heard",
        "_in_handshake",
        "_interruptible",
        "_is_over",
        "_loop",
        "_lost",
        "_outbox",
        "_patience",
        "_received",
        "_received_size",
        "_serve",
        "_stopping",
        "_taker",
        "_tick",
        "_transport",
        "_until",
        "_waiter",
        "is_behind",
        "peer",
        "task",
        "tls",
    )

    def __init__(
        self,
        serve: Callable[[Connection], Coroutine[Any, Any, None]],
        stopping: asyncio.Event,
        peer: str,
        outbox: Outbox | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        """``peer``: the client's IP address.

        ``outbox``: where its octets wait beside those of others; None: they wait for nobody.
        ``alarms``: those of others; None: it has its own.
        """
        self._serve = serve
        self._stopping = stopping
        self._outbox = outbox
        self._alarms = alarms or Alarms()
        self._loop = asyncio.get_running_loop()
        self._received: list[bytes] = []
        self._received_size = 0
        """What these take in memory; beyond READ_HIGH nothing is read."""
        self._eof = False
        self._lost = False
        self.is_behind = False
        """Whether the peer has yet to take most of what was sent, or never will.

        Only then has ``drain`` something to wait for, or to raise.
        """
        self._waiter: asyncio.Future[bool] | None = None
        """For the wait of now: whether a taker has had enough; False: nothing more will come."""
        self._taker: Callable[[bytes], bool] | None = None
        self._patience = 0.0
        """Seconds that the wait of now may last ..."""
        self._heard = 0.0
        """... from when octets came or were asked for, by the event loop's clock."""
        self._until = math.inf
        """When it ends although octets come."""
        self._tick: int | None = None
        """At which it is woken; see Alarms."""
        self._drain_waiter: asyncio.Future[None] | None = None
        self._absence: asyncio.Timeout | None = None
        """Ends work for a peer that is gone."""
        self._transport: Transport | None = None
        self._interruptible: Callable[[], bool] | None = None
        self._in_handshake = False
        self._is_over = False
        """The session has ended, and the peer has some time left to read its last octets."""
        self._farewell: Callable[[], None] | None = None
        self._attaching: Coroutine[Any, Any, object] | None = None
        """What the event loop has yet to do for ``attach``."""
        self.task: asyncio.Task[None] | None = None
        self.peer = peer
        self.tls: TlsSession | None = None
        """What the handshake came to; None in clear text."""

    def attach(self, accepted: socket) -> None:
        """Hold the session on a socket that has just been accepted.

        Raises OSError; the socket is the caller's then. The event loop's coroutine for this waits
        once, until ``connection_made`` has been called, and a task for nothing else would cost as
        much as a command. So it goes as far as that here, and to its end when the session begins.
        """
        self._attaching = self._loop.connect_accepted_socket(lambda: self, accepted)
        self._attaching.send(None)

    def _attached(self) -> None:
        attaching, self._attaching = self._attaching, None
        if attaching is not None:
            with contextlib.suppress(StopIteration):
                attaching.send(None)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session."""
        # uvloop's transports do all that asyncio.Transport says without deriving from it.
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=WRITE_HIGH)
        self.task = self._loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Give what came to who takes it, or keep it."""
        taker = self._taker
        if taker is None:
            self._keep(data)
            return
        self._heard = now = self._loop.time()
        if now >= self._until:
            self._fail(PeerTimeout())
            return
        try:
            # While the server shuts down, each piece may be the last that has to be answered.
            if taker(data) and not self._stopping.is_set():
                return
        except Exception as error:  # noqa: BLE001 - it belongs to the session
            self._fail(error)
            return
        self._taker = None
        self._wake(taken=True)

    def _keep(self, data: bytes) -> None:
        """Until the session asks for it; read no more when it is behind."""
        self._received.append(data)
        self._received_size += PIECE + len(data)
        if self._received_size > READ_HIGH and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer will send no more; without TLS, or after a close_notify, it may still read.

        Where TLS ends without one it seldom does.
        """
        self._flush()  # in the latter case the transport closes now
        self._eof = True
        self._wake()
        self._note_absence()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be sent or received any more."""
        self._eof = self._lost = self.is_behind = True
        self._clear_alarm()
        self._wake()
        self._drained()
        self._note_absence()
        self._take_leave()

    def pause_writing(self) -> None:
        """The peer reads slower than the session writes."""
        self.is_behind = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.is_behind = self._lost
        self._drained()

    def _drained(self) -> None:
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    # TLS

    async def start_tls(
        self, contexts: HandshakeContexts, announce: bytes, timeout: float
    ) -> TlsSession:
        """Send ``announce``, the last octets in clear text, and be the handshake's server.

        Nothing is read between the two: a peer may only begin when it has read
        ``announce``, and what it has sent before is its own mistake or somebody else's
        attack (CVE-2011-0411). Raises TlsFailed or Stopping; the connection is then of no more
        use.
        """
        if self._received:
            raise TlsFailed("octets in clear text came before the handshake")
        self._flush()
        self.write(announce)
        return await self.accept_tls(contexts, timeout)

    async def accept_tls(self, contexts: HandshakeContexts, timeout: float) -> TlsSession:
        """Be the server of a handshake, which begins with what the peer says next.

        Raises TlsFailed, or Stopping when the server shuts down meanwhile; the connection is then
        of no more use.
        """
        plain = self._transport
        if plain is None or self._eof or plain.is_closing():
            raise TlsFailed(_BROKEN)
        self._in_handshake = True
        self._waiter = self._loop.create_future()
        # Only one handshake is held on a connection: what it has is the event loop's transport.
        stream = TlsStream(
            cast(asyncio.Transport, plain), self, contexts.for_handshake(), self._shaken
        )
        self._watch(timeout, self._loop.time() + timeout)
        if self._received:
            stream.data_received(self._take_received())
        try:
            await self._waiter
        except Stopping:
            plain.abort()
            raise
        except (ssl.SSLError, OSError, PeerTimeout) as error:
            if not plain.is_closing():
                plain.abort()
            raise TlsFailed(_objection(error)) from None
        finally:
            self._in_handshake = False
            self._waiter = None
        tls = TlsSession.of(stream.handshake, contexts.server_name(stream.handshake))
        self._transport, self.tls = stream, tls
        return tls

    def _shaken(self, failure: Exception | None) -> None:
        """A handshake is over."""
        if failure is not None:
            self._fail(failure)
        else:
            self._wake(taken=True)

    # What the session calls

    @property
    def bindings(self) -> Mapping[str, bytes]:
        """What both ends can recognise the connection by; see TlsSession."""
        return _NO_BINDINGS if self.tls is None else self.tls.bindings

    @property
    def is_loopback(self) -> bool:
        """Whether the client connected to a loopback address of this host."""
        name = self._transport.get_extra_info("sockname") if self._transport else None
        return name is not None and is_loopback(name[0])

    async def listen(
        self,
        take: Callable[[bytes], bool],
        timeout: float,
        *,
        interruptible: Callable[[], bool],
        until: float = math.inf,
    ) -> bool:
        """Give octets to ``take`` as they come, for as long as it returns True.

        So a session answers by itself what needs no wait, without a turn of its task. Returns
        False at the end of the stream, else True, which a shutdown may be the reason for.
        ``until``: when it is PeerTimeout whatever comes, by the event loop's clock.

        Raises what ``take`` does, PeerTimeout after ``timeout`` seconds of silence, PeerLost when
        the connection broke, and Stopping when the server shuts down and the session says, by
        ``interruptible``, that it is between two commands.
        """
        if self._received:
            if self._loop.time() >= until:
                raise PeerTimeout
            if not take(self._take_received()):
                return True
        if not self._eof:
            if self._stopping.is_set() and interruptible():
                raise Stopping
            self._taker, self._interruptible = take, interruptible
            self._waiter = self._loop.create_future()
            self._watch(timeout, until)
            try:
                if await self._waiter:
                    return True
            finally:
                # Both are the session's, which has the connection: nothing else ends that circle.
                self._taker = self._interruptible = self._waiter = None
        if self._lost:
            raise PeerLost
        return False

    def _take_received(self) -> bytes:
        data = b"".join(self._received)  # no copy of a single piece
        size, self._received_size = self._received_size, 0
        self._received.clear()
        if size > READ_HIGH and self._transport is not None and not self._lost:
            self._transport.resume_reading()
        return data

    def send(self, data: bytes) -> None:
        """Queue octets for the peer; call ``drain`` before queueing much more."""
        if not data:
            return
        if self._outbox is None:
            self.write(data)
        else:
            self._outbox.put(self, data)

    def _flush(self) -> None:
        if self._outbox is not None:
            self._outbox.flush()

    def write(self, data: bytes) -> None:
        """Send octets at once, before those that wait in the outbox; dropped if nobody reads."""
        transport = self._transport
        if transport is not None and not (self._lost or transport.is_closing()):
            transport.write(data)

    async def drain(self, timeout: float, *, until: float = math.inf) -> None:
        """Wait until the peer has taken most of what was sent.

        ``until``: when it is PeerTimeout whatever the peer has taken, by the event loop's clock.
        Raises PeerTimeout or PeerLost.
        """
        if self._lost:
            raise PeerLost
        if not self.is_behind:
            return
        self._drain_waiter = self._loop.create_future()
        try:
            async with asyncio.timeout_at(min(self._loop.time() + timeout, until)):
                await self._drain_waiter
        except TimeoutError:
            self.abort()
            raise PeerTimeout from None
        finally:
            self._drain_waiter = None
        if self._lost:
            raise PeerLost

    async def while_there(self, work: Awaitable[_Result], *, until: float) -> _Result:
        """What the work comes to; raises PeerLost, and cancels it, when the peer is gone.

        One that only sends no more may wait for its answer: it is gone at ``until``, by the event
        loop's clock.
        """
        self._until = until
        try:
            async with asyncio.timeout(None) as self._absence:
                self._note_absence()
                return await work
        except TimeoutError:
            if self._absence is None or not self._absence.expired():
                raise
            raise PeerLost from None
        finally:
            self._absence = None

    def _note_absence(self) -> None:
        """No task of its own watches for it: most work is soon done."""
        if self._eof and self._absence is not None and not self._absence.expired():
            self._absence.reschedule(0.0 if self._lost else self._until)

    def interrupt(self) -> None:
        """The server shuts down: wake a session that waits between two commands.

        A handshake in progress is given up.
        """
        if self._in_handshake:
            self._fail(Stopping())
        if self._interruptible is not None and self._interruptible():
            self._fail(Stopping())

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def when_gone(self, farewell: Callable[[], None]) -> None:
        """Call ``farewell`` once the socket is closed, which the peer may put off.

        That is CLOSE_TIMEOUT after the session's end at the latest.
        """
        self._farewell = farewell
        if self._lost:
            self._take_leave()

    def _take_leave(self) -> None:
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            farewell()

    async def _run(self) -> None:
        try:
            self._attached()
            await self._serve(self)
        finally:
            self._close()

    def _close(self) -> None:
        transport = self._transport
        if transport is None or self._lost:
            return
        self._flush()
        transport.close()
        self._is_over = True
        # In clear text, and with all sent, it is gone after this turn of the event loop.
        if self.tls is not None or transport.get_write_buffer_size():
            self._watch(CLOSE_TIMEOUT, math.inf)

    def _close_now(self) -> None:
        self.abort()
        self._take_leave()

    def _watch(self, seconds: float, until: float) -> None:
        """One alarm follows all waits of a connection: nearly all end long before it rings."""
        self._heard = now = self._loop.time()
        self._patience = seconds
        self._until = until
        deadline = now + seconds
        if deadline > until:
            deadline = until
        # An alarm of a wait before rings by then, unless it is a tick too late.
        if self._tick is None or self._tick * TICK >= deadline + TICK:
            self._clear_alarm()
            self._set_alarm(deadline)

    def _set_alarm(self, deadline: float) -> None:
        self._tick = tick = tick_of(deadline)
        self._alarms.set(self, tick)

    def _clear_alarm(self) -> None:
        if self._tick is not None:
            self._alarms.clear(self, self._tick)
            self._tick = None

    def wake_up(self) -> None:
        """The alarm rings, which this wait may have set or an earlier one."""
        self._tick = None
        if self._is_over or (self._waiter is not None and not self._waiter.done()):
            deadline = min(self._heard + self._patience, self._until)
            if self._loop.time() < deadline:
                self._set_alarm(deadline)
            elif self._is_over:
                self._close_now()
            else:
                self._fail(PeerTimeout())

    def _wake(self, *, taken: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(taken)

    def _fail(self, error: Exception) -> None:
        """End the wait of now, if there is one."""
        self._taker = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


_BROKEN = "the connection broke"
_NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})


def _objection(error: Exception) -> str:
    """What was wrong with a handshake, in words."""
    if isinstance(error, PeerTimeout):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return _BROKEN
