"""TLS on the way to other hosts, over real sockets: on the event loop of Python and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from restante.relay.resolver import Endpoint
from restante.relay.wire import READ_HIGH, WRITE_HIGH, Wire, WireTimeout
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.tls_ends import ALL, HOST, TlsServer

PATIENCE = 20.0
MUCH = bytes(range(256)) * 4 * 1024

Client = Callable[[Wire], Awaitable[None]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Converse = Callable[[Client, Serve], None]


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def converse(request: pytest.FixtureRequest) -> Converse:
    """Have a client speak to a server; an error of either is the test's."""

    def run(client: Client, serve: Serve) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(_converse(client, serve))

    return run


async def _converse(client: Client, serve: Serve) -> None:
    served: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except BaseException as error:  # noqa: BLE001 - for the test
            served.set_exception(error)
        else:
            served.set_result(None)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        wire = await Wire.connect(Endpoint(HOST, "127.0.0.1", port), PATIENCE)
        try:
            async with asyncio.timeout(PATIENCE):
                await client(wire)
                await served
        finally:
            wire.abort()


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, authority: Issued) -> ssl.SSLContext:
    directory: Path = tmp_path_factory.mktemp("certificates")
    files = write(directory, "mx", issue(HOST, by=authority))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(files.certificate, files.key)
    return made


@pytest.fixture
def trust(authority: Issued) -> ssl.SSLContext:
    return trusting(authority)


