"""To another host: accepted, queued, sent on, and forgotten. smtp-sink takes everything.

A round is over when the log says of every message that it has left the queue. Over TLS it is
generators/smtpsink.c that takes everything; messages come in clear text there too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.arena import Arena, Bench
from bench.programs import generator, program
from bench.rounds import Turns
from bench.sending import PATIENCE, Load, LostError, Sender
from bench.systems.postfix import DIRECT, postfix
from bench.systems.restante import restante
from bench.systems.system import LOOPBACK, System, wait_for_greeting
from restante.tls.certificate import PairFiles
from tests.support.ports import free_port

CONNECTIONS = (1, 50)
"""In which messages come, and at the most in which they go."""
RECIPIENT = "user@example.net"
FINISHED = {"restante": b"event=message_finished", "postfix": b": removed\n"}
"""What the log says when a message has left the queue."""
POSTFIX_TLS = {
    "smtp_tls_security_level": "may",
    "smtp_tls_session_cache_database": "btree:${data_directory}/smtp_scache",
    "smtp_tls_connection_reuse": "yes",
}
"""As Debian's main.cf has it; and connections over TLS are kept, as those in clear text are."""
_LOOK = 0.002
"""Seconds between two looks at the log."""


def run(arena: Arena) -> None:
    """One connection, and many."""
    with _sink(arena, _smtp_sink) as port:
        for connections in CONNECTIONS:
            _row(arena, Way(port, connections))


def run_tls(arena: Arena) -> None:
    """Many, each of which begins with STARTTLS."""
    pair = arena.certificate
    with _sink(arena, partial(_smtpsink, pair)) as port:
        _row(arena, Way(port, CONNECTIONS[-1], tls=True))


@dataclass(frozen=True, slots=True)
class Way:
    """To whom, and how."""

    port: int
    connections: int
    tls: bool = False

    @property
    def key(self) -> str:
        return f"relay{'-tls' * self.tls}/{self.connections}"

    @property
    def title(self) -> str:
        many = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"4 KiB to another host{' over TLS' * self.tls}, {many}"


def _row(arena: Arena, way: Way) -> None:
    if not arena.wants(way.key):
        return
    with ExitStack() as stack:
        systems = [stack.enter_context(each) for each in _systems(arena, way)]
        messages = arena.options.messages_by(way.connections)
        load = Load(way.connections, kept=True)
        sampled = way.connections > 1
        arena.measure(
            way.key,
            way.title,
            [arena.entrant(each, _work(arena, each, load)) for each in systems],
            Turns(
                messages, arena.options.rounds, warm_up=messages // 5, memory=sampled, calls=sampled
            ),
            unit="messages/s",
        )


def _systems(arena: Arena, way: Way) -> Iterator[contextlib.AbstractContextManager[System]]:
    workers = min(way.connections, arena.options.workers)
    yield restante(
        arena.components,
        arena.directory("relay"),
        arena.accounts,
        arena.database,
        workers=workers,
        settings={
            "RESTANTE_ROUTING__SMTPROUTES": json.dumps({"": f"[{LOOPBACK}]:{way.port}"}),
            "RESTANTE_RECEIVER__RELAY_NETWORKS": json.dumps(["127.0.0.0/8"]),
            "RESTANTE_RELAY__CONCURRENCY_PER_DESTINATION": str(way.connections // workers),
        },
    )
    if arena.database and "postfix" in arena.options.against:
        settings = {
            "relayhost": f"[{LOOPBACK}]:{way.port}",
            "default_destination_concurrency_limit": str(way.connections),
            **(POSTFIX_TLS if way.tls else {}),
        }
        directory = arena.directory("relay-postfix")
        yield postfix(arena.components, directory, arena.database, DIRECT, settings)


def _work(arena: Arena, system: System, load: Load) -> Callable[[int], float]:
    return partial(_send, Sender(system, arena.generator), load)


def _send(sender: Sender, load: Load, messages: int) -> float:
    """Seconds until all have left the queue; raises LostError."""
    system = sender.system
    gone = Finished(system.log, FINISHED[system.name.partition(" ")[0]])
    began = time.monotonic()
    sender.source([*load.options(messages), "-t", RECIPIENT])
    while gone.count() < messages:
        if time.monotonic() > began + PATIENCE:
            raise LostError(f"{gone.count()} of {messages} messages have left the queue")
        time.sleep(_LOOK)
    return time.monotonic() - began


@dataclass
class Finished:
    """Counts the lines of a log from now on that have a word; each is read once."""

    log: Path
    word: bytes
    _seen: int = 0

    def __post_init__(self) -> None:
        self._position = self.log.stat().st_size

    def count(self) -> int:
        """How many there are so far."""
        with self.log.open("rb") as lines:
            lines.seek(self._position)
            whole, end, _ = lines.read().rpartition(b"\n")
        self._position += len(whole) + len(end)
        self._seen += (whole + end).count(self.word)
        return self._seen


@contextmanager
def _sink(arena: Arena, command: Callable[[int], list[str]]) -> Iterator[int]:
    """A host that takes everything; its port."""
    port = free_port()
    process = subprocess.Popen([*arena.generator.prefix, *command(port)])
    try:
        arena.generator.adopt(process.pid)
        wait_for_greeting(port, b"220", arena.scratch / "no-log")
        yield port
    finally:
        process.terminate()
        process.wait()


def _smtp_sink(port: int) -> list[str]:
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    return [program("smtp-sink"), *user, f"{LOOPBACK}:{port}", "1000"]


def _smtpsink(pair: PairFiles, port: int) -> list[str]:
    files = [f"--certificate={pair.certificate}", f"--key={pair.key}"]
    return [generator("smtpsink"), f"--port={port}", *files]


BENCHES = (
    Bench("relay", "4 KiB through the queue to another host", run),
    Bench("relay-tls", "the same over STARTTLS", run_tls),
)
