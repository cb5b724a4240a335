"""What a server tells each connection to begin with (``init_connect``) changes no answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from restante.address import Address
from restante.config.tree import Database
from restante.directory.engine import open_engine
from restante.directory.lookups import SqlDirectory
from tests.support.directory import Rows, engine_with
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.mariadb

SITE: Rows = {
    "rcpthosts": [("x.org",)],
    "mailbox": [("jürgen@x.org", 1000, 1000, "/h", "old", "Password")],
    "virtual": [("jürgen@x.org", "jürgen", "x.org")],
}


@contextmanager
def told_at_first(server: MariaDB, statement: str) -> Iterator[None]:
    """Those who may do everything are told nothing (``SUPER``)."""
    server.sql(f'SET GLOBAL init_connect = "{statement}"')
    try:
        yield
    finally:
        server.sql("SET GLOBAL init_connect = ''")


@pytest.mark.parametrize("statement", ["SET autocommit = 0", "SET NAMES latin1"])
async def test_what_init_connect_says(mariadb_server: MariaDB, statement: str) -> None:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        url = mariadb_server.url_of("reader", f"SELECT ON {name}.*", name)
        with told_at_first(mariadb_server, statement):
            directory = SqlDirectory(open_engine(Database(url=url), "/"))
            try:
                assert await password_of(directory) == "old"
                mariadb_server.sql("UPDATE mailbox SET password = 'new'", name)
                assert await password_of(directory) == "new"
            finally:
                await directory.close()


async def test_a_commit_begins_no_other_transaction(mariadb_server: MariaDB) -> None:
    """Look-ups go on with its connection."""
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        url = mariadb_server.url_of("writer", f"SELECT, UPDATE ON {name}.*", name)
        with told_at_first(mariadb_server, "SET completion_type = CHAIN"):
            directory = SqlDirectory(open_engine(Database(url=url), "/"))
            try:
                credentials = await directory.credentials("jürgen@x.org")
                assert credentials is not None
                assert await directory.replace_password(credentials, "better")
                assert await password_of(directory) == "better"
                mariadb_server.sql("UPDATE mailbox SET password = 'new'", name)
                assert await password_of(directory) == "new"
            finally:
                await directory.close()


async def password_of(directory: SqlDirectory) -> str | None:
    credentials = await directory.credentials(str(Address.parse("jürgen@x.org")))
    assert credentials is not None
    return credentials.password
