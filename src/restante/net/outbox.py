"""What the sessions of a server say in one turn of the event loop is sent together."""

from __future__ import annotations

import asyncio
from typing import Protocol

FULL = 64 * 1024
"""Octets that wait at the most; as many are sent at once."""


class Peer(Protocol):
    """Who is written to."""

    def write(self, data: bytes) -> None:
        """Raises nothing: what cannot be sent is dropped."""
        ...


class Outbox:
    """Octets for several peers, until the event loop has dealt with all that came.

    Each write wakes whoever reads it. Where all processors are busy, that one goes first, and a
    server that wrote in between would be interrupted as often as it answers. Whoever speaks twice
    in a row, as one session alone does, waits for nobody: a turn of the loop for it would be lost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Peer, bytes]] = []
        self._size = 0
        self._last: int | None = None
        """Who was spoken to last, by its id: that keeps nobody alive, and need not be exact."""

    def put(self, peer: Peer, data: bytes) -> None:
        """Write ``data`` to ``peer`` soon, in the order in which they were put."""
        last, self._last = self._last, id(peer)
        if not self._waiting:
            if last == self._last:
                peer.write(data)
                return
            self._loop.call_soon(self.flush)
        self._waiting.append((peer, data))
        self._size += len(data)
        if self._size >= FULL:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        last, self._last = self._last, None  # what anybody says meanwhile comes after these
        for peer, data in waiting:
            peer.write(data)
        self._last = last
