"""Who is counted, what is logged and what is left over, however a session over TLS ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from restante.net.connection import Connection, PeerLost, Stopping, TlsFailed
from restante.net.handshakes import Handshakes
from restante.net.server import ConnectionLimits, Server, session_ids
from restante.net.shares import Board, Share
from restante.tls import HandshakeContexts
from restante.tls.certificates import Certificates
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.events import capture_logs
from tests.support.tls_ends import TlsClient, objection_to

PATIENCE = 60.0
HOST = "mx.example.com"
SECRET = "a secret of this host"
CLEAR_TEXT = b"EHLO client.example\r\n"


@dataclass
class Echo:
    """Says what it hears, and ends at the word QUIT; STARTTLS is what it says."""

    handshakes: Handshakes
    name = "pop3"
    busy = b"busy"
    failing = b"failing"
    in_company = False

    async def serve(self, connection: Connection, session: str) -> str:
        heard: list[bytes] = []

        def take(data: bytes) -> bool:
            heard.append(data)
            return False

        connection.send(b"hello")
        try:
            while await connection.listen(take, PATIENCE, interruptible=lambda: True):
                word = heard.pop()
                if word == b"BUG":
                    raise RuntimeError(SECRET)
                if word == b"STARTTLS":
                    await self.handshakes.start(connection, session, b"go")
                elif word == b"QUIT":
                    return "quit"
                else:
                    connection.send(word)
        except TlsFailed:
            return "tls failed"
        except PeerLost:
            return "lost"
        except Stopping:
            connection.send(b"421")
            return "shutdown"
        return "lost"


class BrokenContexts:
    """A bug, at the beginning of each handshake."""

    def for_handshake(self) -> ssl.SSLContext:
        raise RuntimeError(SECRET)

    def server_name(self, handshake: ssl.SSLObject) -> str:
        raise NotImplementedError


class BrokenNames:
    """A bug, at the end of each handshake."""

    def __init__(self, good: Certificates) -> None:
        self._good = good

    def for_handshake(self) -> ssl.SSLContext:
        return self._good.for_handshake()

    def server_name(self, handshake: ssl.SSLObject) -> str:
        raise RuntimeError(SECRET)


class House:
    """A server on two sockets, the second of which begins with TLS."""

    def __init__(self, contexts: HandshakeContexts, timeout: float, share: Share) -> None:
        handshakes = Handshakes(contexts, timeout)
        limits = ConnectionLimits(100, 0, share, lambda: None)
        self.share = share
        self.server = Server(Echo(handshakes), limits, session_ids(0), handshakes)
        plain, secure = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        for bound in (plain, secure):
            bound.setblocking(False)
        self.plain, self.secure = plain.getsockname(), secure.getsockname()
        self.server.start([plain], [secure])

    async def empty(self) -> None:
        """Wait until nobody is counted."""
        await until(lambda: not self.share.held)


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - the kernel tells of nothing
            await asyncio.sleep(0.001)


class Visitor:
    """One client, on any of the sockets."""

    def __init__(
        self, trust: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.client = TlsClient(trust)
        self.reader, self.writer = reader, writer

    async def shake_hands(self) -> None:
        said = self.client.shake_hands()
        while not self.client.is_shaken:
            self.writer.write(said)
            said = self.client.shake_hands(await self.reader.read(65536))
        self.writer.write(said)

    async def hear(self) -> bytes:
        """What comes next; empty at the end."""
        while not self.client.has_heard_the_end():
            octets = await self.reader.read(65536)
            text = self.client.open(octets)
            if text or not octets:
                return text
        return b""

    async def ask(self, word: bytes) -> bytes:
        self.writer.write(self.client.seal(word))
        return await self.hear()


Act = Callable[[Visitor], Awaitable[None]]


async def finish(visitor: Visitor) -> None:
    """QUIT, as it should be."""
    await visitor.shake_hands()
    assert await visitor.hear() == b"hello"
    assert await visitor.ask(b"NOOP") == b"NOOP"
    assert await visitor.ask(b"QUIT") == b""
    visitor.writer.write(visitor.client.say_goodbye())
    assert await visitor.reader.read() == b""


async def hurry(visitor: Visitor) -> None:
    """QUIT with the end of TLS and of the stream in one piece."""
    await visitor.shake_hands()
    visitor.writer.write(visitor.client.seal(b"QUIT") + visitor.client.say_goodbye())
    visitor.writer.write_eof()
    assert await visitor.hear() == b"hello"


async def hang_up(visitor: Visitor) -> None:
    await visitor.shake_hands()
    assert await visitor.hear() == b"hello"
    visitor.writer.close()


async def reset(visitor: Visitor) -> None:
    await visitor.shake_hands()
    assert await visitor.hear() == b"hello"
    visitor.writer.transport.abort()


async def tamper(visitor: Visitor) -> None:
    await visitor.shake_hands()
    assert await visitor.hear() == b"hello"
    visitor.writer.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad[ _]record[ _]mac"):
        await visitor.hear()


async def talk_in_clear_text(visitor: Visitor) -> None:
    visitor.writer.write(CLEAR_TEXT)
    assert SECRET.encode() not in await visitor.reader.read()


async def leave_in_the_handshake(visitor: Visitor) -> None:
    visitor.writer.write(visitor.client.shake_hands())
    await visitor.reader.read(1)
    visitor.writer.close()


async def reset_in_the_handshake(visitor: Visitor) -> None:
    visitor.writer.write(visitor.client.shake_hands()[:50])
    await asyncio.sleep(0.01)
    visitor.writer.transport.abort()


async def send_no_more_in_the_handshake(visitor: Visitor) -> None:
    visitor.writer.write(visitor.client.shake_hands()[:50])
    visitor.writer.write_eof()
    assert await visitor.reader.read() == b""


async def say_nothing(visitor: Visitor) -> None:
    assert await visitor.reader.read() == b""


async def distrust(visitor: Visitor) -> None:
    visitor.client = TlsClient(trusting())
    with pytest.raises(ssl.SSLCertVerificationError):
        await visitor.shake_hands()
    visitor.writer.write(visitor.client.outgoing())
    assert await visitor.reader.read() == b""


async def ask_for_a_bug(visitor: Visitor) -> None:
    await visitor.shake_hands()
    assert await visitor.hear() == b"hello"
    assert await visitor.ask(b"BUG") == b"failing"
    assert await visitor.hear() == b""
    visitor.writer.write(visitor.client.say_goodbye())


async def begin_in_clear_text(visitor: Visitor) -> None:
    assert await visitor.reader.read(100) == b"hello"
    visitor.writer.write(b"STARTTLS")
    assert await visitor.reader.readexactly(2) == b"go"


def after_starttls(act: Act) -> Act:
    async def begin(visitor: Visitor) -> None:
        await begin_in_clear_text(visitor)
        await act(visitor)

    begin.__name__ = f"{act.__name__}_after_starttls"
    return begin


async def quit_after_starttls(visitor: Visitor) -> None:
    await begin_in_clear_text(visitor)
    await visitor.shake_hands()
    assert await visitor.ask(b"NOOP") == b"NOOP"
    assert await visitor.ask(b"QUIT") == b""
    visitor.writer.write(visitor.client.say_goodbye())


BROKE = "the connection broke"
SECURE: dict[Act, tuple[str, str | None]] = {
    finish: ("quit", None),
    hurry: ("quit", None),
    hang_up: ("lost", None),
    reset: ("lost", None),
    tamper: ("lost", None),
    talk_in_clear_text: ("tls failed", objection_to(CLEAR_TEXT).replace("_", " ").lower()),
    leave_in_the_handshake: ("tls failed", BROKE),
    reset_in_the_handshake: ("tls failed", BROKE),
    send_no_more_in_the_handshake: ("tls failed", BROKE),
    say_nothing: ("tls failed", "timeout"),
    distrust: ("tls failed", "tlsv1 alert unknown ca"),
    ask_for_a_bug: ("unplanned", None),
}
"""How a session is logged to have ended, and its handshake, if that has failed."""
PLAIN: dict[Act, tuple[str, str | None]] = {
    quit_after_starttls: ("quit", None),
    **{
        after_starttls(act): SECURE[act]
        for act in (
            talk_in_clear_text,
            leave_in_the_handshake,
            reset_in_the_handshake,
            send_no_more_in_the_handshake,
            say_nothing,
            distrust,
        )
    },
}
WAYS = [(act, how, True) for act, how in SECURE.items()] + [
    (act, how, False) for act, how in PLAIN.items()
]


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, authority: Issued) -> Certificates:
    directory: Path = tmp_path_factory.mktemp("certificates")
    return Certificates([write(directory, "mx", issue(HOST, by=authority))])


async def visit(house: House, trust: ssl.SSLContext, act: Act, secure: bool) -> None:
    reader, writer = await asyncio.open_connection(*(house.secure if secure else house.plain))
    try:
        await until(lambda: house.share.held)
        async with asyncio.timeout(PATIENCE):
            await act(Visitor(trust, reader, writer))
            await house.empty()
    finally:
        writer.transport.abort()


def told(events: list[MutableMapping[str, Any]], event: str, field: str) -> list[Any]:
    return [each[field] for each in events if each["event"] == event]


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize(("act", "how", "secure"), WAYS, ids=[act.__name__ for act, _, _ in WAYS])
def test_a_session_that_has_ended_is_logged_and_leaves_nothing(
    certificates: Certificates,
    authority: Issued,
    act: Act,
    how: tuple[str, str | None],
    secure: bool,
) -> None:
    """No place taken, no descriptor, nothing for the collector."""
    share, rounds = Board(1).share(0), 3
    reason, why = how

    async def run() -> None:
        house = House(certificates, 0.2 if why == "timeout" else PATIENCE, share)
        trust = trusting(authority)
        await visit(house, trust, act, secure)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(rounds):
            await visit(house, trust, act, secure)
            for each in events:
                each.pop("exc_info", None)  # has a trace, and so the connection
            assert not [each for each in gc.get_objects() if isinstance(each, Connection)]
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        await house.server.stop(PATIENCE)

    with capture_logs() as events, no_collector():
        uvloop.run(run())
    assert share.held == 0
    assert told(events, "session_closed", "reason") == [reason] * (rounds + 1)
    assert told(events, "tls_failed", "why") == ([why] * (rounds + 1) if why else [])


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("broken", ["at the beginning", "at the end"])
def test_a_bug_in_a_handshake_ends_the_session_and_nothing_else(
    certificates: Certificates, authority: Issued, secure: bool, broken: str
) -> None:
    """Whoever is there hears nothing of it."""
    contexts: HandshakeContexts = (
        BrokenContexts() if broken == "at the beginning" else BrokenNames(certificates)
    )
    share = Board(1).share(0)
    heard = b""

    async def listen(visitor: Visitor) -> None:
        nonlocal heard
        if not secure:
            await begin_in_clear_text(visitor)
        said = visitor.client.shake_hands()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while said and not visitor.client.is_shaken:
                visitor.writer.write(said)
                heard += (octets := await visitor.reader.read(65536))
                said = visitor.client.shake_hands(octets)
            visitor.writer.write(said)
            heard += (octets := await visitor.reader.read())
            heard += visitor.client.open(octets)

    async def run() -> None:
        house = House(contexts, PATIENCE, share)
        await visit(house, trusting(authority), listen, secure)
        await house.server.stop(PATIENCE)

    with capture_logs() as events:
        uvloop.run(run())
    assert SECRET.encode() not in heard
    assert share.held == 0
    assert told(events, "session_closed", "reason") == ["unplanned"]
    assert len(told(events, "unplanned", "event")) == 1


@pytest.mark.parametrize("secure", [False, True])
def test_a_shutdown_in_a_handshake(
    certificates: Certificates, authority: Issued, secure: bool
) -> None:
    """It is the reason, and no fault of the handshake's; nothing more is said in clear text."""
    share = Board(1).share(0)

    async def wait(visitor: Visitor) -> None:
        if not secure:
            await begin_in_clear_text(visitor)
        visitor.writer.write(visitor.client.shake_hands()[:50])
        with contextlib.suppress(ConnectionError):
            assert await visitor.reader.read() == b""

    async def run() -> None:
        house = House(certificates, PATIENCE, share)
        visiting = asyncio.create_task(visit(house, trusting(authority), wait, secure))
        await until(lambda: any(each._in_handshake for each in house.server._connections))
        await house.server.stop(PATIENCE)
        await visiting

    with capture_logs() as events:
        uvloop.run(run())
    assert told(events, "session_closed", "reason") == ["shutdown"]
    assert told(events, "tls_failed", "why") == []


