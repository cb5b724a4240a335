"""A connection that goes on in TLS: what was read before the handshake is not read after it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from restante.net.connection import (
    READ_HIGH,
    WRITE_HIGH,
    Connection,
    PeerTimeout,
    Stopping,
    TlsFailed,
)
from restante.net.outbox import Outbox
from restante.tls import TlsSession
from restante.tls.certificates import Certificates
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.hearing import hear
from tests.support.tls_ends import TlsClient

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


async def begin(
    client: TlsClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Shake hands."""
    said = client.shake_hands()
    while not client.is_shaken:
        writer.write(said)
        said = client.shake_hands(await reader.read(READ_HIGH))
    writer.write(said)


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
    outbox = Outbox()
    server = await loop.create_server(
        lambda: Connection(hold, asyncio.Event(), "127.0.0.1", outbox), "127.0.0.1", 0
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


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"]
)
def test_octets_go_both_ways_after_the_handshake(
    certificates: Certificates, authority: Issued, version: ssl.TLSVersion
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
        trust = trusting(authority)
        trust.maximum_version = version
        await writer.start_tls(trust, server_hostname=HOST)
        content = bytes(range(250)) * 4000
        writer.write(content)
        assert await reader.readexactly(len(content)) == content
        writer.close()

    converse(serve, client)
    assert told[0].server_name == HOST
    assert told[0].version == version.name.replace("_", ".")
    assert str(told[0]).startswith(f"{told[0].version} {told[0].cipher}")
    assert bool(told[0].bindings) == (version is ssl.TLSVersion.TLSv1_2)


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


def test_what_waits_to_be_sent_goes_before_the_handshake(
    certificates: Certificates, authority: Issued
) -> None:
    async def serve(connection: Connection) -> None:
        connection.send(b"250 ok\r\n")
        await connection.start_tls(certificates, b"220 go\r\n", PATIENCE)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"250 ok\r\n"
        assert await reader.readline() == b"220 go\r\n"
        await writer.start_tls(trusting(authority), server_hostname=HOST)

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
            with pytest.raises(Stopping if how == "interrupted" else TlsFailed):
                await connection.start_tls(certificates, b"go\r\n", PATIENCE)
        finally:
            connection.send(b"421 in clear text")
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
        with contextlib.suppress(ConnectionError):
            assert b"421" not in await reader.read()

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


def test_a_client_that_reads_nothing_in_its_handshake_is_gone_with_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it to read what it was told last."""
    monkeypatch.setattr("restante.net.connection.CLOSE_TIMEOUT", 60 * PATIENCE)
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        connection.when_gone(gone.set)
        with pytest.raises(TlsFailed, match="timeout"):
            await connection.start_tls(certificates, b"go" * 8_000_000, 0.1)

    async def client(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await gone.wait()

    converse(serve, client)


def test_a_client_that_sends_no_more_is_not_waited_for(certificates: Certificates) -> None:
    """It cannot finish a handshake, although it may still read."""

    async def serve(connection: Connection) -> None:
        assert await hear(connection, PATIENCE) == b"begin"
        assert await hear(connection, PATIENCE) == b""
        with pytest.raises(TlsFailed, match="broke"):
            await connection.start_tls(certificates, b"go", 60 * PATIENCE)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begin")
        writer.write_eof()
        assert await reader.read() == b"go"

    converse(serve, client)


def test_a_handshake_that_the_client_began_before_the_session(
    certificates: Certificates, authority: Issued
) -> None:
    """On a port for TLS, where it waits for nobody."""

    async def serve(connection: Connection) -> None:
        while not connection._received:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        await connection.accept_tls(certificates, PATIENCE)
        connection.send(b"hello")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        assert await reader.read() == b"hello"

    converse(serve, client)


def test_a_handshake_takes_no_longer_however_often_something_comes(
    certificates: Certificates, authority: Issued
) -> None:
    hello = TlsClient(trusting(authority)).shake_hands()

    async def serve(connection: Connection) -> None:
        with pytest.raises(TlsFailed, match="timeout"):
            await connection.accept_tls(certificates, 0.5)

    async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for place in range(len(hello) - 1):
            writer.write(hello[place : place + 1])
            await asyncio.sleep(0.01)
            if writer.is_closing():
                return
        raise AssertionError("it never ended")

    converse(serve, client)


def test_a_shutdown_lets_a_session_begin_whose_handshake_is_done(
    certificates: Certificates, authority: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last octet of the handshake and the session's next turn."""
    shaken = Connection._shaken

    def stop(connection: Connection, failure: Exception | None) -> None:
        shaken(connection, failure)
        connection.interrupt()

    monkeypatch.setattr(Connection, "_shaken", stop)

    async def serve(connection: Connection) -> None:
        await connection.accept_tls(certificates, PATIENCE)
        connection.send(b"421 bye")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        assert await reader.read() == b"421 bye"

    converse(serve, client)


def test_a_shutdown_leaves_a_command_alone_that_is_under_way(
    certificates: Certificates, authority: Issued
) -> None:
    async def serve(connection: Connection) -> None:
        await connection.accept_tls(certificates, PATIENCE)
        asyncio.get_running_loop().call_soon(connection.interrupt)
        connection.send(b"go on")
        assert await hear(connection, PATIENCE) == b"the rest"

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        assert await reader.readexactly(5) == b"go on"
        writer.write(b"the rest")

    converse(serve, client)


def test_a_client_that_reads_slowly_is_waited_for(
    certificates: Certificates, authority: Issued
) -> None:
    """The session writes no more than it must; what is unsent stays within bounds."""
    piece, pieces = b"x" * WRITE_HIGH, 40
    most = 0

    async def serve(connection: Connection) -> None:
        nonlocal most
        await connection.accept_tls(certificates, PATIENCE)
        waited = 0
        for _ in range(pieces):
            connection.send(piece)
            assert connection._transport is not None
            most = max(most, connection._transport.get_write_buffer_size())
            waited += connection.is_behind
            await connection.drain(PATIENCE)
        assert waited

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        await asyncio.sleep(0.2)
        assert await reader.readexactly(len(piece) * pieces) == piece * pieces

    converse(serve, client)
    assert WRITE_HIGH < most < 2.1 * WRITE_HIGH


def test_a_client_that_reads_nothing_is_given_up(
    certificates: Certificates, authority: Issued
) -> None:
    async def fill(connection: Connection) -> None:
        while True:
            connection.send(b"x" * WRITE_HIGH)
            await connection.drain(0.2)

    async def serve(connection: Connection) -> None:
        await connection.accept_tls(certificates, PATIENCE)
        with pytest.raises(PeerTimeout):
            await fill(connection)
        connection.send(b"nobody")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await begin(TlsClient(trusting(authority)), reader, writer)

    converse(serve, client)


def test_a_session_that_is_busy_holds_its_client_back(
    certificates: Certificates, authority: Issued
) -> None:
    much = bytes(range(256)) * 64 * 1024
    most = 0

    async def serve(connection: Connection) -> None:
        nonlocal most
        await connection.accept_tls(certificates, PATIENCE)
        received = 0
        while received < len(much):
            await asyncio.sleep(0.01)
            most = max(most, connection._received_size)
            received += len(await hear(connection, PATIENCE))
        connection.send(b"thanks")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(trusting(authority), server_hostname=HOST)
        writer.write(much)
        assert await reader.readexactly(6) == b"thanks"

    converse(serve, client)
    assert READ_HIGH < most < 3 * READ_HIGH


@pytest.mark.parametrize("busy", [False, True])
def test_a_client_that_does_not_end_tls_has_some_time(
    certificates: Certificates, authority: Issued, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """Until then it is there; what it says meanwhile wins it no time."""
    monkeypatch.setattr("restante.net.connection.CLOSE_TIMEOUT", 0.5)
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.accept_tls(certificates, PATIENCE)
        connection.when_gone(gone.set)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = TlsClient(trusting(authority))
        await begin(tls, reader, writer)
        while not tls.has_heard_the_end():
            assert tls.open(await reader.read(READ_HIGH)) == b""
        assert not gone.is_set()
        while not gone.is_set():
            if busy:
                writer.write(tls.ask_for_keys())
            await asyncio.sleep(0.01)
        assert await reader.read() == b""

    converse(serve, client)
