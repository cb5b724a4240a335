"""One TCP connection to another host: octets in, octets out, every wait and buffer bounded."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from restante.relay.resolver import Endpoint
from restante.tls_stream import TlsStream, Transport

READ_HIGH = 256 * 1024
"""Octets that wait unread before the peer is told to wait (TCP flow control)."""
WRITE_HIGH = 256 * 1024
"""Octets that wait unsent before the sender waits for the peer."""


class WireTimeout(Exception):
    """The peer sent nothing, or took nothing, for too long."""


class WireLost(Exception):
    """The connection is gone."""


class Wire(asyncio.Protocol):
    """A stream for one coroutine that reads and writes in turns."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._ended = False
        self._lost = False
        self._writing_paused = False
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport: Transport | None = None
        self._gone = asyncio.Event()

    @classmethod
    async def connect(cls, endpoint: Endpoint, seconds: float) -> Wire:
        """A connection to ``endpoint``; raises OSError, of which TimeoutError is one."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            _, wire = await loop.create_connection(cls, endpoint.address, endpoint.port)
        return wire

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do all that asyncio.Transport says without deriving from it.
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._received += data
        if len(self._received) > READ_HIGH and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> None:
        """The peer has said all that it had to say; so the connection is of no more use."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be sent or received any more."""
        self._ended = self._lost = True
        self._gone.set()
        self._wake()

    def pause_writing(self) -> None:
        """The peer reads slower than the sender writes."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writing_paused = False
        self._wake()

    # What the session calls

    @property
    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing has come that was not read."""
        return not self._ended and not self._received

    @property
    def must_drain(self) -> bool:
        """Whether the peer reads slower than it is sent, has said something, or is gone."""
        return self._writing_paused or self._lost or bool(self._received)

    async def receive(self, seconds: float) -> bytes:
        """All octets that have come, at least one; empty at the end of the stream.

        Raises WireTimeout after ``seconds`` of silence.
        """
        deadline = self._loop.time() + seconds
        # It is woken as well when the peer takes what waits unsent, which is no answer.
        while not self._received and not self._ended:
            await self._wait(self._loop.create_future(), deadline - self._loop.time())
        return self.take()

    def take(self) -> bytes:
        """All octets that have come; none is no sign of anything."""
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

    async def drain(self, seconds: float) -> None:
        """Wait until the peer has taken most of what was sent; raises WireTimeout or WireLost.

        Returns as well when the peer says something: it may want no more.
        """
        if self._writing_paused and not self._received and not self._lost:
            await self._wait(self._loop.create_future(), seconds)
        if self._lost:
            raise WireLost

    async def start_tls(self, context: ssl.SSLContext, name: str, seconds: float) -> str:
        """Do the handshake; version and cipher. ``name`` is for SNI and, if it is so, the check.

        Raises OSError, of which ssl.SSLError and TimeoutError are; the connection is then closed.
        """
        plain = self._transport
        assert plain is not None
        if self._lost:
            raise ConnectionResetError("the connection was closed")
        waiter = self._waiter = self._loop.create_future()
        # Only one handshake is held on a connection: what it has is the event loop's transport.
        stream = self._tls_stream(cast(asyncio.Transport, plain), context, name)
        if self._received:  # in clear text, and too early: it is taken for TLS, and is none
            stream.data_received(self.take())
        try:
            await self._wait(waiter, seconds)
        except WireTimeout:
            plain.abort()
            raise TimeoutError(f"not done within {seconds:g} seconds") from None
        self._transport = stream
        version, cipher = stream.handshake.version(), stream.handshake.cipher()
        return f"{version} {cipher[0] if cipher else ''}"

    def _tls_stream(
        self, plain: asyncio.Transport, context: ssl.SSLContext, name: str
    ) -> TlsStream:
        try:
            return TlsStream(plain, self, context, self._shaken, server_name=name)
        except ValueError:
            plain.abort()
            raise OSError(f"{name} is no name of a host") from None

    def _shaken(self, failure: Exception | None) -> None:
        """A handshake is over."""
        if failure is None:
            self._wake()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)

    async def close(self, seconds: float) -> None:
        """Send what is queued, and close; a peer that does not take it in time loses it."""
        if self._transport is not None:
            self._transport.close()
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self, waiter: asyncio.Future[None], seconds: float) -> None:
        self._waiter = waiter
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
        waiter.set_exception(WireTimeout())