def test_a_shutdown_between_two_commands(certificates: Certificates, authority: Issued) -> None:
    share = Board(1).share(0)

    async def wait(visitor: Visitor) -> None:
        await visitor.shake_hands()
        assert await visitor.hear() == b"hello"
        assert await visitor.hear() == b"421"
        assert await visitor.hear() == b""
        visitor.writer.write(visitor.client.say_goodbye())

    async def run() -> None:
        house = House(certificates, PATIENCE, share)
        visiting = asyncio.create_task(visit(house, trusting(authority), wait, secure=True))
        await until(lambda: any(each._interruptible for each in house.server._connections))
        await house.server.stop(PATIENCE)
        await visiting

    with capture_logs() as events:
        uvloop.run(run())
    assert told(events, "session_closed", "reason") == ["shutdown"]
    assert share.held == 0


def test_a_session_that_is_cancelled_in_its_handshake(
    certificates: Certificates, authority: Issued
) -> None:
    share = Board(1).share(0)

    async def wait(visitor: Visitor) -> None:
        visitor.writer.write(visitor.client.shake_hands()[:50])
        assert await visitor.reader.read() == b""

    async def run() -> None:
        house = House(certificates, PATIENCE, share)
        visiting = asyncio.create_task(visit(house, trusting(authority), wait, secure=True))
        await until(lambda: any(each._in_handshake for each in house.server._connections))
        (connection,) = house.server._connections
        assert connection.task is not None
        connection.task.cancel()
        await visiting
        await house.server.stop(PATIENCE)

    with capture_logs() as events:
        uvloop.run(run())
    assert told(events, "session_closed", "reason") == ["cancelled"]
    assert share.held == 0


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_cannot_be_attached(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    share = Board(1).share(0)

    def fail(connection: Connection, accepted: socket.socket) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(Connection, "attach", fail)

    async def run() -> None:
        house = House(certificates, PATIENCE, share)
        reader, writer = await asyncio.open_connection(*(house.secure if secure else house.plain))
        assert await reader.read() == b""
        writer.close()
        await house.empty()
        await house.server.stop(PATIENCE)

    with capture_logs() as events:
        uvloop.run(run())
    assert told(events, "session_closed", "reason") == ["lost"]
    assert told(events, "session_refused", "reason") == ["no memory"]
    assert share.held == 0
