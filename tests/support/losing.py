"""A MySQL server that takes connections and loses what it is asked on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_COMMAND = 0
"""The number of the packet that begins an exchange; answers to it count up from there."""
_LOGGING_IN = b"SET "
"""Commands with which a driver begins, before anything is asked."""


@dataclass
class LosingServer:
    """Before a real server: lets clients log in, and passes nothing on that they ask then."""

    behind: int
    """The port of the real server."""
    closes: bool
    """Whether it ends a connection at the first question, or is silent from there on."""
    port: int = 0
    lost: int = 0
    """Questions so far."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        to_client = asyncio.current_task()
        assert to_client is not None
        self._tasks.add(to_client)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.behind)
        answers = asyncio.create_task(_copy(from_server, writer))
        try:
            await self._pass_on(reader, to_server)
            if not self.closes:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            answers.cancel()
            to_server.close()
            writer.close()
            self._tasks.discard(to_client)

    async def _pass_on(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        """All until the first question."""
        while True:
            header = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(header[:3], "little"))
            if header[3] == _COMMAND and not body[1:].upper().startswith(_LOGGING_IN):
                self.lost += 1
                return
            to_server.write(header + body)

    async def end(self) -> None:
        """No connection is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@contextlib.asynccontextmanager
async def losing_server(behind: int, *, closes: bool) -> AsyncIterator[LosingServer]:
    """One on a free port of its own, before the server on the port ``behind``."""
    losing = LosingServer(behind, closes)
    server = await asyncio.start_server(losing.serve, "127.0.0.1", 0)
    losing.port = server.sockets[0].getsockname()[1]
    try:
        yield losing
    finally:
        server.close()
        await losing.end()
