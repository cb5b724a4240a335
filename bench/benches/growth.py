"""How cost grows: the same work with more workers, more mailboxes, more connections."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from bench.accounts import NUMBERED, Accounts
from bench.arena import Arena, Bench
from bench.benches.mailboxes import entrant, measure
from bench.rounds import Turns
from bench.sending import Load, Sender
from bench.systems.restante import restante
from bench.systems.system import LOOPBACK, System

LOAD = Load(50)
MAILBOXES = (10, 100_000)
SOURCES = 10
"""As many smtp-source at a time, each to one mailbox, or to very many."""
CONNECTIONS, QUICK_CONNECTIONS = 10_000, 1_000
"""That are open and do nothing."""
_FROM_ONE_ADDRESS = 200
"""Connections; a server's limit for one address is not what is measured."""
_SPARE = 1000
"""Descriptors for everything else."""


def run(arena: Arena) -> None:
    """One thing grows at a time."""
    for key, work in _ROWS.items():
        if arena.wants(key):
            work(arena)


def _workers(arena: Arena) -> None:
    counts = [1]
    while counts[-1] * 2 <= (os.cpu_count() or 1):
        counts.append(counts[-1] * 2)
    if len(counts) == 1:
        return
    with ExitStack() as stack:
        systems = [
            stack.enter_context(_named(arena, _many(count, "worker"), workers=count))
            for count in counts
        ]
        measure(arena, systems, LOAD, row="growth/workers-4k-50")


def _mailboxes(arena: Arena) -> None:
    messages = arena.options.messages_by(LOAD.sessions)
    with ExitStack() as stack:
        entrants = []
        for count in MAILBOXES:
            name = _many(count, "mailbox", "mailboxes")
            system = stack.enter_context(_named(arena, name, accounts=Accounts(count)))
            sender = Sender(system, arena.generator)
            aims = MANY if max(MANY.mailboxes(messages // SOURCES)) <= count else FEW
            work: Callable[[int], float] = partial(_send_from_all, sender, aims)
            used = aims.mailboxes(messages // SOURCES)
            entrants.append(arena.entrant(system, work, partial(sender.prepare, used)))
        arena.measure(
            "growth/mailboxes",
            "4 KiB into mailboxes, 50 sessions, of few or many accounts",
            entrants,
            Turns(messages, arena.options.rounds, warm_up=messages),
            unit="messages/s",
        )


def _connections(arena: Arena) -> None:
    idle = QUICK_CONNECTIONS if arena.options.quick else CONNECTIONS
    messages = arena.options.messages_by(LOAD.sessions)
    with (
        _named(arena, "no others") as quiet,
        _named(arena, f"{idle:,} idle") as busy,
        closing(_Idle(busy.smtp_port, idle)) as others,
    ):
        alone, beside = (entrant(arena, each, LOAD, messages) for each in (quiet, busy))

        def prepare() -> None:
            beside.prepare()
            others.renew()

        arena.measure(
            "growth/connections",
            "4 KiB into mailboxes, 50 sessions, beside idle SMTP connections",
            [alone, replace(beside, prepare=prepare)],
            Turns(messages, arena.options.rounds, warm_up=messages, memory=True),
            unit="messages/s",
        )


@contextmanager
def _named(
    arena: Arena, name: str, *, workers: int | None = None, accounts: Accounts | None = None
) -> Iterator[System]:
    with restante(
        arena.components,
        arena.directory("growth"),
        accounts or arena.accounts,
        arena.database,
        workers=workers or arena.options.workers,
        name=name,
    ) as system:
        yield system


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


@dataclass(frozen=True, slots=True)
class Aims:
    """Whom the sources send to: a local part for each, and whether it is numbered."""

    names: Sequence[str]
    numbered: bool

    def mailboxes(self, each: int) -> Sequence[int]:
        """Where the messages are if every source sends so many, with the number on either side."""
        if not self.numbered:
            return [int(name) for name in self.names]
        pairs = itertools.product(self.names, map(str, range(each + 1)))
        return sorted({int(text) for name, n in pairs for text in (name + n, n + name)})


FEW = Aims([str(number) for number in range(1, SOURCES + 1)], numbered=False)
MANY = Aims(["", *(str(number) for number in range(1, SOURCES))], numbered=True)


def _send_from_all(sender: Sender, aims: Aims, messages: int) -> float:
    """Seconds until the messages of all sources are in their mailboxes; raises LostError."""
    each = messages // SOURCES
    load = Load(LOAD.sessions // SOURCES)
    counting = ["-N"] if aims.numbered else []
    watched = aims.mailboxes(each)
    with sender.arrivals(watched, each * SOURCES) as last, ThreadPoolExecutor(SOURCES) as pool:
        began = time.monotonic()
        jobs = [
            pool.submit(sender.source, [*counting, *load.options(each), "-t", name + NUMBERED])
            for name in aims.names
        ]
        for job in jobs:
            job.result()
        seconds = max(time.monotonic(), last()) - began
    sender.check(watched, each * SOURCES, load.octets)
    return seconds


class _Idle:
    """Connections to a server on which a session has said EHLO, and no more."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._stack = ExitStack()

    def renew(self) -> None:
        """Open all anew: a server hangs up on those that say nothing for too long."""
        self.close()
        _allow(self._count + _SPARE)
        addresses = (f"127.0.{1 + n // 250}.{1 + n % 250}" for n in itertools.count())
        for start in range(0, self._count, _FROM_ONE_ADDRESS):
            address = next(addresses)
            for _ in range(min(_FROM_ONE_ADDRESS, self._count - start)):
                self._stack.enter_context(_greeted(self._port, address))

    def close(self) -> None:
        """All of them."""
        self._stack.close()


def _greeted(port: int, source: str) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, port), 60, (source, 0))
    assert connection.recv(512).startswith(b"220")
    connection.sendall(b"EHLO idle.example\r\n")
    assert connection.recv(2048).startswith(b"250")
    return connection


def _allow(descriptors: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, max(hard, descriptors)))


_ROWS: Mapping[str, Callable[[Arena], None]] = {
    "growth/workers-4k-50": _workers,
    "growth/mailboxes": _mailboxes,
    "growth/connections": _connections,
}
BENCHES = (Bench("growth", "with more workers, mailboxes, connections", run),)
