"""What it costs that mail is written and read by helpers, and not by the workers themselves.

Two instances of root's, alike but for whose the accounts are: the workers' own user's, or
another's.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial

from bench.arena import Arena, Bench
from bench.benches.mailboxes import measure
from bench.benches.pop3 import MAILDROP, acquaint, in_a_round, warming
from bench.fetching import Reader, Sessions
from bench.maildrops import fill
from bench.rounds import Entrant, Turns
from bench.sending import Load
from bench.systems.restante import restante
from bench.systems.system import System

STRANGER = 12345
"""A uid that is not the workers'."""
HELPERS, WORKERS = "by helpers", "by the workers"
USERS = 10
"""Who look for mail."""


def run(arena: Arena) -> None:
    """Deliveries and POP3 sessions."""
    if os.geteuid() != 0:
        print("privileges: left out, as helpers are there only where root starts the server\n")
        return
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
            fill(system, range(1, USERS + 1), MAILDROP)
        acquaint(arena, both, _sessions(USERS))
        for parallel in (10,) if arena.options.quick else (1, 10):
            arena.measure(
                f"privileges/pop3-{parallel}",
                f"POP3 login, STAT, LIST, UIDL, QUIT, {parallel} in parallel",
                [_reading(arena, each, parallel) for each in both],
                Turns(in_a_round(arena), arena.options.rounds, warm_up=warming(arena, USERS)),
                unit="sessions/s",
            )


def _reading(arena: Arena, system: System, parallel: int) -> Entrant:
    work = partial(Reader(system, arena.generator).seconds, _sessions(parallel))
    return arena.entrant(system, work)


def _sessions(parallel: int) -> Sessions:
    return Sessions("session", parallel, USERS, messages=MAILDROP.messages)


BENCHES = (Bench("privileges", "what helpers cost (as root)", run),)
