"""From acceptance into the mailbox: each message to a mailbox of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from bench.accounts import recipients
from bench.arena import Arena, Bench
from bench.rounds import Entrant, Turns
from bench.sending import Load, Sender
from bench.systems.system import System

SESSIONS = (1, 10, 50, 100)
SIZES = (4, 64)
"""KiB."""
SAMPLED = (Load(10), Load(50))
"""Where memory is looked at and system calls are counted."""
QUICK = (
    *(Load(sessions) for sessions in (1, 10, 50)),
    Load(50, kept=True),
    Load(10, 64 * 1024),
)


def run(arena: Arena) -> None:
    """All sizes and numbers of sessions."""
    systems = arena.mail_hosts()
    every = itertools.product((False, True), SIZES, SESSIONS)
    loads = [Load(sessions, size * 1024, kept) for kept, size, sessions in every]
    for load in QUICK if arena.options.quick else loads:
        measure(arena, systems, load, sampled=load in SAMPLED)


def measure(
    arena: Arena,
    systems: Sequence[System],
    load: Load,
    *,
    row: str = "",
    sampled: bool = False,
) -> None:
    """One row, of this bench or, with a key of its own, of another."""
    size = load.octets // 1024
    messages = arena.options.messages_by(load.sessions)
    if size > 4 and load.sessions > 1:  # these take their time, too
        messages //= 2
    sessions = "1 session" if load.sessions == 1 else f"{load.sessions} sessions"
    kept = ", connections kept" if load.kept else ""
    arena.measure(
        row or f"mailboxes/{size}k-{load.sessions}{'-kept' if load.kept else ''}",
        f"{size} KiB into mailboxes, {sessions}{kept}",
        [entrant(arena, system, load, messages) for system in systems],
        # Whom a round is for, all servers know from the warm-up.
        Turns(messages, arena.options.rounds, warm_up=messages, memory=sampled, calls=sampled),
        unit="messages/s",
    )


def entrant(arena: Arena, system: System, load: Load, messages: int) -> Entrant:
    """A system to which such a load is sent."""
    sender = Sender(system, arena.generator)
    work: Callable[[int], float] = partial(sender.send, load)
    return arena.entrant(system, work, partial(sender.prepare, recipients(messages)))


BENCHES = (Bench("mailboxes", "4 and 64 KiB from acceptance into the mailbox", run),)
