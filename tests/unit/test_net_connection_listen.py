"""Octets that a session takes as they come, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from restante.net.connection import READ_HIGH, Connection, PeerLost, PeerTimeout, Stopping
from tests.support.hearing import hear

LONG = 60.0


class Visitor:
    """The client's end of a connection, and what came of the server's ``listen``."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self.reader, self.writer, self.connection = reader, writer, connection

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()


@asynccontextmanager
async def visit(stopping: asyncio.Event | None = None) -> AsyncIterator[Visitor]:
    """A connection whose session does nothing until the visit is over."""
    made: asyncio.Queue[Connection] = asyncio.Queue()
    over = asyncio.Event()

    async def serve(connection: Connection) -> None:
        made.put_nowait(connection)
        await over.wait()

    loop = asyncio.get_running_loop()
    stop = stopping or asyncio.Event()
    server = await loop.create_server(lambda: Connection(serve, stop, "127.0.0.1"), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    connection = await made.get()
    try:
        yield Visitor(reader, writer, connection)
    finally:
        over.set()
        writer.close()
        server.close()
        if connection.task is not None:
            await connection.task


def echo(connection: Connection, enough: bytes) -> Callable[[bytes], bool]:
    def take(data: bytes) -> bool:
        connection.send(data)
        return enough not in data

    return take


async def test_octets_are_taken_until_it_is_enough() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        listening = asyncio.create_task(
            connection.listen(echo(connection, b"!"), LONG, interruptible=lambda: True)
        )
        for word in (b"one", b"two"):
            await visitor.send(word)
            assert await visitor.reader.readexactly(3) == word
        assert not listening.done()
        await visitor.send(b"end!")
        assert await listening is True
        await visitor.send(b"more")
        assert await hear(connection, LONG) == b"more"


async def test_what_came_before_is_taken_first() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        connection.data_received(b"early!")
        assert await connection.listen(echo(connection, b"!"), LONG, interruptible=lambda: True)
        assert await visitor.reader.readexactly(6) == b"early!"


async def test_single_octets_do_not_pile_up() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        transport = cast(asyncio.Transport, connection._transport)
        pieces = 0
        while transport.is_reading():
            connection.data_received(b"xy")
            pieces += 1
        assert pieces * sys.getsizeof(b"xy") <= READ_HIGH
        assert len(await hear(connection, LONG)) == 2 * pieces
        assert transport.is_reading()


async def test_the_end_of_the_stream_is_told() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        visitor.writer.write_eof()
        assert not await connection.listen(echo(connection, b"!"), LONG, interruptible=lambda: True)


async def test_a_broken_connection_is_told() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        client = visitor.writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        visitor.writer.transport.abort()
        with pytest.raises(PeerLost):
            await connection.listen(echo(connection, b"!"), LONG, interruptible=lambda: True)


async def test_silence_is_counted_from_the_last_octets() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        loop = asyncio.get_running_loop()
        heard: list[float] = []

        def take(data: bytes) -> bool:
            heard.append(loop.time())
            return True

        listening = asyncio.create_task(connection.listen(take, 1.0, interruptible=lambda: True))
        await asyncio.sleep(0.3)
        await visitor.send(b"still here")
        with pytest.raises(PeerTimeout):
            await listening
        assert len(heard) == 1
        assert loop.time() - heard[0] >= 1.0


async def test_who_never_rests_is_cut_short() -> None:
    async with visit() as visitor:
        connection = visitor.connection
        loop = asyncio.get_running_loop()
        taken: list[bytes] = []

        def take(data: bytes) -> bool:
            taken.append(data)
            return True

        end = loop.time() + 1.0
        listening = asyncio.create_task(
            connection.listen(take, LONG, interruptible=lambda: True, until=end)
        )
        while not listening.done():
            await visitor.send(b"more")
            await asyncio.sleep(0.01)
        assert taken
        with pytest.raises(PeerTimeout):
            await listening
        assert loop.time() >= end
        connection.data_received(b"and more")
        with pytest.raises(PeerTimeout):
            await connection.listen(take, LONG, interruptible=lambda: True, until=end)


async def test_what_goes_wrong_in_taking_ends_the_session_not_the_server() -> None:
    async with visit() as visitor:
        connection = visitor.connection

        def take(data: bytes) -> bool:
            raise ZeroDivisionError(data)

        listening = asyncio.create_task(connection.listen(take, LONG, interruptible=lambda: True))
        await visitor.send(b"x")
        with pytest.raises(ZeroDivisionError):
            await listening


@pytest.mark.parametrize("interruptible", [True, False])
async def test_a_server_that_stops_interrupts(interruptible: bool) -> None:
    stopping = asyncio.Event()
    async with visit(stopping) as visitor:
        connection = visitor.connection
        take = echo(connection, b"!")
        listening = asyncio.create_task(
            connection.listen(take, LONG, interruptible=lambda: interruptible)
        )
        await visitor.send(b"ready")
        await visitor.reader.readexactly(5)
        stopping.set()
        connection.interrupt()
        if interruptible:
            with pytest.raises(Stopping):
                await listening
            with pytest.raises(Stopping):
                await connection.listen(take, LONG, interruptible=lambda: True)
        else:
            await visitor.send(b"one piece, and the session looks about")
            assert await listening
