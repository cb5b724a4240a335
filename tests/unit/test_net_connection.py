"""A connection's waits: each has its own time, whatever the one before it had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from restante.net.connection import WRITE_HIGH, Connection, PeerTimeout
from tests.support.hearing import hear
from tests.support.passing_time import PassingTime

SHORT, LONG = 300.0, 3600.0
"""Seconds to wait for the peer."""

Serve = Callable[[Connection], Coroutine[Any, Any, None]]


@pytest.fixture
async def passing(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    return PassingTime(monkeypatch)


async def spoken_to(
    serve: Serve, passing: PassingTime, *, pause: float, says: bytes = b"second"
) -> bytes:
    """What a client hears that says one thing at once and another after ``pause`` seconds."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(b"first")
        assert await reader.readexactly(2) == b"ok"
        await passing.until_later(pause)
        writer.write(says)
        async with asyncio.timeout(LONG):
            return await reader.read(-1)
    finally:
        writer.close()
        server.close()


def waits(first: float, second: float) -> Serve:
    async def serve(connection: Connection) -> None:
        assert await hear(connection, first) == b"first"
        connection.send(b"ok")
        try:
            connection.send(await hear(connection, second))
        except PeerTimeout:
            connection.send(b"timeout")

    return serve


async def test_a_short_wait_after_a_long_one_ends_in_time(passing: PassingTime) -> None:
    heard = await spoken_to(waits(LONG, SHORT), passing, pause=2 * SHORT, says=b"")
    assert heard == b"timeout"


async def test_a_long_wait_after_a_short_one_is_not_cut_short(passing: PassingTime) -> None:
    assert await spoken_to(waits(SHORT, LONG), passing, pause=2 * SHORT) == b"second"


async def test_waits_of_equal_length_have_their_whole_time_each(passing: PassingTime) -> None:
    assert await spoken_to(waits(2 * SHORT, 2 * SHORT), passing, pause=SHORT) == b"second"


async def test_a_peer_that_does_not_read_the_end_is_dropped_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("restante.net.connection.CLOSE_TIMEOUT", 0.5)
    much = 64 * WRITE_HIGH  # more than the kernel takes
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        connection.send(bytes(much))
        connection.when_gone(gone.set)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), ""), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(LONG):
            await gone.wait()
        assert len(await reader.read()) < much, "it was given all the time it wanted"
    finally:
        writer.close()
        server.close()


async def test_a_connection_has_no_dictionary_of_its_own() -> None:
    """It would take a quarter of a kibibyte of each session."""
    assert not hasattr(Connection(waits(LONG, LONG), asyncio.Event(), ""), "__dict__")
