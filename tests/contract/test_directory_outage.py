"""A database that cannot be asked is CannotKnow, within bounds, and works again by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.tree import Database
from restante.directory.engine import Overtaken, Rejected, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.rows import text_of
from restante.directory.schema import TABLES
from restante.errors import CannotKnow
from tests.support.directory import Rows, engine_with
from tests.support.events import capture_logs
from tests.support.instance import until
from tests.support.mariadb import PASSWORD, MariaDB, start_mariadb

SITE: Rows = {"mailbox": [("iain", 1000, 1000, "/h", "x", None)]}
LATIN_1 = "CONVERT TO CHARACTER SET latin1 COLLATE latin1_swedish_ci"
BOUND = 10.0
"""Seconds within which a peer must hear 451."""
BRIEF = {"connect_timeout": 1.0, "query_timeout": 1.0}
"""For servers that say nothing: the whole of it is waited for."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[MariaDB]:
    """A server that tests may stop and kill."""
    server = start_mariadb()
    yield server
    server.remove()


async def _site(url: str) -> None:
    async with engine_with(url, SITE):
        pass


def _directory(url: str, **settings: float) -> SqlDirectory:
    database = Database(
        url=url,
        connect_timeout=settings.get("connect_timeout", 4.0),
        query_timeout=settings.get("query_timeout", 5.0),
        pool_size=int(settings.get("pool_size", 2)),
    )
    return SqlDirectory(open_engine(database, "/", log_sql=True))


async def _cannot_know(directory: SqlDirectory) -> str:
    with pytest.raises(CannotKnow) as caught:
        await asyncio.wait_for(directory.prefetch([("iain", "x.org")]), BOUND)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(CannotKnow):
        await asyncio.wait_for(directory.account("nobody"), BOUND)
    return str(caught.value)


async def _knows(directory: SqlDirectory) -> None:
    assert await directory.account("iain") is not None
    assert await directory.account("nobody") is None


@pytest.mark.mariadb
@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_server_that_ends_and_starts_again(
    own_server: MariaDB, how: str, tcp: bool
) -> None:
    url = own_server.url(own_server.new_database(), tcp=tcp)
    await _site(url)
    directory = _directory(url)
    await _knows(directory)
    with capture_logs() as events:
        getattr(own_server, how)()
        try:
            await _cannot_know(directory)
        finally:
            own_server.start()
        await _knows(directory)
    names = [event["event"] for event in events if event["event"] != "sql"]
    assert names == ["database_away", "database_back"]
    await directory.close()


@pytest.mark.mariadb
async def test_a_restart_between_two_questions_is_not_noticed(own_server: MariaDB) -> None:
    url = own_server.url(own_server.new_database())
    await _site(url)
    directory = _directory(url)
    await asyncio.gather(*(_knows(directory) for _ in range(8)))
    with capture_logs() as events:
        own_server.stop()
        own_server.start()
        await asyncio.gather(*(_knows(directory) for _ in range(8)))
    assert not [event for event in events if event["event"] == "database_away"]
    await directory.close()


@pytest.mark.mariadb
@pytest.mark.parametrize("tcp", [False, True])
async def test_a_server_that_hangs(own_server: MariaDB, tcp: bool) -> None:
    url = own_server.url(own_server.new_database(), tcp=tcp)
    await _site(url)
    directory = _directory(url, **BRIEF)
    fresh = _directory(url, **BRIEF)
    await _knows(directory)
    own_server.freeze()
    try:
        await asyncio.gather(*(_cannot_know(directory) for _ in range(4)))
        await _cannot_know(fresh)
    finally:
        own_server.thaw()
    await _knows(directory)
    await _knows(fresh)
    await directory.close()
    await fresh.close()


@pytest.mark.mariadb
async def test_changes_open_no_more_connections_than_may_be(mariadb_url: str) -> None:
    """Each change has a new connection: a dead one must not leave in doubt what it has done."""
    count = "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE()"
    async with engine_with(mariadb_url, SITE):
        pass
    engine = open_engine(Database(url=mariadb_url, pool_size=2), "/")
    for _ in range(10):
        await asyncio.gather(*(engine.transaction([Statement("DELETE FROM alias")]) for _ in "abc"))
        await engine.fetch("SELECT 1")
    await asyncio.sleep(0.1)  # the server hears of the ends of connections a little later
    ((connections,),) = await engine.fetch(count)
    await engine.close()
    assert isinstance(connections, int)
    assert 1 <= connections <= 2


