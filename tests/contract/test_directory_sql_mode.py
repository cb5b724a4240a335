"""Whatever ``sql_mode`` a server has: names mean what they say, and nobody is told of the mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from restante.config.tree import Database
from restante.directory.engine import Statement, open_engine
from restante.directory.lookups import SqlDirectory
from tests.support.directory import Rows, engine_with
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.mariadb

ODD = ("o'neil", "a\\", "\\'", '"q"', "a\\' OR 1=1 -- ")
SITE: Rows = {
    "mailbox": [(name, 1000, 1000, "/h", "x", None) for name in ODD],
    "virtual": [(name, name, "x.org") for name in ODD],
}
CHANGE = "UPDATE `mailbox` SET `home` = ? WHERE `username` = ?"


@contextmanager
def in_mode(server: MariaDB, mode: str) -> Iterator[None]:
    before = server.sql("SELECT @@GLOBAL.sql_mode").strip()
    server.sql(f"SET GLOBAL sql_mode = '{mode}'")
    try:
        yield
    finally:
        server.sql(f"SET GLOBAL sql_mode = '{before}'")


@pytest.mark.parametrize("mode", ["", "ANSI", "NO_BACKSLASH_ESCAPES", "TRADITIONAL"])
async def test_names_and_changes(
    mariadb_server: MariaDB, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    url = mariadb_server.url(mariadb_server.new_database())
    async with engine_with(url, SITE):
        caplog.clear()
        with in_mode(mariadb_server, mode):
            engine = open_engine(Database(url=url), "/")
            directory = SqlDirectory(engine)
            for name in ODD:
                lookups = await directory.prefetch([(name, "x.org")])
                assert await lookups.owners(name, "x.org") == (name,)
                assert await engine.transaction([Statement(CHANGE, (f"/{name}", name))]) == [1]
                account = await directory.account(name)
                assert account is not None
                assert account.home == f"/{name}"
            await directory.close()
    assert caplog.messages == []
