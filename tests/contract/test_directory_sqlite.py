"""SQLite's tables: those of a former version work on, and new ones are found in one descent."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from restante.address import Address
from restante.config.tree import Database
from restante.directory import Account, sql
from restante.directory.admin import Administration
from restante.directory.engine import SQLITE, Overtaken, Rejected, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.pages import PAGE
from restante.directory.schema import inspect
from restante.directory.sql import OrdinaryShape
from restante.directory.sqlite import PAGE_CACHE
from restante.errors import CannotKnow
from tests.support.directory import Rows, engine_with, fill
from tests.support.events import capture_logs
from tests.support.owner import owners_rights
from tests.support.small_disk import small_disk

FORMER = """
CREATE TABLE `rcpthosts` (`host` TEXT NOT NULL COLLATE NOCASE PRIMARY KEY);
CREATE TABLE `mailbox` (
    `username` TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, `uid` INTEGER NOT NULL,
    `gid` INTEGER NOT NULL, `home` TEXT NOT NULL, `password` TEXT,
    `password_type` TEXT DEFAULT 'MySQL-Password'
);
CREATE TABLE `virtual` (
    `username` TEXT NOT NULL COLLATE NOCASE,
    `virtual_username` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `virtual_host` TEXT NOT NULL COLLATE NOCASE
);
CREATE TABLE `alias` (
    `username` TEXT NOT NULL COLLATE NOCASE, `alias` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `alias_username` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `alias_host` TEXT NOT NULL DEFAULT '' COLLATE NOCASE
);
CREATE INDEX `virtual_address` ON `virtual` (`virtual_host`, `virtual_username`);
CREATE INDEX `virtual_owner` ON `virtual` (`username`);
CREATE INDEX `alias_user` ON `alias` (`username`, `alias`);
INSERT INTO rcpthosts VALUES ('example.com');
INSERT INTO mailbox VALUES ('iain@example.com', 1000, 1001, '/home/iain', '{PLAIN}x', 'Password');
INSERT INTO `virtual` VALUES ('iain@example.com', 'iain', 'example.com');
"""
"""A file as a former version made it, with a mailbox in it."""
EXTRA = 3
"""What ``PRAGMA synchronous`` says where the directory is synced after the journal is removed."""
TABLES = "SELECT name, sql FROM sqlite_schema ORDER BY name"


async def test_a_file_of_a_former_version_works_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "restante.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(FORMER)
        before = database.execute(TABLES).fetchall()
    engine = open_engine(Database(f"sqlite:///{path}"), "/", create=True)
    administration, directory = Administration(engine), SqlDirectory(engine)
    await administration.create_schema()
    inspection = await inspect(engine)
    assert (inspection.problems, inspection.advice) == ((), ())
    ann = Account("ann@example.com", 1000, 1001, "/home/ann")
    await administration.add_mailbox(Address("ann", "example.com"), ann, "{PLAIN}y", "Password")
    for name in ("iain", "ann"):
        found = await directory.prefetch([(name, "example.com")])
        assert await found.owners(name, "EXAMPLE.com") == (f"{name}@example.com",)
        login = await directory.credentials(f"{name.title()}@example.com")
        assert login is not None
        assert await directory.replace_password(login, "{PLAIN}z")
    await engine.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(TABLES).fetchall() == before


async def test_a_row_of_a_new_file_is_found_in_one_descent(tmp_path: Path) -> None:
    """No step of a plan goes by an index to a row that lies elsewhere, but for aliases."""
    statements = {
        sql.credentials(SQLITE): ("m",),
        sql.account(SQLITE): ("mailbox",),
        sql.owners(SQLITE): ("virtual",),
        sql.ordinary(SQLITE, OrdinaryShape(1, one_domain=True)): ("v", "r", "m", "a"),
        sql.ordinary(SQLITE, OrdinaryShape(2, one_domain=False)): ("v", "m", "a", "rcpthosts"),
    }
    async with engine_with(f"sqlite:///{tmp_path / 'restante.db'}") as engine:
        for statement, tables in statements.items():
            parameters = ("x",) * statement.count("?")
            plan = await engine.fetch(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [str(row[3]) for row in plan]
            searches = {step.split()[1]: step for step in steps if step.startswith("SEARCH")}
            assert set(searches) == set(tables), steps
            for table, step in searches.items():
                found = "USING PRIMARY KEY" in step or "COVERING INDEX" in step
                assert found or table == "a", step


LATIN_1 = b"geheim-\xfcx"
KEPT = LATIN_1.decode("utf-8", "surrogateescape")
BOB: Rows = {
    "mailbox": [("bob@x.org", 1001, 1001, "/home/bob", "x", None)],
    "virtual": [("bob@x.org", "bob", "x.org")],
}


def in_latin_1(table: str, column: str) -> Statement:
    """Let the rows have a TEXT that is no UTF-8, as a script writes it."""
    return Statement(f"UPDATE `{table}` SET `{column}` = CAST(? AS TEXT)", (LATIN_1,))


async def test_a_password_that_is_no_utf8_is_its_octets_and_told_to_nobody(tmp_path: Path) -> None:
    async with engine_with(f"sqlite:///{tmp_path / 'restante.db'}", BOB) as engine:
        await engine.transaction([in_latin_1("mailbox", "password")])
        directory = SqlDirectory(engine)
        with capture_logs() as events:
            found = await directory.credentials("bob@x.org")
            assert found is not None
            assert found.password == KEPT
            assert await directory.replace_password(found, "{PLAIN}y")
            assert not await directory.replace_password(found, "{PLAIN}z"), "it is another one now"
        assert events == []


async def test_a_row_that_is_no_utf8_spoils_no_other_recipient(tmp_path: Path) -> None:
    rows: Rows = {"alias": [("alias", "info@x.org", "", "x.org")]}
    async with engine_with(f"sqlite:///{tmp_path / 'restante.db'}", rows) as engine:
        await engine.transaction([in_latin_1("alias", "alias_username")])
        await fill(engine, {**BOB, "virtual": [*BOB["virtual"], ("info@x.org", "info", "x.org")]})
        with capture_logs() as events:
            known = await SqlDirectory(engine).prefetch([("info", "x.org"), ("bob", "x.org")])
        assert events == []
        assert known.simply_owned("bob", "x.org") is not None
        assert await known.instructions("alias", "info@x.org") == (f"&{KEPT}@x.org",)


async def test_names_that_are_no_utf8_can_be_looked_up_and_read_in_pages(tmp_path: Path) -> None:
    octets = [b"\xfc%d" % number for number in range(PAGE + 1)]
    names = {each.decode("utf-8", "surrogateescape") for each in octets}
    async with engine_with(f"sqlite:///{tmp_path / 'restante.db'}", BOB) as engine:
        add = "INSERT INTO alias (username, alias_username) VALUES (CAST(? AS TEXT), 'a@x.org')"
        await engine.transaction([Statement(add, (each,)) for each in octets])
        listed = [entry async for page in Administration(engine).aliases() for entry in page]
        assert {entry.address for entry in listed} == names
        assert len(listed) == len(names)
        await engine.transaction([in_latin_1("mailbox", "username")])
        assert await SqlDirectory(engine).account(KEPT) == Account(KEPT, 1001, 1001, "/home/bob")


@pytest.mark.parametrize("modes", [(0o755, 0o444), (0o555, 0o666)], ids=["file", "directory"])
async def test_a_file_that_may_only_be_read_is_not_away(
    tmp_path: Path, modes: tuple[int, int]
) -> None:
    """For a hash that is to be upgraded; when it may be written, it is, without a new start."""
    place = tmp_path / "database"
    place.mkdir()
    path = place / "restante.db"
    async with engine_with(f"sqlite:///{path}", BOB):
        pass
    engine = open_engine(Database(f"sqlite:///{path}"), "/")
    directory = SqlDirectory(engine)
    path.chmod(modes[1])
    place.chmod(modes[0])
    with owners_rights(tmp_path), capture_logs() as events:
        found = await directory.credentials("bob@x.org")
        assert found is not None
        with pytest.raises(Rejected):
            await directory.replace_password(found, "{PLAIN}y")
    place.chmod(0o777)
    path.chmod(0o666)
    with owners_rights(tmp_path), capture_logs() as later:
        assert await directory.replace_password(found, "{PLAIN}y")
    await engine.close()
    assert events == later == []


async def test_a_file_that_is_full_is_not_away(tmp_path: Path) -> None:
    """Nor will it be full for ever."""
    async with engine_with(f"sqlite:///{tmp_path}/restante.db", BOB) as engine:
        await engine.fetch("PRAGMA max_page_count = 1")  # no less than it has
        directory = SqlDirectory(engine)
        found = await directory.credentials("bob@x.org")
        assert found is not None
        with capture_logs() as events, pytest.raises(Overtaken, match="full"):
            await directory.replace_password(found, "x" * 100_000)
        assert await directory.credentials("bob@x.org") == found
    assert events == []


async def test_each_connection_keeps_few_pages_and_what_it_has_told_of(tmp_path: Path) -> None:
    path, restored = tmp_path / "restante.db", tmp_path / "restored.db"
    wanted = {"PRAGMA cache_size": [(-PAGE_CACHE,)], "PRAGMA synchronous": [(EXTRA,)]}
    async with engine_with(f"sqlite:///{path}") as engine:
        assert {pragma: await engine.fetch(pragma) for pragma in wanted} == wanted
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"VACUUM INTO '{restored}'")
        restored.rename(path)
        assert {pragma: await engine.fetch(pragma) for pragma in wanted} == wanted


async def test_a_file_on_a_full_disk_can_be_read_from_the_first(tmp_path: Path) -> None:
    """Its first reader is whoever may make room."""
    with small_disk(tmp_path / "disk") as disk:
        database = Database(f"sqlite:///{disk.directory}/restante.db")
        engine = open_engine(database, "/", create=True)
        await Administration(engine).create_schema()
        await Administration(engine).add_domain("example.com")
        await engine.close()
        disk.fill()
        reader = open_engine(database, "/")
        assert await SqlDirectory(reader).accepts_domain("example.com")
        await reader.close()


async def test_a_write_ahead_log_that_has_no_room_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk.directory / "restante.db"
        with closing(sqlite3.connect(path)) as made:
            made.execute("PRAGMA journal_mode = WAL")
            made.executescript(FORMER)
        disk.fill()
        engine = open_engine(Database(f"sqlite:///{path}"), "/")
        with pytest.raises(CannotKnow, match="no room for the index of its write-ahead log"):
            await engine.fetch("SELECT 1 FROM mailbox")
        await engine.close()
