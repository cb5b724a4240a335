"""Connections between the listening socket and their sessions."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

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
    sends_together = False

    async def serve(self, connection: Connection, session: str) -> str:
        connection.send(b"hello")
        return "quit"


def test_a_stop_before_a_handshake_has_begun_leaves_nobody_counted(tmp_path: Path) -> None:
    files = write(tmp_path, "mx", issue("mx.example.com", by=issue()))
    share = Board(1).share(0)
    stops: list[asyncio.Task[None]] = []

    async def visit(bound: socket.socket) -> None:
        limits = ConnectionLimits(
            1, 1, share, lambda: stops.append(asyncio.create_task(server.stop(1)))
        )
        handshakes = Handshakes(Certificates([files]), PATIENCE)
        server = Server(Greeter(), limits, session_ids(0), handshakes)
        server.start([], [bound])
        async with asyncio.timeout(PATIENCE):
            while not stops:  # noqa: ASYNC110 - the kernel tells of nothing
                await asyncio.sleep(0.001)
            await stops[0]

    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        with socket.create_connection(bound.getsockname()):
            uvloop.run(visit(bound))
    assert share.held == 0
