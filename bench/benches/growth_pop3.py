"""How the cost of POP3 sessions grows: with workers, mailboxes, and sessions that do nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bench.accounts import Accounts
from bench.arena import Arena, Bench
from bench.benches.pop3 import MAILDROP, acquaint, in_a_round, warming
from bench.fetching import Reader, Sessions
from bench.maildrops import fill
from bench.rounds import Turns
from bench.systems.restante import restante
from bench.systems.system import System

USERS = 10
"""Who look for mail, all at the same time."""
MAILBOXES = (10, 100_000)
IDLE, QUICK_IDLE = 10_000, 1_000
"""Others who are logged in and do nothing."""


def run(arena: Arena) -> None:
    """One thing grows at a time."""
    _workers(arena)
    _mailboxes(arena)
    _sessions(arena)


def _workers(arena: Arena) -> None:
    cores = os.cpu_count() or 1
    counts = [count for count in (1, 2, 4, 8, 16) if count <= cores]
    with ExitStack() as stack:
        systems = [_system(arena, stack, _many(count, "worker"), workers=count) for count in counts]
        _measure(arena, "workers", "by the number of workers", systems)


def _mailboxes(arena: Arena) -> None:
    with ExitStack() as stack:
        systems = [
            _system(arena, stack, f"{count:,} mailboxes", Accounts(count)) for count in MAILBOXES
        ]
        _measure(arena, "mailboxes", "by the number of mailboxes", systems)


def _sessions(arena: Arena) -> None:
    idle = QUICK_IDLE if arena.options.quick else IDLE
    accounts = Accounts(USERS + idle)
    with ExitStack() as stack:
        alone = _system(arena, stack, "no others", accounts)
        beside = _system(arena, stack, f"{idle:,} idle", accounts)
        stack.enter_context(Reader(beside, arena.generator).idle(idle, first=USERS + 1))
        _measure(arena, "sessions", "beside idle sessions", [alone, beside], memory=True)


def _system(
    arena: Arena, stack: ExitStack, name: str, accounts: Accounts | None = None, workers: int = 0
) -> System:
    """Restante, with full maildrops for those who look for mail."""
    system = stack.enter_context(
        restante(
            arena.components,
            arena.directory("growth"),
            accounts or arena.accounts,
            arena.database,
            workers=workers or arena.options.workers,
            name=name,
        )
    )
    fill(system, range(1, USERS + 1), MAILDROP)
    return system


def _measure(
    arena: Arena, key: str, title: str, systems: Sequence[System], *, memory: bool = False
) -> None:
    sessions = Sessions("session", USERS, USERS, messages=MAILDROP.messages)
    acquaint(arena, systems, sessions)
    arena.measure(
        f"growth-pop3/{key}",
        f"POP3 login, STAT, LIST, UIDL, QUIT, 100 messages, {USERS} in parallel, {title}",
        [
            arena.entrant(each, partial(Reader(each, arena.generator).seconds, sessions))
            for each in systems
        ],
        Turns(
            in_a_round(arena),
            arena.options.rounds,
            warm_up=warming(arena, USERS),
            memory=memory,
        ),
        unit="sessions/s",
    )


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


BENCHES = (Bench("growth-pop3", "the same for POP3 sessions", run),)
