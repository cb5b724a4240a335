"""Connections between the listening socket and their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from restante.net.connection import Connection
from restante.net.handshakes import Handshakes
from restante.net.server import ConnectionLimits, Server, session_ids
from restante.net.shares import Board
from restante.tls.certificates import Certificates
from tests.support.certificates import issue, write

PATIENCE = 60.0


class Greeter:
    """Says one word, and ends."""

    name = "pop3"
    busy = b"busy"
    failing = b"failing"
    in_company = False

    async def serve(self, connection: Connection, session: str) -> str:
        connection.send(b"hello")
        return "quit"


class Listener(Greeter):
    """Hears one word, in a session that knows its connection and is known by it."""

    def __init__(self) -> None:
        self.sessions: list[weakref.ref[Hearing]] = []

    async def serve(self, connection: Connection, session: str) -> str:
        hearing = Hearing(connection)
        self.sessions.append(weakref.ref(hearing))
        await connection.listen(hearing.take, PATIENCE, interruptible=hearing.is_interruptible)
        return "quit"


class Hearing:
    """One session of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, data: bytes) -> bool:
        self._connection.send(data)
        return False

    def is_interruptible(self) -> bool:
        return True


class Dawdler(Greeter):
    """Needs some turns of the event loop to end."""

    def __init__(self) -> None:
        self.ended = 0

    async def serve(self, connection: Connection, session: str) -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        self.ended += 1
        return "quit"


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        yield bound


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - the kernel tells of nothing
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
def test_a_stop_before_a_session_has_begun_leaves_nobody_counted(tmp_path: Path, tls: bool) -> None:
    files = write(tmp_path, "mx", issue("mx.example.com", by=issue()))
    share = Board(1).share(0)
    stops: list[asyncio.Task[None]] = []

    async def visit(bound: socket.socket) -> None:
        limits = ConnectionLimits(
            1, 1, share, lambda: stops.append(asyncio.create_task(server.stop(1)))
        )
        handshakes = Handshakes(Certificates([files]), PATIENCE)
        server = Server(Greeter(), limits, session_ids(0), handshakes)
        server.start([] if tls else [bound], [bound] if tls else [])
        await until(lambda: stops)
        await stops[0]
        assert tls or client.recv(100) == b"hello"

    with listening() as bound, socket.create_connection(bound.getsockname()) as client:
        uvloop.run(visit(bound))
    assert share.held == 0


def test_a_stop_waits_for_the_session_of_what_was_accepted_last() -> None:
    service = Dawdler()
    stops: list[asyncio.Task[None]] = []

    async def visit(bound: socket.socket) -> None:
        limits = ConnectionLimits(
            1,
            1,
            Board(1).share(0),
            lambda: stops.append(asyncio.create_task(server.stop(PATIENCE))),
        )
        server = Server(service, limits, session_ids(0))
        server.start([bound])
        await until(lambda: stops)
        await stops[0]
        assert service.ended == 1

    with listening() as bound, socket.create_connection(bound.getsockname()):
        uvloop.run(visit(bound))


def test_a_session_that_has_ended_leaves_nothing_to_the_collector() -> None:
    service = Listener()
    share = Board(1).share(0)

    async def visit(bound: socket.socket) -> None:
        server = Server(service, ConnectionLimits(1, 1, share, lambda: None), session_ids(0))
        server.start([bound])
        _, writer = await asyncio.open_connection(*bound.getsockname())
        await until(lambda: service.sessions)
        writer.write(b"word")
        await until(lambda: not share.held)
        writer.close()
        assert service.sessions[0]() is None
        await server.stop(1)

    gc.disable()
    try:
        with listening() as bound:
            uvloop.run(visit(bound))
    finally:
        gc.enable()


@pytest.mark.parametrize("in_company", [False, True], ids=["alone", "in company"])
def test_company_are_the_sessions_of_a_service_that_likes_it(in_company: bool) -> None:
    service = Listener()
    service.in_company = in_company
    board = Board(2)
    share, fellow = board.share(0), board.share(1)
    share.open()
    fellow.open()

    async def visit(bound: socket.socket) -> None:
        server = Server(service, ConnectionLimits(100, 0, share, lambda: None), session_ids(0))
        server.start([bound])
        for _ in range(2):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            await until(lambda: share.held)
            assert share.due_for_company(1, 100) == in_company
            writer.write(b"word")
            await until(lambda: not share.held)
            writer.close()
            assert share.due_for_company(1, 100) == 0
        await server.stop(1)

    with listening() as bound:
        uvloop.run(visit(bound))


def test_the_descriptor_of_a_connection_is_closed_once() -> None:
    share = Board(1).share(0)

    async def visit(bound: socket.socket) -> None:
        limits = ConnectionLimits(1, 1, share, lambda: None)
        server = Server(Greeter(), limits, session_ids(0))
        server.start([bound])
        with socket.create_connection(bound.getsockname()) as client:
            await until(lambda: share.most() and not share.held)
            descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
            assert client.recv(100) == b"hello"
            assert client.recv(100) == b""
        gc.collect()
        for descriptor in descriptors:
            os.close(descriptor)  # raises OSError where somebody else has
        await server.stop(1)

    with listening() as bound:
        uvloop.run(visit(bound))