@pytest.mark.mariadb
async def test_a_server_that_answers_no_first_statement_is_left(mariadb_server: MariaDB) -> None:
    """As one does that lets its user ask so much in an hour; logins are not counted."""
    name = mariadb_server.new_database()
    directory = _directory(mariadb_server.url_of("frugal", f"SELECT ON {name}.*", name))
    mariadb_server.sql("ALTER USER frugal@localhost WITH MAX_QUERIES_PER_HOUR 1")
    for _ in range(5):
        await _cannot_know(directory)
    there = "SELECT count(*) FROM information_schema.processlist WHERE user = 'frugal'"
    await asyncio.to_thread(until, lambda: mariadb_server.sql(there) == "0\n", "none is open")
    await directory.close()


@pytest.mark.mariadb
async def test_cancelled_questions_never_mix_up_answers(mariadb_url: str) -> None:
    names = [f"u{number}" for number in range(20)]
    rows: Rows = {"mailbox": [(name, 1, 1, f"/{name}", None, None) for name in names]}
    async with engine_with(mariadb_url, rows):
        directory = _directory(mariadb_url)
        for turn in range(60):
            tasks = [asyncio.create_task(directory.account(name)) for name in names[:4]]
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            for name, task in zip(names, tasks, strict=False):
                try:
                    account = await task
                except asyncio.CancelledError:
                    continue
                assert account is not None
                assert account.home == f"/{name}"
        await directory.close()


@pytest.mark.mariadb
async def test_cancelled_recipients_never_mix_up_the_answers_of_others(mariadb_url: str) -> None:
    names = [f"u{number}" for number in range(8)]
    rows: Rows = {
        "mailbox": [(name, 1, 1, f"/{name}", None, None) for name in names],
        "virtual": [(name, name, "x.org") for name in names],
    }
    async with engine_with(mariadb_url, rows):
        directory = _directory(mariadb_url)
        for turn in range(60):
            tasks = [asyncio.create_task(directory.prefetch([(name, "x.org")])) for name in names]
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            for task in tasks[turn % 3 :: 3]:
                task.cancel()
            for name, task in zip(names, tasks, strict=True):
                try:
                    lookups = await task
                except asyncio.CancelledError:
                    continue
                assert await lookups.owners(name, "x.org") == (name,)
                account = await lookups.account(name)
                assert account is not None
                assert account.home == f"/{name}"
        await directory.close()


@pytest.mark.mariadb
async def test_a_name_that_the_database_cannot_hold_spoils_nobody_elses(mariadb_url: str) -> None:
    rows: Rows = {"virtual": [("iain", "iain", "x.org")]}
    async with engine_with(mariadb_url, rows):
        directory = _directory(mariadb_url)
        asked = ["first", "iain", "\ud800", "zoe"]
        found = await asyncio.gather(
            *(directory.prefetch([(name, "x.org")]) for name in asked), return_exceptions=True
        )
        _, iain, bad, zoe = found
        assert isinstance(bad, CannotKnow)
        assert not isinstance(iain, BaseException)
        assert not isinstance(zoe, BaseException)
        assert await iain.owners("iain", "x.org") == ("iain",)
        assert await zoe.owners("zoe", "x.org") == ()
        await directory.close()


@pytest.mark.mariadb
async def test_a_name_that_the_database_cannot_hold_spoils_no_other_recipient(
    mariadb_url: str,
) -> None:
    """Of one message, or of one list."""
    async with engine_with(mariadb_url, {"virtual": [("iain", "iain", "x.org")]}) as engine:
        for table in TABLES:
            await engine.transaction([Statement(f"ALTER TABLE `{table}` {LATIN_1}")])
        directory = _directory(mariadb_url)
        lookups = await directory.prefetch([("ж", "x.org"), ("iain", "x.org")])
        assert await lookups.owners("iain", "x.org") == ("iain",)
        with pytest.raises(CannotKnow):
            await lookups.owners("ж", "x.org")
        await directory.close()


