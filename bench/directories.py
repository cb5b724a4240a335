"""Databases with very many mailboxes: built once, and kept below build/bench-cache.

``make clean`` removes them; they are built anew when what they hold has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import population
from bench.machine import memory_mib
from bench.processes import Component
from restante.config.tree import Database
from restante.directory.engine import Engine, open_engine
from restante.directory.schema import DEFINITIONS, definitions
from tests.support.mariadb import MariaDB, start_mariadb
from tests.support.ports import free_port
from tests.support.serving import NOBODY

CACHE = Path(__file__).parents[1] / "build" / "bench-cache"
_LOADING = (
    "--innodb-log-file-size=1G",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
)
"""Of a server that may lose everything: what is not whole is not kept."""
_FILLING = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000")
"""Of one connection alone: the file keeps the journal with which Restante made it."""
MAX_POOL = 4096
"""MiB of InnoDB's buffer pool: ten million mailboxes take about 3,500."""


def sqlite_file(mailboxes: int) -> Path:
    """A file with so many."""
    path = CACHE / f"{_stamp(population.SQLITE, mailboxes)}.db"
    if not path.exists():
        with _in_the_making(path) as scratch:
            _fill_sqlite(scratch / "db", mailboxes)
            os.replace(scratch / "db", path)
    return path


def read_into_memory(path: Path) -> None:
    """All of a file: a machine may have given back what nobody used for some minutes."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


@contextlib.contextmanager
def mariadb_urls(sizes: Sequence[int], component: Component) -> Iterator[list[str]]:
    """Of databases with so many each, all in one server's buffer pool."""
    path = CACHE / _stamp(population.MARIADB, *sizes)
    if not path.exists():
        with _in_the_making(path) as scratch:
            server = start_mariadb(str(scratch), (*_LOADING, _pool()))
            try:
                for mailboxes in sizes:
                    _fill_mariadb(server, mailboxes)
                server.stop()
                os.replace(server.directory, path)
            finally:
                server.remove()
    server = MariaDB(path, free_port(), options=(_pool(),), within=component.prefix)
    server.start()
    assert server.process is not None
    component.adopt(server.process.pid)
    try:
        for mailboxes in sizes:
            server.sql(_READ_ALL, _name(mailboxes))
        yield [server.url(_name(mailboxes)) for mailboxes in sizes]
    finally:
        server.stop()


@contextlib.contextmanager
def _in_the_making(path: Path) -> Iterator[Path]:
    """A directory beside ``path`` that goes again; tells what takes so long.

    What was in the place of ``path`` and is of another stamp goes first, for there may be no room
    for both.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    for former in CACHE.glob(f"{path.name.rpartition('-')[0]}-*"):
        former.unlink() if former.is_file() else shutil.rmtree(former)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        os.chmod(scratch, 0o755)
        yield Path(scratch)
    print(f"{path.name}: built in {time.monotonic() - began:.0f} s, and kept in {CACHE}\n")


def _fill_sqlite(path: Path, mailboxes: int) -> None:
    asyncio.run(_make_tables(f"sqlite:///{path}"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for pragma in _FILLING:
            database.execute(f"PRAGMA {pragma}")
        for statement in population.statements(population.SQLITE, mailboxes, NOBODY):
            database.execute(statement)


def _fill_mariadb(server: MariaDB, mailboxes: int) -> None:
    name = _name(mailboxes)
    server.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    asyncio.run(_make_tables(server.url(name)))
    # An empty table is filled in one go where nothing must be compared with rows before.
    begin = "SET unique_checks = 0, foreign_key_checks = 0; "
    for statement in population.statements(population.MARIADB, mailboxes, NOBODY):
        server.sql(begin + statement, name)


async def _make_tables(url: str) -> None:
    engine = open_engine(Database(url), "/", create=True)
    await engine.transaction(await definitions(engine))
    await engine.close()


def open_directory_engine(url: str) -> Engine:
    """As a worker has it."""
    return open_engine(Database(url), "/")


def _name(mailboxes: int) -> str:
    return f"mailboxes_{mailboxes}"


def _stamp(generator: population.Generator, *sizes: int) -> str:
    """A name that changes with the tables and the rows."""
    kind, dialect = ("sqlite", "sqlite") if generator is population.SQLITE else ("mariadb", "mysql")
    rows = [text for size in sizes for text in population.statements(generator, size, NOBODY)]
    texts = [DEFINITIONS[dialect], *(_FILLING if kind == "sqlite" else _LOADING), *rows]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    return f"{kind}-{max(sizes)}-{digest}"


def _pool() -> str:
    """Half of the memory at the most."""
    return f"--innodb-buffer-pool-size={min(MAX_POOL, memory_mib() // 2)}M"


_READ_ALL = (
    "SELECT SUM(uid) FROM mailbox; SELECT COUNT(*) FROM rcpthosts; "
    "SELECT SUM(id + LENGTH(virtual_username)) FROM `virtual` FORCE INDEX (PRIMARY); "
    "SELECT COUNT(virtual_username) FROM `virtual` FORCE INDEX (virtual_address) "
    "WHERE virtual_host > ''; "
    "SELECT COUNT(username) FROM `virtual` FORCE INDEX (virtual_owner) WHERE username > ''; "
    "SELECT SUM(LENGTH(alias_username)) FROM `alias` FORCE INDEX (PRIMARY); "
    "SELECT COUNT(alias) FROM `alias` FORCE INDEX (alias_user) WHERE username > ''"
)
"""Every page of every index, so that it lies in the buffer pool."""
