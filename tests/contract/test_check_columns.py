"""What ``check`` says of columns in which names are not found."""

from __future__ import annotations

import re

import pytest

from restante.cli.check.columns import examine_columns
from restante.cli.check.findings import Findings
from restante.directory.engine import Engine, Statement, Value
from restante.directory.lookups import SqlDirectory
from restante.directory.rows import text_of
from restante.directory.schema import INDEXES
from tests.support.directory import Rows, engine_with, fill
from tests.support.mariadb import MariaDB

NAMES = {(t, column) for t, indexes in INDEXES.items() for each in indexes for column in each}
CAPITALS: Rows = {
    "rcpthosts": [("Example.COM",)],
    "mailbox": [("Iain", 1000, 1000, "/Home", "X", "Crypt-Password")],
    "virtual": [("Iain", "Info", "Example.COM"), ("Iain", "low", "example.com")],
    "alias": [("Iain", "List", "./Maildir/", "")],
}
SMALL: Rows = {
    "rcpthosts": [("example.com",), ("École.fr",)],
    "mailbox": [("iain", 1000, 1000, "/Home", "X", "Crypt-Password")],
    "virtual": [("iain", "info", "example.com"), ("iain", "", "École.fr")],
    "alias": [("iain", "other", "|Program", "")],
}


def of_letters(apart: str, same: str) -> dict[str, list[tuple[Value, ...]]]:
    """Names with a capital that a collation tells apart, and beside them one that it does not."""
    return {
        "rcpthosts": [(apart,), (same,)],
        "mailbox": [(name, 1000, 1000, "/h", "x", None) for name in (apart, same)],
        "virtual": [(name, name, name) for name in (apart, same)],
        "alias": [(name, name, "./Maildir/", "") for name in (apart, same)],
    }


async def make_case_sensitive(engine: Engine, column: str) -> None:
    """All tables with names in columns of this type, by a statement that SQLite has as well."""
    tables = {
        "rcpthosts": f"`host` {column}",
        "mailbox": f"`username` {column}, `uid` INT, `gid` INT, `home` VARCHAR(99), "
        "`password` VARCHAR(99), `password_type` VARCHAR(20)",
        "virtual": ", ".join(
            f"`{name}` {column}" for name in ("username", "virtual_username", "virtual_host")
        ),
        "alias": f"`username` {column}, `alias` {column}, `alias_username` VARCHAR(99), "
        "`alias_host` VARCHAR(99)",
    }
    for table, columns in tables.items():
        await engine.transaction(
            [Statement(f"DROP TABLE `{table}`"), Statement(f"CREATE TABLE `{table}` ({columns})")]
        )


async def problems_of(engine: Engine) -> list[str]:
    findings = Findings()
    await examine_columns(engine, findings)
    assert findings.advice == []
    return findings.problems


async def check_that_capitals_are_named(engine: Engine) -> list[str]:
    """Each column is named once; what the problems say of UPDATE lets the rows be found."""
    await fill(engine, CAPITALS)
    problems = await problems_of(engine)
    named = {tuple(problem.split(" ")[0].split(".")) for problem in problems}
    assert named == NAMES
    assert len(problems) == len(NAMES)
    updates = [re.search("UPDATE .*?(?=, or )", problem) for problem in problems]
    await engine.transaction([Statement(found[0]) for found in updates if found])
    assert await problems_of(engine) == []
    directory = SqlDirectory(engine)
    assert await directory.accepts_domain("example.com")
    assert await directory.owners("info", "example.com") == ("iain",)
    assert await directory.account("iain") is not None
    assert await directory.instructions("iain", "list") == ("./Maildir/",)
    return problems


async def test_capitals_in_our_own_tables_are_no_problem(database_url: str) -> None:
    async with engine_with(database_url, CAPITALS) as engine:
        assert await problems_of(engine) == []


async def test_capitals_that_sqlite_tells_apart(sqlite_url: str) -> None:
    async with engine_with(sqlite_url) as engine:
        await make_case_sensitive(engine, "TEXT")
        await fill(engine, SMALL)
        assert await problems_of(engine) == []
        problems = await check_that_capitals_are_named(engine)
        assert all("COLLATE NOCASE" in problem for problem in problems)
        assert "'Example.COM'" in problems[0]