@pytest.mark.mariadb
@pytest.mark.parametrize("number", [1036, 1300, 1792, 1836, 3098, 3141, 3854, 3988])
async def test_what_a_server_may_say_of_a_statement(mariadb_url: str, number: int) -> None:
    """Of a name that MySQL cannot hold, a table that has no place in a group, a server or a table
    that is only read, a text that is no JSON."""
    async with engine_with(mariadb_url) as engine:
        signal = f"BEGIN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}; RETURN 1; END"
        await engine.transaction([Statement(f"CREATE FUNCTION f() RETURNS INT {signal}")])
        with capture_logs() as events, pytest.raises(Rejected):
            await engine.fetch("SELECT f()")
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT (SELECT `username` FROM `mailbox`)",
        "SELECT CAST(`uid` AS SIGNED) * 9223372036854775807 FROM `mailbox`",
    ],
)
async def test_a_row_of_a_view_that_cannot_be_computed(mariadb_url: str, statement: str) -> None:
    rows: Rows = {"mailbox": [*SITE["mailbox"], ("ann", 1001, 1001, "/h", "x", None)]}
    async with engine_with(mariadb_url, rows) as engine:
        with capture_logs() as events, pytest.raises(Rejected):
            await engine.fetch(statement)
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_a_change_that_a_view_or_a_trigger_refuses(mariadb_server: MariaDB) -> None:
    """It calls what is not there, or what this user may not call; or the row would not be shown."""
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        mariadb_server.sql(
            "CREATE TRIGGER t BEFORE INSERT ON alias FOR EACH ROW SET NEW.alias = gone(); "
            "CREATE FUNCTION f() RETURNS TEXT DETERMINISTIC RETURN 'x'; "
            "CREATE VIEW shown AS SELECT * FROM rcpthosts WHERE host LIKE '%.org' "
            "WITH CHECK OPTION",
            name,
        )
        url = mariadb_server.url_of("caller", f"SELECT, INSERT ON {name}.*", name)
        engine = open_engine(Database(url=url), "/")
        with capture_logs() as events:
            for text, why in (
                ("INSERT INTO alias (username) VALUES ('iain')", "gone does not exist"),
                ("INSERT INTO shown VALUES ('x.com')", "CHECK OPTION failed"),
                ("INSERT INTO rcpthosts SELECT f()", "execute command denied"),
            ):
                with pytest.raises(Rejected, match=why):
                    await engine.transaction([Statement(text)])
        await engine.close()
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_a_table_that_is_full_may_be_less_so_later(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        small = Statement("CREATE TABLE small (text CHAR(200)) ENGINE = MEMORY MAX_ROWS = 1")
        twice = Statement("INSERT INTO small SELECT * FROM small")  # MAX_ROWS are a block of them
        await engine.transaction([small, Statement("INSERT INTO small VALUES ('x')")])
        with capture_logs() as events, pytest.raises(Overtaken, match="full"):
            await engine.transaction([twice] * 12)
    assert [event["event"] for event in events] == []


async def running(server: MariaDB, statement: str) -> None:
    """Wait until the server is about a statement that begins so."""
    which = f"SELECT 1 FROM information_schema.processlist WHERE info LIKE '{statement}%'"
    await asyncio.to_thread(until, lambda: server.sql(which), f"it is about {statement}")


@pytest.mark.mariadb
async def test_a_statement_that_somebody_kills(mariadb_server: MariaDB) -> None:
    async with engine_with(mariadb_server.url(mariadb_server.new_database())) as engine:
        (own,) = await engine.fetch("SELECT CONNECTION_ID()")
        asking = asyncio.create_task(engine.fetch("SELECT COUNT(*), SLEEP(60) FROM `mailbox`"))
        await running(mariadb_server, "SELECT COUNT(*), SLEEP")
        mariadb_server.sql(f"KILL QUERY {text_of(own[0])}")
        with capture_logs() as events, pytest.raises(Overtaken):
            await asking
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_a_statement_that_has_to_be_prepared_again(mariadb_url: str) -> None:
    """It is, on another connection."""
    function = (
        "CREATE FUNCTION f() RETURNS INT BEGIN IF EXISTS (SELECT 1 FROM tried) THEN RETURN 7; "
        "END IF; INSERT INTO tried VALUES (1); "
        "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1615; RETURN 1; END"
    )
    table = "CREATE TABLE tried (n INT) ENGINE = MyISAM"  # it keeps what fails
    async with engine_with(mariadb_url) as engine:
        await engine.transaction([Statement(table), Statement(function)])
        with capture_logs() as events:
            assert await engine.fetch("SELECT f()") == [(7,)]
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_a_change_that_waits_for_a_lock_is_no_outage(mariadb_server: MariaDB) -> None:
    """Look-ups work meanwhile, as during a backup."""
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE) as other:
        url = mariadb_server.url(name)
        engine = open_engine(Database(url=url, connect_timeout=1.0, query_timeout=1.0), "/")
        change = Statement("UPDATE `mailbox` SET `home` = '/new'")
        lock = asyncio.create_task(
            other.transaction([change, Statement("UPDATE `mailbox` SET `uid` = SLEEP(4)")])
        )
        await running(mariadb_server, "UPDATE `mailbox` SET `uid`")
        with capture_logs() as events, pytest.raises(Overtaken, match="in time"):
            await engine.transaction([change])
        assert await SqlDirectory(engine).account("iain") is not None
        await lock
        await engine.close()
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_a_view_whose_definer_is_gone(mariadb_server: MariaDB) -> None:
    """As a dump brings it to another server, which is well."""
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE) as engine:
        view = "CREATE DEFINER = nobody@nowhere VIEW mailbox AS SELECT * FROM accounts"
        mariadb_server.sql(f"RENAME TABLE mailbox TO accounts; {view}", name)
        directory = SqlDirectory(engine)
        with capture_logs() as events, pytest.raises(Rejected, match=r"definer"):
            await directory.account("iain")
    assert [event["event"] for event in events] == []


