"""What it costs that mail is written and read by helpers, and not by the workers themselves.

Two instances of root's, alike but for whose the accounts are: the workers' own user's, or
another's.
"""

from __future__ import annotations

import os
import poplib
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial

from bench.accounts import PASSWORD, address_of
from bench.arena import Arena, Bench
from bench.benches.mailboxes import measure
from bench.programs import MissingError
from bench.rounds import Turns
from bench.sending import Load, Sender
from bench.systems.restante import restante
from bench.systems.system import LOOPBACK, System

STRANGER = 12345
"""A uid that is not the workers'."""
HELPERS, WORKERS = "by helpers", "by the workers"
MAILDROP = 100
"""Messages in each of the maildrops that are read."""
SESSIONS = 200


def run(arena: Arena) -> None:
    """Deliveries and POP3 sessions; raises MissingError."""
    if os.geteuid() != 0:
        raise MissingError("privileges: helpers are there only where root starts the server")
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                restante(
                    arena.components,
                    arena.directory("privileges"),
                    arena.accounts,
                    arena.database,
                    workers=arena.options.workers,
                    name=name,
                    uid=uid,
                )
            )
            for name, uid in ((HELPERS, STRANGER), (WORKERS, None))
        ]
        for sessions in (50,) if arena.options.quick else (1, 10, 50):
            measure(arena, both, Load(sessions), row=f"privileges/4k-{sessions}")
        for system in both:
            fill(arena, system)
        for parallel in (10,) if arena.options.quick else (1, 10):
            arena.measure(
                f"privileges/pop3-{parallel}",
                f"POP3 login, STAT, LIST, UIDL, QUIT, {parallel} in parallel",
                [arena.entrant(each, _reading(each, parallel)) for each in both],
                Turns(SESSIONS, arena.options.rounds, warm_up=parallel),
                unit="sessions/s",
            )


def fill(arena: Arena, system: System) -> None:
    """A maildrop for each of the first ten."""
    sender = Sender(system, arena.generator)
    sender.prepare(10)
    for number in range(1, 11):
        options = ["-s", "10", "-m", str(MAILDROP), "-l", "4096", "-t", address_of(number)]
        sender.source(["-d", *options])


def _reading(system: System, parallel: int) -> Callable[[int], float]:
    return partial(_read_all, system.pop3_port, parallel)


def _read_all(port: int, parallel: int, sessions: int) -> float:
    """All sessions of a round, every process with a user of its own."""
    with ProcessPoolExecutor(parallel) as pool:
        began = time.monotonic()
        jobs = [
            pool.submit(_read, port, address_of(number), sessions // parallel)
            for number in range(1, parallel + 1)
        ]
        for job in jobs:
            job.result()
        return time.monotonic() - began


def _read(port: int, user: str, sessions: int) -> None:
    """Sessions one after another, as a client that looks for new mail."""
    for _ in range(sessions):
        session = poplib.POP3(LOOPBACK, port)
        session.user(user)
        session.pass_(PASSWORD)
        session.stat()
        session.list()
        session.uidl()
        session.quit()


BENCHES = (Bench("privileges", "what helpers cost (as root)", run),)
