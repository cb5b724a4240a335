"""Transactions that a MariaDB undoes in favour of others: tried again, a few times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from restante.config.tree import Database
from restante.directory.engine import Engine, Overtaken, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.mysql import ATTEMPTS
from tests.support.directory import Rows, engine_with
from tests.support.events import capture_logs
from tests.support.instance import until
from tests.support.mariadb import MariaDB
from tests.support.rival import rival

pytestmark = pytest.mark.mariadb

SITE: Rows = {
    "rcpthosts": [("x.org",)],
    "mailbox": [(name, 1000, 1000, "/h", "x", None) for name in ("ann", "iain", "paul")],
}
WAITING = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"


@contextmanager
def impatient(server: MariaDB, setting: str) -> Iterator[None]:
    """A server that waits for no lock of some kind."""
    before = server.sql(f"SELECT @@GLOBAL.{setting}").strip()
    server.sql(f"SET GLOBAL {setting} = 0")
    try:
        yield
    finally:
        server.sql(f"SET GLOBAL {setting} = {before}")


def home_of(name: str, home: str) -> Statement:
    return Statement("UPDATE `mailbox` SET `home` = ? WHERE `username` = ?", (home, name))


def engine(url: str) -> Engine:
    return open_engine(Database(url=url), "/", log_sql=True)


def somebody_waits(server: MariaDB) -> bool:
    return server.sql(WAITING).split()[1] != "0"


async def test_a_deadlock_is_tried_again(mariadb_server: MariaDB) -> None:
    """Each has what the other wants; the one that has changed less is undone, and comes second."""
    database = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(database), SITE):
        ours = engine(mariadb_server.url(database))
        with rival(mariadb_server, database) as other, capture_logs() as events:
            other.does("BEGIN; UPDATE mailbox SET gid = 7 WHERE username IN ('ann', 'paul')")
            change = asyncio.create_task(
                ours.transaction([home_of("iain", "/ours"), home_of("ann", "/ours")])
            )
            await asyncio.to_thread(until, lambda: somebody_waits(mariadb_server), "it waits")
            other.does("UPDATE mailbox SET gid = 7 WHERE username = 'iain'")
            other.does("COMMIT")
            assert await change == [1, 1]
        assert [tuple(row) for row in await ours.fetch("SELECT gid, home FROM mailbox")] == [
            (7, "/ours"),
            (7, "/ours"),
            (7, "/h"),
        ]
        await ours.close()
    names = [event["event"] for event in events]
    assert "database_away" not in names
    assert names.count("sql") == 3, "the first statement was carried out twice"


@pytest.mark.parametrize("number", [3101, 1020])
async def test_what_servers_undo_for_reasons_of_their_own_is_tried_again(
    mariadb_server: MariaDB, number: int
) -> None:
    """A trigger says what a member of a group says of a commit that another has overtaken, and
    what MariaDB from 11.6.2 on says of a row that was changed after the transaction first read."""
    database = mariadb_server.new_database()
    said = f"SIGNAL SQLSTATE '40000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'rolled back'"
    async with engine_with(mariadb_server.url(database), SITE):
        mariadb_server.sql(
            f"CREATE TRIGGER t BEFORE UPDATE ON mailbox FOR EACH ROW {said}", database
        )
        ours = engine(mariadb_server.url(database))
        with capture_logs() as events, pytest.raises(Overtaken, match=rf"\({number}\)"):
            await ours.transaction([Statement("DELETE FROM rcpthosts"), home_of("ann", "/ours")])
        assert [event["event"] for event in events] == ["sql"] * ATTEMPTS
        assert await ours.fetch("SELECT host FROM rcpthosts") == [("x.org",)]
        await ours.close()


async def test_whoever_always_comes_second_gives_up(mariadb_server: MariaDB) -> None:
    database = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(database), SITE):
        with impatient(mariadb_server, "innodb_lock_wait_timeout"):
            ours = engine(mariadb_server.url(database))
            with rival(mariadb_server, database) as other, capture_logs() as events:
                other.does("BEGIN; UPDATE mailbox SET gid = 7 WHERE username = 'iain'")
                with pytest.raises(Overtaken, match=r"\(1205\)"):
                    await ours.transaction([home_of("ann", "/ours"), home_of("iain", "/ours")])
            assert [event["event"] for event in events] == ["sql"] * ATTEMPTS
            homes = [row[0] for row in await ours.fetch("SELECT home FROM mailbox")]
            assert homes == ["/h"] * 3, "all that it had done was undone"
            await ours.close()


async def test_a_look_up_that_is_overtaken_knows_nothing(mariadb_server: MariaDB) -> None:
    """A table is altered; the server is not away for that, and the next answer is the true one."""
    database = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(database), SITE):
        with impatient(mariadb_server, "lock_wait_timeout"):
            directory = SqlDirectory(engine(mariadb_server.url(database)))
            with rival(mariadb_server, database) as other, capture_logs() as events:
                other.does("LOCK TABLES mailbox WRITE")
                for name in ("iain", "nobody"):
                    with pytest.raises(Overtaken, match=r"\(1205\)"):
                        await directory.account(name)
                assert await directory.accepts_domain("x.org")
                other.does("UNLOCK TABLES")
            assert {event["event"] for event in events} == {"sql"}
            assert await directory.account("iain") is not None
            assert await directory.account("nobody") is None
            await directory.close()
