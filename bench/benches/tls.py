"""The same over TLS 1.3: POP3 sessions, with handshakes that are full or resumed, and messages."""

from __future__ import annotations

from collections.abc import Sequence

from bench.arena import Arena, Bench
from bench.benches.mailboxes import entrant
from bench.benches.pop3 import MAILDROP, USERS, acquaint, in_a_round, warming
from bench.fetching import Handshake, Reader, Sessions
from bench.figures import Better, Row
from bench.maildrops import fill
from bench.rounds import Entrant, Turns, take_turns
from bench.sending import Load
from bench.systems.dovecot import AS_IT_COMES, REUSED
from bench.systems.system import System

CLIENTS = 10
A_ROUND = 1000
"""Sessions in a round, at the most: a second of the fastest."""
SENDERS = (10, 50)
WORK = f"POP3 over TLS: login, STAT, LIST, UIDL, QUIT, 100 messages, {CLIENTS} in parallel"


def run_sessions(arena: Arena) -> None:
    """Login, STAT, LIST, UIDL, QUIT, over TLS from the first octet on."""
    systems = arena.pop3_hosts([AS_IT_COMES, REUSED], arena.certificate)
    fill(systems[0], range(1, USERS + 1), MAILDROP)
    _measure_sessions(arena, systems, f"sessions-{CLIENTS}", Handshake.FULL)
    _measure_sessions(arena, systems, f"resumed-{CLIENTS}", Handshake.RESUMED)


def _measure_sessions(
    arena: Arena, systems: Sequence[System], name: str, handshake: Handshake
) -> None:
    key = f"pop3s/{name}"
    if not arena.wants(key):
        return
    sessions = Sessions("session", CLIENTS, USERS, messages=MAILDROP.messages, handshake=handshake)
    acquaint(arena, systems, sessions)
    resumed: dict[str, float] = {}
    entrants = [_entrant(arena, each, sessions, resumed) for each in systems]
    count = in_a_round(arena, A_ROUND)
    turns = Turns(count, arena.options.rounds, warm_up=warming(arena, USERS))
    series, machine = take_turns(entrants, turns)
    title = f"{WORK}, handshakes {handshake.name.lower()}"
    told = ", ".join(f"{name} {share:.0%}" for name, share in resumed.items())
    note = f"handshakes that were resumed: {told}"
    arena.add(Row(key, title, "sessions/s", Better.MORE, series, machine, note))


def _entrant(
    arena: Arena, system: System, sessions: Sessions, resumed: dict[str, float]
) -> Entrant:
    """Notes down which share of the last round's handshakes was resumed."""
    reader = Reader(system, arena.generator)

    def work(count: int) -> float:
        told = reader.read(sessions, count)
        resumed[system.name] = told.resumed / count
        return told.seconds

    return arena.entrant(system, work)


def run_messages(arena: Arena) -> None:
    """4 KiB into mailboxes, a connection and a full handshake for each message."""
    systems = arena.tls_mail_hosts()
    for sessions in SENDERS:
        messages = arena.options.messages_by(sessions)
        load = Load(sessions, tls=True)
        arena.measure(
            f"starttls/4k-{sessions}",
            f"4 KiB into mailboxes over STARTTLS, {sessions} sessions",
            [entrant(arena, system, load, messages) for system in systems],
            Turns(messages, arena.options.rounds, warm_up=messages),
            unit="messages/s",
        )


BENCHES = (
    Bench("pop3s", "POP3 sessions over TLS, with full handshakes and resumed", run_sessions),
    Bench("starttls", "4 KiB over STARTTLS from acceptance into the mailbox", run_messages),
)