@pytest.mark.mariadb
async def test_recipients_that_wait_together_hear_together_that_a_server_is_gone(
    own_server: MariaDB,
) -> None:
    url = own_server.url(own_server.new_database())
    await _site(url)
    directory = _directory(url)
    await _knows(directory)
    own_server.kill()
    try:
        await asyncio.gather(*(_cannot_know(directory) for _ in range(20)))
    finally:
        own_server.start()
    lookups = await asyncio.gather(*(directory.prefetch([("a", "x.org")]) for _ in range(20)))
    assert [await each.owners("a", "x.org") for each in lookups] == [()] * 20
    await directory.close()


@pytest.mark.mariadb
async def test_wrong_passwords_databases_and_servers(mariadb_server: MariaDB) -> None:
    name = mariadb_server.new_database()
    for url, why in (
        (mariadb_server.url(name, password="wröng"), "Access denied"),
        (mariadb_server.url("missing_database"), "Unknown database"),
        ("mysql://u:secret@127.0.0.1:1/db", "connect"),
        ("mysql://u:secret@/db?unix_socket=/nonexistent", "connect"),
    ):
        directory = _directory(url)
        text = await _cannot_know(directory)
        assert why in text
        assert "secret" not in text
        await directory.close()


async def _speak_no_mysql(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 smtp.example.com ESMTP\r\n" * 4)
    await reader.read()
    writer.close()


async def test_a_server_that_speaks_something_else_or_nothing() -> None:
    server = await asyncio.start_server(_speak_no_mysql, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    directory = _directory(f"mysql://u:p@127.0.0.1:{port}/db", **BRIEF)
    await _cannot_know(directory)
    await directory.close()
    server.close()
    await server.wait_closed()


async def test_a_table_that_is_gone(database_url: str) -> None:
    from restante.directory.engine import Statement

    async with engine_with(database_url, SITE) as engine:
        await engine.transaction([Statement("DROP TABLE `mailbox`")])
        directory = SqlDirectory(engine)
        await _cannot_know(directory)
        assert not await directory.accepts_domain("x.org")


async def test_a_file_that_is_missing_corrupt_replaced(tmp_path: Path) -> None:
    path = tmp_path / "restante.db"
    directory = _directory(f"sqlite:///{path}", query_timeout=0.1)
    await _cannot_know(directory)
    assert not path.exists()
    other = tmp_path / "other.db"
    await _site(f"sqlite:///{other}")
    shutil.copy(other, path)
    await _knows(directory)
    path.unlink()
    await _cannot_know(directory)
    path.write_bytes(b"no database" * 1000)
    await _cannot_know(directory)
    path.unlink()
    path.mkdir()
    await _cannot_know(directory)
    path.rmdir()
    shutil.copy(other, path)
    await _knows(directory)
    await directory.close()


@pytest.mark.parametrize("slashes", [1, 2, 3])
async def test_slashes_before_an_absolute_path_count_as_one(tmp_path: Path, slashes: int) -> None:
    """A URI with two of them would name a host, and SQLite knows none."""
    path = "/" * slashes + str(tmp_path / "restante.db").lstrip("/")
    await _site(f"sqlite:///{path}")
    directory = _directory(f"sqlite:///{path}")
    await _knows(directory)
    await directory.close()


async def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "restante.db"
    await _site(f"sqlite:///{path}")
    assert os.stat(path).st_mode & 0o777 == 0o600


async def test_a_locked_file_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    path = tmp_path / "restante.db"
    await _site(f"sqlite:///{path}")
    directory = _directory(f"sqlite:///{path}", query_timeout=0.5)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    assert "locked" in await _cannot_know(directory)
    waiting = asyncio.create_task(directory.account("iain"))
    await asyncio.sleep(0)
    holder.close()
    assert await waiting is not None
    await directory.close()
