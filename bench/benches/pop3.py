"""POP3: sessions that look for mail, logins, and mail that is fetched and deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial

from bench.accounts import PASSWORD, Accounts, maildir_of
from bench.arena import Arena, Bench
from bench.fetching import Reader, Sessions
from bench.maildrops import Filling, change, fill
from bench.rounds import Entrant, Turns
from bench.systems.dovecot import AS_IT_COMES, CACHED, LOGINS, REUSED, dovecot
from bench.systems.mariadb import peers
from bench.systems.restante import restante
from bench.systems.system import System
from restante.auth.schemes import hash_password
from restante.store.recollection import SETTLED

USERS = 100
MAILDROP = Filling(100)
"""What each of them has."""
CLIENTS = (1, 10, 50)
A_ROUND = 2000
"""Sessions in a round, at the most: a second of the fastest."""
FETCHERS = 10
FETCHED = {
    "4k": Filling(1000),
    "4k-indexed": Filling(1000),
    "64k": Filling(200, 64 * 1024),
}
"""What each of those has who fetch and delete it all."""
INDEXED = "-indexed"
"""Of rows whose users have looked at their mail before; in the others it is new."""
SHA512_CRYPT = (
    "{SHA512-CRYPT}$6$QebpG/1iQyjBEFMe$RNqnbdOmYSYhj/JmU7zHteW8oshLkJDseZLZzVBGvjV9gyvJJ3K2"
    "d6UXP6M9gj8yBnYUG6hTJ4zQQyhuquOt21"
)
"""Of PASSWORD, with 5,000 rounds, as crypt(3) does when it is not told otherwise."""
LOGINS_A_ROUND = {"clear": 1000, "sha512": 1000, "argon2id": 100}
"""An argon2id takes a hundred milliseconds of a core."""


def in_a_round(arena: Arena, most: int = A_ROUND) -> int:
    """How many sessions: other benches have half as many messages."""
    return min(2 * arena.options.messages, most)


def warming(arena: Arena, users: int) -> int:
    """Sessions after which each of Restante's workers has most likely met each user."""
    return 4 * arena.options.workers * users


def acquaint(arena: Arena, systems: Sequence[System], sessions: Sessions) -> None:
    """Everybody has a session with each maildrop, and could remember all that the next one finds.

    The first session with Dovecot moves messages from ``new`` to ``cur``, and nobody can trust what
    was changed just now. Before a warm-up, which would remember nothing otherwise.
    """
    for system in systems:
        Reader(system, arena.generator).seconds(sessions, sessions.users)
    time.sleep(SETTLED + 0.5)


def run_sessions(arena: Arena) -> None:
    """Login, STAT, LIST, UIDL, QUIT; beside Dovecot as it comes, and beside faster ones."""
    fill(arena.restante(), range(1, USERS + 1), MAILDROP)
    for clients in (10,) if arena.options.quick else CLIENTS:
        _measure_sessions(arena, "sessions", arena.pop3_hosts([AS_IT_COMES]), clients)
    if len(arena.pop3_hosts([AS_IT_COMES])) > 1:
        reusing = arena.pop3_hosts([LOGINS, REUSED, CACHED])
        for clients in (10,) if arena.options.quick else CLIENTS:
            _measure_sessions(arena, "sessions-reused", reusing, clients)
    _measure_first_sessions(arena, 10)


def _measure_sessions(arena: Arena, name: str, systems: list[System], clients: int) -> None:
    key = f"pop3/{name}-{clients}"
    if not arena.wants(key):
        return
    sessions = Sessions("session", clients, USERS, messages=MAILDROP.messages)
    acquaint(arena, systems, sessions)
    arena.measure(
        key,
        f"POP3 login, STAT, LIST, UIDL, QUIT, 100 messages, {clients} in parallel",
        [_entrant(arena, system, sessions) for system in systems],
        Turns(
            in_a_round(arena),
            arena.options.rounds,
            warm_up=warming(arena, USERS),
            memory=clients == 10,
            calls=clients == 10,
        ),
        unit="sessions/s",
    )


def _measure_first_sessions(arena: Arena, clients: int) -> None:
    """Nobody remembers the maildrop as it is: mail has come since the last session."""
    systems = arena.pop3_hosts([AS_IT_COMES, REUSED])
    sessions = Sessions("session", clients, USERS, messages=MAILDROP.messages)
    arena.measure(
        f"pop3/changed-{clients}",
        "POP3 login, STAT, LIST, UIDL, QUIT, 100 messages, changed since the last session, "
        f"{clients} in parallel",
        [_changing(arena, each, sessions) for each in systems],
        Turns(_hundreds(in_a_round(arena)), arena.options.rounds, warm_up=USERS),
        unit="sessions/s",
    )


