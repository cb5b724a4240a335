"""POP3: sessions that look for mail, logins, and mail that is fetched and deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

USERS = 100
MAILDROP = Filling(100)
"""What each of them has."""
CLIENTS = (1, 10, 50)
PER_SESSION = 5
"""A round has a session where other benches have so many messages."""
FETCHERS = 10
FETCHED = (Filling(1000), Filling(200, 64 * 1024))
"""What each of those has who fetch and delete it all."""
SHA512_CRYPT = (
    "{SHA512-CRYPT}$6$QebpG/1iQyjBEFMe$RNqnbdOmYSYhj/JmU7zHteW8oshLkJDseZLZzVBGvjV9gyvJJ3K2"
    "d6UXP6M9gj8yBnYUG6hTJ4zQQyhuquOt21"
)
"""Of PASSWORD, with 5,000 rounds, as crypt(3) does when it is not told otherwise."""
LOGINS_A_ROUND = {"clear": 1000, "sha512": 1000, "argon2id": 100}
"""An argon2id takes a hundred milliseconds of a core."""


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
    sessions = Sessions("session", clients, USERS, messages=MAILDROP.messages)
    arena.measure(
        f"pop3/{name}-{clients}",
        f"POP3 login, STAT, LIST, UIDL, QUIT, 100 messages, {clients} in parallel",
        [_entrant(arena, system, sessions) for system in systems],
        # Everybody has been here once when the rounds begin: indexes are warm.
        Turns(
            arena.options.messages // PER_SESSION,
            arena.options.rounds,
            warm_up=USERS,
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
        [_entrant(arena, each, sessions, partial(_change_all, each)) for each in systems],
        Turns(USERS, arena.options.rounds, warm_up=USERS),
        unit="sessions/s",
    )


def _change_all(system: System) -> None:
    for number in range(1, USERS + 1):
        change(maildir_of(system.mail, number))


def run_fetches(arena: Arena) -> None:
    """STAT, LIST, and then RETR and DELE of each message."""
    systems = arena.pop3_hosts([AS_IT_COMES])
    for filling in FETCHED:
        size = filling.octets // 1024
        sessions = Sessions("fetch", FETCHERS, FETCHERS, messages=filling.messages)
        arena.measure(
            f"fetch/{size}k",
            f"POP3 RETR and DELE of {filling.messages} messages of {size} KiB by each of "
            f"{FETCHERS} users",
            [_fetching(arena, system, sessions, filling) for system in systems],
            Turns(FETCHERS * filling.messages, arena.options.rounds),
            unit="messages/s",
        )


def _fetching(arena: Arena, system: System, sessions: Sessions, filling: Filling) -> Entrant:
    """The maildrops are full again before every round."""
    reader = Reader(system, arena.generator)
    return arena.entrant(
        system,
        lambda _messages: reader.seconds(sessions, FETCHERS),
        partial(fill, system, range(1, FETCHERS + 1), filling),
    )


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


def _entrant(
    arena: Arena,
    system: System,
    sessions: Sessions,
    prepare: Callable[[], object] = lambda: None,
) -> Entrant:
    work = partial(Reader(system, arena.generator).seconds, sessions)
    return arena.entrant(system, work, prepare)


BENCHES = (
    Bench("pop3", "POP3 sessions that look for mail", run_sessions),
    Bench("fetch", "POP3: mail is fetched and deleted", run_fetches),
    Bench("logins", "POP3 logins, by how passwords are stored", run_logins),
)
