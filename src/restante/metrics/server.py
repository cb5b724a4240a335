"""HTTP, as far as a scrape needs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Sequence

from restante.metrics.files import begun
from restante.threads import NoThread, in_thread

MAX_REQUEST = 8192
"""Octets of an HTTP request's head."""
REQUEST_TIMEOUT = 10.0
"""Seconds that a request and its answer may take."""
MAX_SCRAPES = 16
"""Connections at the same time; more are closed at once."""


class MetricsServer:
    """Answers ``GET /metrics`` with the figures of all workers."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._servers: list[asyncio.Server] = []
        self._scrapes: set[asyncio.Task[None]] = set()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on sockets that listen already; raises OSError."""
        for bound in sockets:
            server = await asyncio.start_server(self._accept, sock=bound, limit=MAX_REQUEST)
            self._servers.append(server)

    def accept_no_more(self) -> None:
        """Close the sockets; who is connected may have an answer yet."""
        for server in self._servers:
            server.close()

    async def stop(self) -> None:
        """Close the sockets and the connections."""
        self.accept_no_more()
        for scrape in self._scrapes:
            scrape.cancel()
        await asyncio.gather(*self._scrapes, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._scrapes) >= MAX_SCRAPES:
            writer.close()
            return
        scrape = asyncio.create_task(self._serve(reader, writer))
        self._scrapes.add(scrape)
        scrape.add_done_callback(self._scrapes.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client left, was too slow (TimeoutError), or speaks no HTTP
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found", b"/metrics is all there is.\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"GET is all there is.\n")
        try:
            body = await in_thread(exposition, self._directory)
        except NoThread as error:
            return _response("503 Service Unavailable", f"{error}\n".encode())
        return _response("200 OK", body, head_only=method == b"HEAD")


def exposition(directory: str) -> bytes:
    """The figures of all workers in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, Metric, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> Iterable[Metric]:
            return MultiProcessCollector.merge(begun(directory))  # type: ignore[no-untyped-call, no-any-return]

    registry = CollectorRegistry()
    registry.register(Figures())
    return generate_latest(registry)


def _response(status: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if head_only else body)
