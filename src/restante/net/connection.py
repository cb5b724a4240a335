"""One TCP connection: bytes in, bytes out, every wait bounded, every buffer bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

READ_HIGH = 256 * 1024
"""Octets that wait unread before the peer is told to wait (TCP flow control)."""
WRITE_HIGH = 256 * 1024
"""Octets that wait unsent before the session waits for the peer."""
CLOSE_TIMEOUT = 30.0
"""Seconds that a peer may take to read the last octets after the session ended."""


class PeerTimeout(Exception):
    """The peer sent nothing, or took nothing, for too long."""


class PeerLost(Exception):
    """The connection is gone."""


class Stopping(Exception):
    """The server shuts down and this session is between two commands."""


class Connection(asyncio.Protocol):
    """A stream to one peer, for one session's coroutine.

    ``serve`` is run as a task when the connection is made; the connection closes
    when it ends.
    """

    def __init__(
        self, serve: Callable[[Connection], Coroutine[Any, Any, None]], stopping: asyncio.Event
    ) -> None:
        self._serve = serve
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._eof = False
        self._lost = False
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._interruptible = False
        self._close_timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.peer = ""
        """The client's IP address."""

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session."""
        # uvloop's transports do all that asyncio.Transport says without deriving from it.
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=WRITE_HIGH)
        name = transport.get_extra_info("peername")
        self.peer = _plain_address(name[0]) if name else ""
        self.task = self._loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Keep what came; stop reading when the session is behind."""
        self._received += data
        if len(self._received) > READ_HIGH and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:
        """The peer will send no more; it may still read."""
        self._eof = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be sent or received any more."""
        self._eof = self._lost = True
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The peer reads slower than the session writes."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writing_paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    # What the session calls

    async def receive(self, timeout: float, *, interruptible: bool) -> bytes:  # noqa: ASYNC109
        """All octets that have come, at least one; empty at the end of the stream.

        Raises PeerTimeout after ``timeout`` seconds of silence, PeerLost when the
        connection broke, and Stopping when the server shuts down and the session says
        that it is between two commands.
        """
        if not self._received and not self._eof:
            if interruptible and self._stopping.is_set():
                raise Stopping
            await self._wait_for_data(timeout, interruptible)
        if self._lost and not self._received:
            raise PeerLost
        data = bytes(self._received)
        self._received.clear()
        if self._reading_paused and self._transport is not None and not self._lost:
            self._transport.resume_reading()
            self._reading_paused = False
        return data

    def send(self, data: bytes) -> None:
        """Queue octets for the peer; call ``drain`` before queueing much more."""
        if data and self._transport is not None and not self._lost:
            self._transport.write(data)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until the peer has taken most of what was sent.

        Raises PeerTimeout or PeerLost.
        """
        if self._lost:
            raise PeerLost
        if not self._writing_paused:
            return
        self._drain_waiter = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._drain_waiter
        except TimeoutError:
            self.abort()
            raise PeerTimeout from None
        finally:
            self._drain_waiter = None
        if self._lost:
            raise PeerLost

    def interrupt(self) -> None:
        """The server shuts down: wake a session that waits between two commands."""
        if self._waiter is not None and not self._waiter.done() and self._interruptible:
            self._waiter.set_exception(Stopping())

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _run(self) -> None:
        try:
            await self._serve(self)
        finally:
            if self._transport is not None and not self._lost:
                self._transport.close()
                self._close_timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    async def _wait_for_data(self, seconds: float, interruptible: bool) -> None:
        waiter = self._waiter = self._loop.create_future()
        self._interruptible = interruptible
        timer = self._loop.call_later(seconds, _time_out, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _time_out(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(PeerTimeout())


def _plain_address(address: str) -> str:
    """An IPv4 peer of a dual-stack socket is known by its IPv4 address."""
    return address.removeprefix("::ffff:") if "." in address else address.partition("%")[0]
