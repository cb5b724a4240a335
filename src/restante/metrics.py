"""Figures for Prometheus: counted where the mail log tells of an event, served over HTTP.

Every worker keeps its figures in files under one directory that are its slot's, mapped into
memory, and goes on with the counters of who had the slot before; whichever worker is asked
adds up the files of all. prometheus-client is imported by a worker that counts and by nobody
else: it looks at its environment when it is imported.

The supervisor calls ``prepare`` once before the first fork and ``forget`` for every
worker that ended; a worker gives ``maillog.measure_with`` a ``PrometheusMeter`` and
runs a ``MetricsServer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import socket
from collections.abc import Iterable, Sequence

from restante.btrfs import change_in_place
from restante.threads import NoThread, in_thread

MAX_REQUEST = 8192
"""Octets of an HTTP request's head."""
REQUEST_TIMEOUT = 10.0
"""Seconds that a request and its answer may take."""
MAX_SCRAPES = 16
"""Connections at the same time; more are closed at once."""
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the directory of all processes' figures."""
ROOM = 64 * 1024
"""Octets of a file of figures; prometheus-client begins one with as many."""
_FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemin")
"""How prometheus-client calls a process's files, before ``_SLOT.db``."""
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Meter:
    """What is counted; this one counts nothing, at the cost of a call."""

    def session_opened(self, service: str) -> None:
        """A connection began."""

    def session_refused(self, service: str) -> None:
        """A connection was turned away at once."""

    def session_closed(self, service: str, seconds: float) -> None:
        """A connection ended after so long."""

    def refused(self, command: str, code: int) -> None:
        """``mail``, ``rcpt``, or the content (``data``) was answered with a failure."""

    def message_accepted(self, how: str, size: int, seconds: float) -> None:
        """A message of so many octets was acknowledged, that long after its end came."""

    def attempted(self, outcome: str) -> None:
        """A recipient has the message (``delivered``), is tried again later (``deferred``) or is
        given up (``failed``)."""

    def bounced(self) -> None:
        """A report of a failure was queued."""

    def waiting(self, change: int) -> None:
        """So many more messages wait in this worker's queues, or fewer."""

    def relay_connection(self, result: str) -> None:
        """A connection to another host was made (``good``), or what came in its place."""

    def login(self, service: str, result: str) -> None:
        """Somebody logged in (``good``) or was refused (the reason)."""

    def database(self, *, up: bool) -> None:
        """The database answers, or does not."""

    def unplanned(self) -> None:
        """A bug showed itself."""


class PrometheusMeter(Meter):
    """Counts in files under ``directory``; names and meanings stand in docs/log.md."""

    def __init__(self, directory: str, slot: int) -> None:
        """``slot``: no other process that runs has it. Raises OSError where there is no room for
        the files."""
        _reserve(directory, slot)
        os.environ[DIRECTORY_VARIABLE] = directory
        from prometheus_client import Counter, Gauge, Histogram, values

        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"restante_{name}", text, labels, registry=None)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"restante_{name}", text, labels, registry=None, buckets=_SECONDS)

        self._opened = counter("sessions", "Connections served.", "service")
        self._turned_away = counter("sessions_refused", "Connections turned away.", "service")
        self._open = Gauge(
            "restante_sessions_open",
            "Connections now.",
            ("service",),
            registry=None,
            multiprocess_mode="livesum",
        )
        self._session_seconds = histogram(
            "session_seconds", "How long connections lasted.", "service"
        )
        self._refused = counter("refused", "Failures answered to senders.", "command", "code")
        self._accepted = counter("messages_accepted", "Messages acknowledged.", "how")
        self._octets = counter("octets_accepted", "Octets of acknowledged messages.")
        self._accept_seconds = histogram(
            "accept_seconds", "From the end of a message to its acknowledgement.", "how"
        )
        self._outcomes = counter(
            "recipients", "Recipients by what became of an attempt.", "outcome"
        )
        self._bounces = counter("bounces", "Reports queued for senders.")
        self._waiting = Gauge(
            "restante_queue_messages",
            "Messages that wait.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._relayed = counter("relay_connections", "Connections to other hosts.", "result")
        self._logins = counter("logins", "Attempts to log in.", "service", "result")
        self._database = Gauge(
            "restante_database_up",
            "1 if the database answered every worker's last question, else 0.",
            registry=None,
            multiprocess_mode="livemin",
        )
        self._bugs = counter("unplanned", "Exceptions that nobody foresaw.")
        self._database.set(1)

    def session_opened(self, service: str) -> None:
        self._opened.labels(service).inc()
        self._open.labels(service).inc()

    def session_refused(self, service: str) -> None:
        self._turned_away.labels(service).inc()

    def session_closed(self, service: str, seconds: float) -> None:
        self._open.labels(service).dec()
        self._session_seconds.labels(service).observe(seconds)

    def refused(self, command: str, code: int) -> None:
        self._refused.labels(command, str(code)).inc()

    def message_accepted(self, how: str, size: int, seconds: float) -> None:
        self._accepted.labels(how).inc()
        self._octets.inc(size)
        self._accept_seconds.labels(how).observe(seconds)
        if how == "queued":
            self._waiting.inc()

    def attempted(self, outcome: str) -> None:
        self._outcomes.labels(outcome).inc()

    def bounced(self) -> None:
        self._bounces.inc()

    def waiting(self, change: int) -> None:
        self._waiting.inc(change)

    def relay_connection(self, result: str) -> None:
        self._relayed.labels(result).inc()

    def login(self, service: str, result: str) -> None:
        self._logins.labels(service, result).inc()

    def database(self, *, up: bool) -> None:
        self._database.set(1 if up else 0)

    def unplanned(self) -> None:
        self._bugs.inc()


# The supervisor's part


def figures_directory(instance: str) -> str:
    """Where the figures of an instance lie."""
    return os.path.join(instance, "run", "metrics")


def prepare(directory: str) -> None:
    """An empty directory for the figures; raises OSError. Counters start at 0."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for path in glob.glob(os.path.join(glob.escape(directory), "*.db")):
        os.unlink(path)


def forget(directory: str, slot: int) -> None:
    """A worker ended: what it counted stays, what it had open (sessions, messages) does not."""
    for path in glob.glob(os.path.join(glob.escape(directory), f"gauge_live*_{slot}.db")):
        with contextlib.suppress(OSError):
            os.unlink(path)


# The worker's part


def _reserve(directory: str, slot: int) -> None:
    """All room that this process's files take; raises OSError where the disk does not have it.

    They are mapped into memory: a process that writes where the disk had no room would be killed
    (SIGBUS).
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    forget(directory, slot)
    paths = [os.path.join(directory, f"{name}_{slot}.db") for name in _FILES]
    new = [path for path in paths if not os.path.exists(path)]
    try:
        for path in paths:
            with open(path, "ab") as file:
                change_in_place(file.fileno())
                os.posix_fallocate(file.fileno(), 0, ROOM)
    except OSError:
        for path in new:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


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
            return MultiProcessCollector.merge(_begun(directory))  # type: ignore[no-untyped-call, no-any-return]

    registry = CollectorRegistry()
    registry.register(Figures())
    return generate_latest(registry)


def _begun(directory: str) -> list[str]:
    """The files of figures, but for those that a worker has just made and not yet given a size."""
    begun: list[str] = []
    for path in glob.glob(os.path.join(glob.escape(directory), "*.db")):
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
            if os.path.getsize(path):
                begun.append(path)
    return begun


def _response(status: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if head_only else body)