def _hundreds(sessions: int) -> int:
    """Whole turns of all users."""
    return max(sessions // USERS, 1) * USERS


def _changing(arena: Arena, system: System, sessions: Sessions) -> Entrant:
    """All maildrops change, untimed, before each turn of their users."""
    reader = Reader(system, arena.generator)

    def work(count: int) -> float:
        seconds = 0.0
        for _ in range(0, count, USERS):
            for number in range(1, USERS + 1):
                change(maildir_of(system.mail, number))
            seconds += reader.seconds(sessions, USERS)
        return seconds

    return arena.entrant(system, work)


def run_fetches(arena: Arena) -> None:
    """STAT, LIST, and then RETR and DELE of each message."""
    systems = arena.pop3_hosts([AS_IT_COMES])
    for key, filling in FETCHED.items():
        seen = key.endswith(INDEXED)
        sessions = Sessions("fetch", FETCHERS, FETCHERS, messages=filling.messages)
        arena.measure(
            f"fetch/{key}",
            f"POP3 RETR and DELE of {filling.messages} messages of {filling.octets // 1024} KiB, "
            f"{'seen before' if seen else 'new'}, by each of {FETCHERS} users",
            [_fetching(arena, system, sessions, filling, seen=seen) for system in systems],
            Turns(FETCHERS * filling.messages, arena.options.rounds),
            unit="messages/s",
        )


def _fetching(
    arena: Arena, system: System, sessions: Sessions, filling: Filling, *, seen: bool
) -> Entrant:
    """The maildrops are full again before every round, and ``seen`` in sessions of this system."""
    reader = Reader(system, arena.generator)
    looking = replace(sessions, mode="session")

    def prepare() -> None:
        fill(system, range(1, FETCHERS + 1), filling)
        if seen:
            acquaint(arena, [system], looking)
            reader.seconds(looking, warming(arena, FETCHERS))

    return arena.entrant(system, lambda _messages: reader.seconds(sessions, FETCHERS), prepare)


def run_logins(arena: Arena) -> None:
    """Logins that do nothing else, by how the passwords are stored; and what is remembered."""
    stored = {
        "clear": "{PLAIN}" + PASSWORD,
        "sha512": SHA512_CRYPT,
        "argon2id": hash_password(PASSWORD),
    }
    for scheme, password in stored.items():
        with ExitStack() as stack:
            systems = _with_password(arena, stack, password)
            title = f"password stored as {password.partition('}')[0]}}}, 10 in parallel"
            _measure_logins(arena, scheme, title, systems, LOGINS_A_ROUND[scheme], warm_up=10)
    with ExitStack() as stack:
        remembering = stack.enter_context(_own(arena, Accounts(USERS, stored["argon2id"]), {}))
        title = "argon2id, by users who were here before, 10 in parallel"
        count = LOGINS_A_ROUND["clear"]
        _measure_logins(arena, "argon2id-again", title, [remembering], count, warm_up=5 * USERS)


def _measure_logins(
    arena: Arena, name: str, title: str, systems: list[System], count: int, *, warm_up: int
) -> None:
    arena.measure(
        f"logins/{name}",
        f"POP3 login and QUIT, {title}",
        [_entrant(arena, each, Sessions("login", 10, USERS)) for each in systems],
        Turns(count, arena.options.rounds, warm_up=warm_up),
        unit="logins/s",
    )


def _own(
    arena: Arena, accounts: Accounts, settings: Mapping[str, str]
) -> AbstractContextManager[System]:
    return restante(
        arena.components,
        arena.directory("restante"),
        accounts,
        arena.database,
        workers=arena.options.workers,
        settings=settings,
    )


def _with_password(arena: Arena, stack: ExitStack, password: str) -> list[System]:
    """Systems of their own, whose accounts have this password; each login is hashed."""
    accounts = Accounts(USERS, password)
    own = stack.enter_context(_own(arena, accounts, {"RESTANTE_AUTH__REMEMBER": "0"}))
    if arena.database is None or "dovecot" not in arena.options.against:
        return [own]
    database = replace(arena.database, peers=peers(arena.database.server, accounts))
    return [
        own,
        *(
            stack.enter_context(
                dovecot(arena.components, arena.directory("dovecot"), database, own.mail, variant)
            )
            for variant in (AS_IT_COMES, REUSED)
        ),
    ]


def _entrant(arena: Arena, system: System, sessions: Sessions) -> Entrant:
    return arena.entrant(system, partial(Reader(system, arena.generator).seconds, sessions))


BENCHES = (
    Bench("pop3", "POP3 sessions that look for mail", run_sessions),
    Bench("fetch", "POP3: mail is fetched and deleted", run_fetches),
    Bench("logins", "POP3 logins, by how passwords are stored", run_logins),
)
