"""What the sessions of a server say in one turn of the event loop is sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FULL = 64 * 1024
"""Octets that wait at the most; as many are sent at once."""


class Outbox:
    """Octets for several peers, until the event loop has dealt with all that came.

    Each write wakes whoever reads it. Where all processors are busy, that one goes first, and a
    server that wrote in between would be interrupted as often as it answers.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[bytes], None], bytes]] = []
        self._size = 0

    def put(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Call ``write`` with ``data`` soon, in the order in which they were put.

        ``write`` raises nothing: what it cannot send is its own to drop.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((write, data))
        self._size += len(data)
        if self._size >= FULL:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for write, data in waiting:
            write(data)
