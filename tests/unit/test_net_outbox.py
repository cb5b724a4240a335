"""Octets that wait for the end of a turn of the event loop: in order, few, never left behind."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from restante.net.connection import Connection, PeerLost
from restante.net.outbox import FULL, Outbox
from tests.support.hearing import hear

Serve = Callable[[Connection], Coroutine[Any, Any, None]]


async def turn() -> None:
    """Let the event loop do what is due."""
    await asyncio.sleep(0)


class Peer:
    """Notes what is written to it, in a list that it shares with others."""

    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)


async def test_all_is_written_in_order_when_the_turn_ends() -> None:
    outbox, written = Outbox(), list[bytes]()
    one, other = Peer(written), Peer(written)
    for peer, each in ((one, b"one"), (other, b"two"), (other, b"three")):
        outbox.put(peer, each)
    assert not written
    await turn()
    assert written == [b"one", b"two", b"three"]
    outbox.put(one, b"four")
    assert written[-1] == b"three"
    await turn()
    assert written[-1] == b"four"


async def test_a_peer_that_is_alone_waits_for_nobody() -> None:
    outbox, written = Outbox(), list[bytes]()
    one, other = Peer(written), Peer(written)
    outbox.put(one, b"first")
    await turn()
    outbox.put(one, b"second")
    assert written == [b"first", b"second"]
    outbox.put(other, b"third")
    outbox.put(one, b"fourth")
    outbox.put(one, b"fifth")
    assert written == [b"first", b"second"]
    await turn()
    assert written == [b"first", b"second", b"third", b"fourth", b"fifth"]


async def test_no_peer_is_kept_alive() -> None:
    outbox = Outbox()
    peer = Peer([])
    gone = weakref.ref(peer)
    outbox.put(peer, b"bye")
    await turn()
    del peer
    assert gone() is None


async def test_it_holds_so_much_and_no_more() -> None:
    outbox, written = Outbox(), list[bytes]()
    one, other = Peer(written), Peer(written)
    outbox.put(one, b"first")
    outbox.put(other, bytes(FULL))
    assert written == [b"first", bytes(FULL)]
    outbox.put(one, b"last")
    assert len(written) == 2
    await turn()
    assert written == [b"first", bytes(FULL), b"last"]


async def test_what_is_put_while_it_is_sent_comes_after_it() -> None:
    outbox, written = Outbox(), list[bytes]()

    class Answering(Peer):
        def write(self, data: bytes) -> None:
            super().write(data)
            outbox.put(other, b"more")

    other = Peer(written)
    outbox.put(Answering(written), b"one")
    outbox.put(other, b"two")
    await turn()
    await turn()
    assert written == [b"one", b"two", b"more"]


async def test_the_last_words_of_a_session_precede_its_end() -> None:
    async def serve(connection: Connection) -> None:
        connection.send(b"221 ")
        connection.send(b"bye\r\n")

    assert await heard(serve, Outbox()) == b"221 bye\r\n"
    assert await heard(serve, None) == b"221 bye\r\n"


async def test_words_for_a_connection_that_was_given_up_are_dropped() -> None:
    """And do not keep those of others from being sent."""
    outbox, written = Outbox(), list[bytes]()

    async def serve(connection: Connection) -> None:
        connection.send(b"250 ok\r\n")
        connection.abort()
        outbox.put(Peer(written), b"of another")
        with suppress(PeerLost):
            await hear(connection, 1.0)

    assert await heard(serve, outbox) == b""
    assert written == [b"of another"]


async def heard(serve: Serve, outbox: Outbox | None) -> bytes:
    """What a client hears until the connection is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1", outbox=outbox),
        "127.0.0.1",
        0,
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        return await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        server.close()
