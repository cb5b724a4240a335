"""A connection that goes on in TLS: what was read before the handshake is not read after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from restante.net.connection import Connection, TlsFailed
from restante.tls import TlsSession
from restante.tls.certificates import Certificates
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.hearing import hear

HOST = "mx.example.com"
PATIENCE = 60.0
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def authority() -> Issued:
    return issue()


@pytest.fixture
def certificates(tmp_path: Path, authority: Issued) -> Certificates:
    return Certificates([write(tmp_path, "mx", issue(HOST, by=authority))])


def converse(serve: Callable[[Connection], Awaitable[None]], client: Client) -> None:
    """Both ends of one connection, on the event loop of a worker; what either raises is raised."""
    uvloop.run(_converse(serve, client))


async def _converse(serve: Callable[[Connection], Awaitable[None]], client: Client) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hold(connection: Connection) -> None:
        try:
            await serve(connection)
        except BaseException as error:  # noqa: BLE001 - for the test
            ended.set_exception(error)
        else:
            ended.set_result(None)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(hold, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(PATIENCE):
                await client(reader, writer)
                await ended
        finally:
            writer.transport.abort()


def test_octets_go_both_ways_after_the_handshake(
    certificates: Certificates, authority: Issued
) -> None:
    told: list[TlsSession] = []

    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        told.append(await connection.start_tls(certificates, b"go", PATIENCE))
        assert connection.tls == told[0]
        received = b""
        while len(received) < 1_000_000:
            received += await hear(connection, PATIENCE)
        connection.send(received)
        await connection.drain(PATIENCE)
        assert await hear(connection, PATIENCE) == b""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        assert await reader.readexactly(2) == b"go"
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        content = bytes(range(250)) * 4000
        writer.write(content)
        assert await reader.readexactly(len(content)) == content
        writer.close()

    converse(serve, client)
    assert told[0].server_name == HOST
    assert str(told[0]).startswith("TLSv1.3 TLS_")


def test_octets_that_come_while_the_server_is_busy_end_the_session(
    certificates: Certificates,
) -> None:
    """They were sent before the 220, by whomever."""

    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        connection.send(b"wait")
        while not connection._received:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        with pytest.raises(TlsFailed, match="clear text"):
            await connection.start_tls(certificates, b"go", PATIENCE)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        assert await reader.readexactly(4) == b"wait"
        writer.write(b"EHLO evil\r\n")
        assert await reader.read() == b""

    converse(serve, client)


def test_octets_that_nobody_has_read_are_taken_for_a_handshake(
    certificates: Certificates,
) -> None:
    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        with pytest.raises(TlsFailed):
            await connection.start_tls(certificates, b"go", PATIENCE)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        assert await reader.readexactly(2) == b"go"
        writer.write(b"MAIL FROM:<evil@example.net>\r\n")
        assert b"250" not in await reader.read()

    converse(serve, client)


def test_a_client_that_is_gone(certificates: Certificates) -> None:
    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        with pytest.raises(TlsFailed):
            await connection.start_tls(certificates, b"go", PATIENCE)

    async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        writer.close()

    converse(serve, client)


@pytest.mark.parametrize("how", ["garbage", "closed", "aborted", "interrupted"])
def test_a_connection_whose_handshake_failed_is_gone_at_once(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It takes nobody's place for as long as a peer may take to close it."""
    monkeypatch.setattr("restante.net.connection.CLOSE_TIMEOUT", 60 * PATIENCE)
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        if how == "interrupted":
            asyncio.get_running_loop().call_later(0.01, connection.interrupt)
        try:
            with pytest.raises(TlsFailed):
                await connection.start_tls(certificates, b"go\r\n", PATIENCE)
        finally:
            connection.when_gone(gone.set)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if how == "garbage":
            writer.write(b"this is no handshake\r\n")
        elif how == "closed":
            writer.close()
        elif how == "aborted":
            writer.transport.abort()
        await gone.wait()

    converse(serve, client)


def test_a_handshake_takes_no_longer_than_it_may(certificates: Certificates) -> None:
    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        with pytest.raises(TlsFailed, match="timeout"):
            await connection.start_tls(certificates, b"go", 0.1)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        assert await reader.read() == b"go"

    converse(serve, client)