async def test_names_that_were_written_to_sqlite_as_octets(sqlite_url: str) -> None:
    """By a program that binds bytes: what was advised of them lets look-ups find them."""
    octets: Rows = {
        "rcpthosts": [(b"example.com",)],
        "mailbox": [(b"Iain", 1000, 1000, "/home", "x", None), ("ann", 1, 1, "/h", "x", None)],
        "virtual": [(b"iain", b"info", b"example.com")],
        "alias": [(b"iain", b"list", "./Maildir/", "")],
    }
    async with engine_with(sqlite_url, octets) as engine:
        problems = await problems_of(engine)
        assert {tuple(problem.split(" ")[0].split(".")) for problem in problems} == NAMES
        assert len(problems) == len(NAMES)
        updates = [Statement(problem[problem.index("UPDATE ") :]) for problem in problems]
        await engine.transaction(updates)
        assert await problems_of(engine) == []
        directory = SqlDirectory(engine)
        assert await directory.accepts_domain("example.com")
        assert await directory.owners("info", "example.com") == ("iain",)
        assert await directory.account("iain") is not None
        assert await directory.instructions("iain", "list") == ("./Maildir/",)


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "column",
    [
        "VARCHAR(99) COLLATE utf8mb4_bin",
        "VARCHAR(99) CHARACTER SET latin1 COLLATE latin1_general_cs",
        "VARCHAR(99) CHARACTER SET latin1 BINARY",
        "VARBINARY(99)",
    ],
)
async def test_capitals_that_mariadb_tells_apart(mariadb_url: str, column: str) -> None:
    async with engine_with(mariadb_url) as engine:
        await make_case_sensitive(engine, column)
        await fill(engine, SMALL)
        assert await problems_of(engine) == []
        await check_that_capitals_are_named(engine)


@pytest.mark.mariadb
@pytest.mark.parametrize("mend", ["UPDATE .*?(?=, or )", "ALTER .*"])
@pytest.mark.parametrize(
    ("language", "rows"), [("turkish", of_letters("I", "X")), ("czech", of_letters("cH", "Ch"))]
)
async def test_capitals_that_only_turkish_or_czech_tells_apart(
    mariadb_url: str, mend: str, language: str, rows: Rows
) -> None:
    async with engine_with(mariadb_url) as engine:
        await make_case_sensitive(engine, f"VARCHAR(99) COLLATE utf8mb4_{language}_ci")
        await fill(engine, rows)
        problems = await problems_of(engine)
        assert {tuple(problem.split(" ")[0].split(".")) for problem in problems} == NAMES
        found = dict.fromkeys(re.findall(mend, "\n".join(problems)))
        await engine.transaction([Statement(change) for change in found])
        assert await problems_of(engine) == []
        directory = SqlDirectory(engine)
        name = text_of(next(iter(rows["rcpthosts"]))[0]).lower()
        assert await directory.accepts_domain(name)
        assert await directory.owners(name, name) != ()
        assert await directory.account(name) is not None
        assert await directory.instructions(name, name) == ("./Maildir/",)


async def test_blanks_at_the_ends_of_names(database_url: str) -> None:
    """As a panel leaves them that does not trim what is typed; qmail found those at the end."""
    rows: Rows = {
        "rcpthosts": [("x.org ",), ("y.org",)],
        "mailbox": [("ann ", 1000, 1000, "/h", "x", None)],
        "virtual": [("ann ", " ann", "x.org ")],
        "alias": [("ann ", "list ", "./Maildir/ ", "")],
    }
    async with engine_with(database_url, rows) as engine:
        findings = Findings()
        await examine_columns(engine, findings)
        assert {tuple(line.split(" ")[0].split(".")) for line in findings.advice} == NAMES
        updates = [Statement(line[line.index("UPDATE ") :]) for line in findings.advice]
        await engine.transaction(updates)
        assert await problems_of(engine) == []
        directory = SqlDirectory(engine)
        assert await directory.accepts_domain("x.org")
        assert await directory.owners("ann", "x.org") == ("ann",)
        assert await directory.account("ann") is not None
        assert await directory.instructions("ann", "list") == ("./Maildir/ ",)


@pytest.mark.mariadb
async def test_another_collation_mends_it_too(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        await make_case_sensitive(engine, "VARCHAR(99) COLLATE utf8mb4_bin")
        await fill(engine, CAPITALS)
        changes = {problem.rpartition(", or ")[2] for problem in await problems_of(engine)}
        await engine.transaction([Statement(change) for change in sorted(changes)])
        assert await problems_of(engine) == []
        assert await SqlDirectory(engine).owners("info", "example.com") == ("Iain",)


@pytest.mark.mariadb
async def test_blanks_that_the_server_adds(mariadb_server: MariaDB) -> None:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SMALL) as engine:
        mariadb_server.sql("ALTER TABLE mailbox MODIFY username CHAR(99), ADD note CHAR(9)", name)
        assert await problems_of(engine) == []
        before = mariadb_server.sql("SELECT @@GLOBAL.sql_mode").strip()
        mariadb_server.sql("SET GLOBAL sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'")
        try:
            async with engine_with(mariadb_server.url(name)) as engine_then:
                (problem,) = await problems_of(engine_then)
        finally:
            mariadb_server.sql(f"SET GLOBAL sql_mode = '{before}'")
        assert problem.startswith("mailbox.username is CHAR")
