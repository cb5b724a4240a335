"""Memory: POP3 sessions that are logged in and do nothing."""

from __future__ import annotations

import time

from bench.arena import Arena, Bench
from bench.fetching import Reader
from bench.figures import Better, Row, Series
from bench.processes import memory
from bench.systems.dovecot import AS_IT_COMES, REUSED
from bench.systems.system import System

SESSIONS = 1000
AT_REST = 35
"""Seconds after the last login, and after whatever was measured before: sessions that do nothing do
so for minutes, and servers tidy up meanwhile."""


def run(arena: Arena) -> None:
    """What the sessions take, and what the server takes with them."""
    systems = arena.pop3_hosts([AS_IT_COMES, REUSED])
    taken: dict[str, list[tuple[float, float]]] = {each.name: [] for each in systems}
    time.sleep(AT_REST)
    for _ in range(arena.options.rounds):
        for system in systems:
            taken[system.name].append(_mebibytes(arena, system))
    # A server that keeps processes has them without sessions too, from the second round on.
    more = [
        Series(name, tuple(with_them - some[0][0] for _, with_them in some))
        for name, some in taken.items()
    ]
    whole = [
        Series(name, tuple(with_them for _, with_them in some)) for name, some in taken.items()
    ]
    title = f"memory of {SESSIONS:,} idle POP3 sessions"
    arena.add(Row("idle/1000", f"{title} and their server", "MiB", Better.LESS, whole))
    arena.add(Row("idle/1000-alone", title, "MiB", Better.LESS, more))


def _mebibytes(arena: Arena, system: System) -> tuple[float, float]:
    """Of a server's processes without sessions, and with them; pages they share count once."""
    server = system.components[0]
    without = memory(server)
    with Reader(system, arena.generator).idle(SESSIONS):
        time.sleep(AT_REST)
        return without, memory(server)


BENCHES = (Bench("idle", "memory of idle POP3 sessions", run),)
