"""Sessions of POP3: each has its turns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from restante.auth.login import PasswordAuthenticator
from restante.config.tree import Auth, Pop3
from restante.directory import Account
from restante.net.connection import Connection
from restante.net.pop3 import Pop3Service
from restante.protocol.pop3.server import FLUSH_AT
from tests.support.deaf import flood
from tests.support.guards import Unguarded
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.memory_store import MemoryDrop, MemoryStore

ANN = account("ann")
LOGIN = b"USER ann\r\nPASS secret\r\n"
MESSAGES = 5000
FLOODS = 20
PATIENCE = 30
NO_TIME = 0.001
"""Seconds for a login: over before half of a megabyte is answered."""
ENOUGH_TIME = 2.0
"""Seconds in which one is begun, on whatever machine."""


async def test_a_flood_of_commands_leaves_others_their_turn() -> None:
    turns, while_it_lasted, store = 0, 0, MemoryStore()
    for number in range(MESSAGES):
        store.add(ANN, f"u{number}", b"Subject: x\n")
    authenticator = PasswordAuthenticator(
        MemoryDirectory(Tables(mailbox=[ANN], passwords={"ann": ("secret", "Password")})),
        Auth(),
        Unguarded(),
    )
    service = Pop3Service(Pop3(), "pop.example.com", Auth(), authenticator, store, handshakes=None)

    async def serve(connection: Connection) -> None:
        nonlocal while_it_lasted
        await service.serve(connection, "session")
        while_it_lasted = turns

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(LOGIN)
        for _ in range(3):
            await reader.readline()
        writer.write(b"LIST\r\n" * (FLOODS * FLUSH_AT // (5 * MESSAGES)) + b"QUIT\r\n")
        counting = asyncio.create_task(others())
        listed = await reader.read(-1)
        counting.cancel()
    finally:
        writer.close()
        server.close()
        await authenticator.close()
    assert len(listed) > FLOODS * FLUSH_AT
    assert while_it_lasted > FLOODS


async def test_whoever_never_lets_a_session_wait_has_no_more_time_for_a_login() -> None:
    reasons: list[str] = []
    authenticator = PasswordAuthenticator(MemoryDirectory(Tables()), Auth(), Unguarded())
    service = Pop3Service(
        Pop3(login_timeout=NO_TIME), "pop.example.com", Auth(), authenticator, MemoryStore(), None
    )

    async def serve(connection: Connection) -> None:
        reasons.append(await service.serve(connection, "session"))

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write((b"USER " + b"x" * 100 + b"\r\n") * 10_000 + b"QUIT\r\n")
        with contextlib.suppress(ConnectionError):
            while await reader.read(2**16):
                pass
    finally:
        writer.close()
        server.close()
        await authenticator.close()
    assert reasons == ["timeout"]


@pytest.mark.parametrize("has_logged_in", [False, True])
async def test_whoever_reads_nothing_has_no_more_time_for_a_login(has_logged_in: bool) -> None:
    """A session that is logged in has the time that each wait has."""
    reasons: list[str] = []
    authenticator = PasswordAuthenticator(
        MemoryDirectory(Tables(mailbox=[ANN], passwords={"ann": ("secret", "Password")})),
        Auth(),
        Unguarded(),
    )
    timeout = 1.5 if has_logged_in else PATIENCE
    settings = Pop3(login_timeout=1, timeout=timeout)
    service = Pop3Service(settings, "pop.example.com", Auth(), authenticator, MemoryStore(), None)
    loop = asyncio.get_running_loop()
    lasted = 0.0

    async def serve(connection: Connection) -> None:
        nonlocal lasted
        began = loop.time()
        reasons.append(await service.serve(connection, "session"))
        lasted = loop.time() - began

    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    try:
        async with asyncio.timeout(PATIENCE / 2):
            port = server.sockets[0].getsockname()[1]
            await flood(port, b"CAPA\r\n" * 4096, LOGIN if has_logged_in else b"")
    finally:
        server.close()
        await authenticator.close()
    assert reasons == ["timeout"]
    assert (lasted >= timeout) is has_logged_in


class SlowStore(MemoryStore):
    """Opens a maildrop when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def open(self, account: Account) -> MemoryDrop:
        self.is_asked.set()
        await self.may_go_on.wait()
        return await super().open(account)


@contextlib.asynccontextmanager
async def logging_in(
    store: SlowStore, reason: asyncio.Future[str], login_timeout: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client whose maildrop is being opened; why its session will have ended."""
    authenticator = PasswordAuthenticator(
        MemoryDirectory(Tables(mailbox=[ANN], passwords={"ann": ("secret", "Password")})),
        Auth(),
        Unguarded(),
    )
    settings = Pop3(login_timeout=login_timeout)
    service = Pop3Service(settings, "pop.example.com", Auth(), authenticator, store, None)

    async def serve(connection: Connection) -> None:
        reason.set_result(await service.serve(connection, "session"))

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(LOGIN)
            await store.is_asked.wait()
            yield reader, writer
    finally:
        writer.close()
        server.close()
        await authenticator.close()


@pytest.mark.parametrize(
    ("is_broken", "login_timeout"),
    [
        pytest.param(True, 2 * PATIENCE, id="at once"),
        pytest.param(False, 1, id="who only sends no more may wait for an answer"),
    ],
)
async def test_a_client_that_goes_while_its_maildrop_is_opened(
    is_broken: bool, login_timeout: float
) -> None:
    store, reason = SlowStore(), asyncio.get_running_loop().create_future()
    async with logging_in(store, reason, login_timeout) as (_, writer):
        if is_broken:
            at_once = struct.pack("ii", 1, 0)
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()
        assert await reason == "lost"
    store.may_go_on.set()
    await asyncio.sleep(0)
    assert not store.in_use


async def test_a_client_that_sends_no_more_is_answered() -> None:
    store, reason = SlowStore(), asyncio.get_running_loop().create_future()
    async with logging_in(store, reason, PATIENCE) as (reader, writer):
        writer.write(b"QUIT\r\n")
        writer.write_eof()
        await asyncio.sleep(0.01)
        store.may_go_on.set()
        lines = [await reader.readline() for _ in range(4)]
        assert [each[:3] for each in lines] == [b"+OK"] * 4
        assert await reason == "quit"


async def test_a_client_that_waits_is_waited_for() -> None:
    store, reason = SlowStore(), asyncio.get_running_loop().create_future()
    async with logging_in(store, reason, ENOUGH_TIME) as (reader, writer):
        await asyncio.sleep(1.1 * ENOUGH_TIME)
        store.may_go_on.set()
        lines = [await reader.readline() for _ in range(3)]
        assert [each[:3] for each in lines] == [b"+OK"] * 3
        writer.write(b"QUIT\r\n")
        assert await reason == "quit"