async def accept(
    context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> TlsServer:
    """Be the server of a handshake."""
    server = TlsServer(context)
    while not server.is_shaken:
        writer.write(server.shake_hands(await reader.read(ALL)))
    return server


async def hear_all(wire: Wire, octets: int) -> bytes:
    """As many octets, however they come."""
    heard = b""
    while len(heard) < octets:
        heard += await wire.receive(PATIENCE)
    return heard


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"]
)
def test_much_goes_both_ways(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def client(wire: Wire) -> None:
        assert await wire.receive(PATIENCE) == b"220 go\r\n"
        trust.maximum_version = version
        said = await wire.start_tls(trust, HOST, PATIENCE)
        assert said.startswith(f"{version.name.replace('_', '.')} ")
        for place in range(0, len(MUCH), 50_000):
            wire.send(MUCH[place : place + 50_000])
            await wire.drain(PATIENCE)
        assert await hear_all(wire, len(MUCH)) == MUCH
        await wire.close(PATIENCE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 go\r\n")
        server = await accept(context, reader, writer)
        heard = b""
        while len(heard) < len(MUCH):
            heard += server.open(await reader.read(READ_HIGH))
        writer.write(server.seal(heard))
        while not server.has_heard_the_end():
            assert server.open(await reader.read(READ_HIGH)) == b""
        writer.write(server.say_goodbye())
        assert await reader.read() == b""

    converse(client, serve)


def test_what_was_said_in_clear_text_is_not_heard_in_tls(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    """It may be somebody else's: it is taken for the handshake, and is none."""

    async def client(wire: Wire) -> None:
        while wire.is_quiet:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
            await wire.start_tls(trust, HOST, PATIENCE)
        await wire.close(PATIENCE)
        assert wire.take() == b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 evil\r\n")
        assert b"EHLO" not in await reader.read()

    converse(client, serve)


@pytest.mark.parametrize("drips", [False, True])
def test_a_handshake_takes_no_longer_than_it_may(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext, drips: bool
) -> None:
    """However often something comes; and the connection is gone with it."""

    async def client(wire: Wire) -> None:
        with pytest.raises(TimeoutError, match=r"not done within 0\.3 seconds"):
            await wire.start_tls(trust, HOST, 0.3)
        await wire._gone.wait()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = TlsServer(context).shake_hands(await reader.read(ALL))
        for place in range(len(hello) - 1) if drips else ():
            writer.write(hello[place : place + 1])
            await asyncio.sleep(0.01)
            if reader.at_eof() or writer.is_closing():
                break
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    converse(client, serve)


@pytest.mark.parametrize("when", ["before", "in the midst"])
def test_a_server_that_closes_the_connection(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext, when: str
) -> None:
    async def client(wire: Wire) -> None:
        if when == "before":
            assert await wire.receive(PATIENCE) == b""
        with pytest.raises(ConnectionResetError, match="the connection was closed"):
            await wire.start_tls(trust, HOST, PATIENCE)
        await wire.close(PATIENCE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when == "in the midst":
            writer.write(TlsServer(context).shake_hands(await reader.read(ALL))[:100])
        writer.close()
        await writer.wait_closed()

    converse(client, serve)


def test_a_server_hears_why_its_certificate_will_not_do(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async def client(wire: Wire) -> None:
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await wire.start_tls(trust, "other.example.com", PATIENCE)
        assert "Hostname mismatch" in raised.value.verify_message
        wire.send(b"EHLO in clear text\r\n")
        await wire.close(PATIENCE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)bad[ _]certificate"):
            await accept(context, reader, writer)
        assert await reader.read() == b""

    converse(client, serve)


def test_what_is_no_name_of_a_host(converse: Converse, trust: ssl.SSLContext) -> None:
    async def client(wire: Wire) -> None:
        with pytest.raises(OSError, match=r"mx\.\.example is no name of a host"):
            await wire.start_tls(trust, "mx..example", PATIENCE)
        await wire._gone.wait()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    converse(client, serve)


def test_a_handshake_that_nobody_waits_for_any_more(
    converse: Converse, trust: ssl.SSLContext
) -> None:
    begun = asyncio.Event()

    async def client(wire: Wire) -> None:
        shaking = asyncio.create_task(wire.start_tls(trust, HOST, PATIENCE))
        await begun.wait()
        shaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shaking
        wire.abort()
        await wire.close(PATIENCE)

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.read(1)
        begun.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()

    converse(client, serve)


def test_a_server_that_reads_nothing_is_given_up(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    """What is unsent stays within bounds, and goes with the connection."""
    done = asyncio.Event()

    async def fill(wire: Wire) -> None:
        while True:
            wire.send(b"x" * 50_000)
            if wire.must_drain:
                await wire.drain(0.2)

    async def client(wire: Wire) -> None:
        await wire.start_tls(trust, HOST, PATIENCE)
        with pytest.raises(WireTimeout):
            await fill(wire)
        assert wire._transport is not None
        assert WRITE_HIGH < wire._transport.get_write_buffer_size() < 1.5 * WRITE_HIGH
        wire.abort()
        await wire.close(PATIENCE)
        wire.send(b"nobody")
        done.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(context, reader, writer)
        await done.wait()

    converse(client, serve)


@pytest.mark.parametrize("secured", [False, True])
def test_an_answer_is_waited_for_however_slowly_the_server_reads(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext, secured: bool
) -> None:
    """That it takes what waited unsent is no answer, and no end."""

    async def client(wire: Wire) -> None:
        if secured:
            await wire.start_tls(trust, HOST, PATIENCE)
        while not wire.must_drain:
            wire.send(b"x" * 50_000)
        wire.send(b"end")
        assert await wire.receive(PATIENCE) == b"250 ok\r\n"
        assert not wire.must_drain

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await accept(context, reader, writer) if secured else None
        heard = b""
        while not heard.endswith(b"end"):
            octets = await reader.read(READ_HIGH)
            heard = (heard + (server.open(octets) if server else octets))[-3:]
        await asyncio.sleep(0.05)
        writer.write(server.seal(b"250 ok\r\n") if server else b"250 ok\r\n")

    converse(client, serve)


def test_a_server_that_says_too_much_is_held_back(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    much = MUCH * 16

    async def client(wire: Wire) -> None:
        await wire.start_tls(trust, HOST, PATIENCE)
        most = received = 0
        while received < len(much):
            await asyncio.sleep(0.01)
            most = max(most, len(wire._received))
            received += len(await wire.receive(PATIENCE))
        assert READ_HIGH < most < 3 * READ_HIGH
        wire.send(b"QUIT\r\n")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await accept(context, reader, writer)
        writer.write(server.seal(much))
        assert server.open(await reader.read(ALL)) == b"QUIT\r\n"

    converse(client, serve)


def test_a_server_that_ends_tls_ends_the_connection(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    """Nobody need ask for it first: an idle connection may wait for long."""

    async def client(wire: Wire) -> None:
        await wire.start_tls(trust, HOST, PATIENCE)
        assert await wire.receive(PATIENCE) == b"421 bye\r\n"
        await wire._gone.wait()
        assert not wire.is_quiet

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await accept(context, reader, writer)
        writer.write(server.seal(b"421 bye\r\n") + server.say_goodbye())
        while not server.has_heard_the_end():
            assert server.open(await reader.read(ALL)) == b""
        assert await reader.read() == b""

    converse(client, serve)


@pytest.mark.parametrize("says", ["nothing", "much"])
def test_a_server_that_does_not_end_tls_has_some_time(
    converse: Converse, context: ssl.SSLContext, trust: ssl.SSLContext, says: str
) -> None:
    """What it says meanwhile wins it none."""

    async def client(wire: Wire) -> None:
        await wire.start_tls(trust, HOST, PATIENCE)
        await wire.close(0.3)
        await wire._gone.wait()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await accept(context, reader, writer)
        while not server.has_heard_the_end():
            assert server.open(await reader.read(ALL)) == b""
        with contextlib.suppress(ConnectionError):
            while says == "much" and not (reader.at_eof() or writer.is_closing()):
                writer.write(server.ask_for_keys())
                await asyncio.sleep(0.01)
            assert await reader.read() == b""

    converse(client, serve)
