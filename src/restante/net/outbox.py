"""What the sessions of a server say in one turn of the event loop is sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FULL = 64 * 1024
"""Octets that wait at the most; as many are sent at once."""

Write = Callable[[bytes], None]


class Outbox:
    """Octets for several peers, until the event loop has dealt with all that came.

    Each write wakes whoever reads it. Where all processors are busy, that one goes first, and a
    server that wrote in between would be interrupted as often as it answers. Whoever speaks twice
    in a row, as one session alone does, waits for nobody: a turn of the loop for it would be lost.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Write, bytes]] = []
        self._size = 0
        self._last: int | None = None
        """Who spoke last, as a hash: it keeps nobody's connection alive, and need not be exact."""

    def put(self, write: Write, data: bytes) -> None:
        """Call ``write`` with ``data`` soon, in the order in which they were put.

        ``write`` stands for its peer. It raises nothing: what it cannot send is its own to drop.
        """
        last, self._last = self._last, hash(write)
        if not self._waiting:
            if last == self._last:
                write(data)
                return
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((write, data))
        self._size += len(data)
        if self._size >= FULL:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        last, self._last = self._last, None  # what anybody says meanwhile comes after these
        for write, data in waiting:
            write(data)
        self._last = last
