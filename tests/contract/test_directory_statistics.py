"""A server whose statistics are old reads no table whole for one address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from restante.config.tree import Database
from restante.directory.engine import Engine, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.rows import text_of
from restante.directory.schema import TABLES
from tests.support.directory import Rows, engine_with, fill
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.mariadb

USERS = [(f"user{number}", f"d{number % 100}.example") for number in range(300)]
LISTS = [(f"list{number}", f"d{number}.example") for number in range(100)]
SITE: Rows = {
    "rcpthosts": [(domain,) for _, domain in LISTS],
    "mailbox": [(f"{user}@{domain}", 1, 1, "/h", "x", None) for user, domain in USERS],
    "virtual": [(f"{local}@{domain}", local, domain) for local, domain in (*USERS, *LISTS)]
    + [("user0@d0.example", "", "d0.example")],
    "alias": [("alias", f"{name}@{domain}", "user0", "d0.example") for name, domain in LISTS],
}
QUOTED = [f"`{table}`" for table in TABLES]
MOST = 50
"""Rows for a look-up, those of temporary tables included; the smallest table has twice as many."""
READ = (
    "SHOW SESSION STATUS WHERE Variable_name IN "
    "('Handler_read_rnd_next', 'Handler_read_next', 'Handler_read_first')"
)
QUESTIONS: dict[str, Callable[[SqlDirectory], Awaitable[object]]] = {
    "a mailbox": lambda directory: directory.prefetch([("user7", "d7.example")]),
    "an alias": lambda directory: directory.prefetch([("list7", "d7.example")]),
    "a catch-all": lambda directory: directory.prefetch([("nobody", "d0.example")]),
    "nobody": lambda directory: directory.prefetch([("nobody", "d7.example")]),
    "a login": lambda directory: directory.credentials("user7@d7.example"),
    "a login by another address": lambda directory: directory.credentials("list7@d7.example"),
}


async def _read(engine: Engine) -> int:
    return sum(int(text_of(count)) for _, count in await engine.fetch(READ))


async def test_tables_that_were_empty_when_they_were_taken(mariadb_server: MariaDB) -> None:
    """As a server has them that was stopped right after rows were loaded.

    MySQL 8 would read what they call small into hash tables.
    """
    name = mariadb_server.new_database()
    url = mariadb_server.url(name)
    async with engine_with(url) as filling:
        for table in QUOTED:
            mariadb_server.sql(f"ALTER TABLE {table} STATS_AUTO_RECALC = 0", name)
        mariadb_server.sql(f"ANALYZE TABLE {', '.join(QUOTED)}", name)
        await fill(filling, SITE)
        mariadb_server.sql("FLUSH TABLES")
        engine = open_engine(Database(url=url, pool_size=1), "/")
        directory = SqlDirectory(engine)
        first = await _read(engine)
        for_asking = await _read(engine) - first
        too_many = {}
        for what, question in QUESTIONS.items():
            before = await _read(engine)
            await question(directory)
            read = await _read(engine) - before - for_asking
            if read > MOST:
                too_many[what] = read
        assert too_many == {}
        await directory.close()
