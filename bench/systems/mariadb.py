"""The MariaDB server that all systems ask: a private one, with Debian's built-in defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.accounts import PEER_COLUMNS, PEER_TABLES, Accounts, insertions, peer_rows
from bench.processes import Component, Components
from bench.programs import program
from tests.support.mariadb import MariaDB, start_mariadb

_OPTIONS = ("--max-connections=1000",)
"""Postfix without proxymap has three for each of its processes; all else is as it comes."""
READER = "mailuser"
"""Whom the peers log in as, with the password READER."""

_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Database:
    """The server, and the accounts in the tables of the peers."""

    server: MariaDB
    component: Component
    peers: str
    """The name of the peers' database."""


def peers(server: MariaDB, accounts: Accounts) -> str:
    """A new database with the accounts in the tables of the peers; its name."""
    name = server.new_database()
    server.sql(PEER_TABLES + "".join(insertions(peer_rows(accounts), PEER_COLUMNS)), name)
    for host in _HOSTS:
        server.sql(f"GRANT SELECT ON {name}.* TO '{READER}'@'{host}'")
    return name


@contextlib.contextmanager
def mariadb(components: Components, scratch: Path, accounts: Accounts) -> Iterator[Database]:
    """Running; raises MissingError."""
    for name in ("mariadbd", "mariadb"):
        program(name)
    component = components.new("mariadb")
    server = start_mariadb(str(scratch), _OPTIONS, component.prefix)
    try:
        assert server.process is not None
        component.adopt(server.process.pid)
        for host in _HOSTS:
            server.sql(f"CREATE USER '{READER}'@'{host}' IDENTIFIED BY '{READER}'")
        yield Database(server, component, peers(server, accounts))
    finally:
        server.stop()
        server.remove()
