"""Large maildrops: one whole session with STAT, LIST and UIDL, timed.

Cold: nobody has looked at the maildrop yet, so that there is no index, though its files are still
in memory. Warm: somebody has. Disk: no index, and nothing is in memory (as root).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.accounts import maildir_of
from bench.arena import Arena, Bench
from bench.benches.pop3 import acquaint, warming
from bench.fetching import Reader, Sessions
from bench.maildrops import Filling, fill, forget
from bench.rounds import Turns
from bench.systems.dovecot import AS_IT_COMES
from bench.systems.system import System

USER = 1
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Maildrop:
    """One large maildrop, and in which states it is read."""

    name: str
    title: str
    filling: Filling
    states: Sequence[str] = ("cold", "warm")

    def key(self, state: str) -> str:
        """Of the row."""
        return f"listings/{self.name}-{state}"


LARGE = Maildrop("50k", "50,000 messages", Filling(50_000, 1024), ("cold", "warm", "disk"))
UNSIZED = Maildrop(
    "50k-unsized",
    "50,000 messages whose names tell no sizes",
    Filling(50_000, 1024, sized=False),
    ("cold", "warm", "disk"),
)
HUGE = Maildrop("1m", "1,000,000 messages", Filling(1_000_000, 1024, linked=True))


def run(arena: Arena) -> None:
    """Maildrops of 50,000 messages and of a million, in all states."""
    systems = arena.pop3_hosts([AS_IT_COMES])
    for maildrop in (LARGE, UNSIZED) if arena.options.quick else (LARGE, UNSIZED, HUGE):
        wanted = [each for each in maildrop.states if arena.wants(maildrop.key(each))]
        if not wanted:
            continue
        fill(systems[0], [USER], maildrop.filling)
        for state in wanted:
            if state != "disk" or os.geteuid() == 0:
                _measure(arena, systems, maildrop, state)
        fill(systems[0], [USER], Filling(0))


def _measure(arena: Arena, systems: list[System], maildrop: Maildrop, state: str) -> None:
    """Everybody has been there before the rounds begin: Dovecot has moved all out of ``new``.

    Where it is warm, so has each of Restante's workers since then.
    """
    messages = maildrop.filling.messages
    warm_up = messages
    if state == "warm":
        acquaint(arena, systems, Sessions("one", first=USER, messages=messages))
        warm_up *= warming(arena, users=1)
    arena.measure(
        maildrop.key(state),
        f"POP3 session with STAT, LIST and UIDL on {maildrop.title}, {state}",
        [
            arena.entrant(each, _session(arena, each, messages), _preparation(each, state))
            for each in systems
        ],
        Turns(messages, arena.options.rounds, warm_up=warm_up, seconds_for=messages),
        unit="s",
    )


def _session(arena: Arena, system: System, messages: int) -> Callable[[int], float]:
    """Sessions, each of which lists all messages of the maildrop."""
    reader = Reader(system, arena.generator)
    sessions = Sessions("one", first=USER, messages=messages)
    return lambda count: reader.seconds(sessions, count // messages)


def _preparation(system: System, state: str) -> Callable[[], object]:
    maildir = maildir_of(system.mail, USER)
    if state == "warm":
        return lambda: None
    if state == "cold":
        return partial(forget, maildir)
    return partial(_leave_on_disk, maildir)


def _leave_on_disk(maildir: Path) -> None:
    """Neither an index nor anything in the kernel's memory."""
    forget(maildir)
    os.sync()
    DROP_CACHES.write_text("3")


BENCHES = (Bench("listings", "LIST and UIDL on large maildrops", run),)
