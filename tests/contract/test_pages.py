"""Tables of which one statement reads a page at the most, on every engine."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from restante.address import Address
from restante.cli.check.columns import examine_columns
from restante.cli.check.findings import Findings
from restante.cli.check.passwords import examine_passwords
from restante.cli.check.rows import examine_rows
from restante.config.tree import Database, Settings
from restante.directory.admin import Administration, AliasEntry, Mailboxes
from restante.directory.engine import Dialect, Engine, Row, Statement, Value, open_engine
from restante.directory.pages import PAGE, first_rows, pages
from restante.directory.rows import text_of
from restante.directory.schema import TABLES
from restante.errors import OperatorError
from restante.service.user import serving_uid
from tests.support.directory import Rows, engine_with

OWN = os.geteuid() or 1000
"""A uid that a server of whoever runs the tests delivers to."""
MANY = 3 * PAGE + 7
NAMES = [f"u{number:06}" for number in range(MANY)]
SITE: Rows = {
    "rcpthosts": [("x.org",)],
    "mailbox": [(name, OWN, OWN, "/h", "{PLAIN}x", None) for name in NAMES],
    "virtual": [(name, name, "x.org") for name in NAMES],
    "alias": [("alias", f"{name}@x.org", "u000000", "x.org") for name in NAMES],
}
READ = (
    "SHOW SESSION STATUS WHERE Variable_name IN "
    "('Handler_read_rnd_next', 'Handler_read_next', 'Handler_read_first', 'Handler_read_key')"
)
MOST = 6 * PAGE
"""Rows that a statement may read: those of a page, and what is looked up for each of them."""


async def fill_in_bulk(engine: Engine, rows: Rows) -> None:
    """As ``fill``, with many rows in a statement."""
    for table, given in rows.items():
        some = list(given)
        columns = ", ".join(f"`{column}`" for column in TABLES[table])
        for start in range(0, len(some), 1000):
            part = some[start : start + 1000]
            marks = ", ".join([f"({', '.join('?' * len(part[0]))})"] * len(part))
            text = f"INSERT INTO `{table}` ({columns}) VALUES {marks}"
            values = tuple(value for row in part for value in row)
            await engine.transaction([Statement(text, values)])


async def paged(engine: Engine, table: str) -> list[Counter[Row]]:
    """The rows of each page."""
    columns = ", ".join(f"`{column}`" for column in TABLES[table])
    return [
        Counter(
            await engine.fetch(f"SELECT {columns} FROM `{table}` WHERE {page.text}", page.values)
        )
        async for page in pages(engine, table)
    ]


@pytest.mark.parametrize("table", TABLES)
async def test_each_row_is_in_one_page(database_url: str, table: str) -> None:
    async with engine_with(database_url) as engine:
        for some in (SITE[table], [], [*SITE[table]][:PAGE], [*SITE[table]][: PAGE - 1]):
            await engine.transaction([Statement(f"DELETE FROM `{table}`")])
            await fill_in_bulk(engine, {table: some})
            found = await paged(engine, table)
            assert sum(found, Counter()) == Counter(some)
            assert max(map(len, found)) <= PAGE


async def test_rows_with_one_key_stay_together(database_url: str) -> None:
    """More than a page has, and names among them that only the database takes for equal."""
    same = [(name, "Info" if place % 2 else "info", "x.org") for place, name in enumerate(NAMES)]
    rows = [("a", "a", "x.org"), *same, ("z", "z", "x.org")]
    async with engine_with(database_url) as engine:
        await fill_in_bulk(engine, {"virtual": rows})
        found = await paged(engine, "virtual")
    assert sum(found, Counter()) == Counter(rows)
    assert all(part.keys() >= set(same) or part.keys().isdisjoint(same) for part in found)


async def test_null_ends_no_table(database_url: str) -> None:
    """It sorts before all else, and nothing is larger; tables of a site's own may have it."""
    nulls = [("a", None, None)] * PAGE + [("b", None, "x.org")] * PAGE
    async with engine_with(database_url) as engine:
        columns = ", ".join(f"`{column}` VARCHAR(99)" for column in TABLES["virtual"])
        for text in ("DROP TABLE `virtual`", f"CREATE TABLE `virtual` ({columns})"):
            await engine.transaction([Statement(text)])
        await fill_in_bulk(engine, {"virtual": [*nulls, *SITE["virtual"]]})
        assert sum(await paged(engine, "virtual"), Counter()) == Counter(SITE["virtual"])


async def check(engine: Engine) -> list[str]:
    """All that ``check`` says of the rows."""
    settings, found = Settings("/"), Findings()
    await examine_columns(engine, found)
    await examine_rows(engine, settings, found)
    await examine_passwords(engine, settings.auth, found)
    return [*found.problems, *found.advice]


async def test_what_is_wrong_is_found_on_the_last_page(database_url: str) -> None:
    wrong: Rows = {
        "rcpthosts": [("zzz.org",)],
        "mailbox": [
            ("z1", OWN, OWN, "home", "x", "Password"),
            ("z4", serving_uid(Settings("/")), OWN, "/h", "x", "Password"),
        ],
        "virtual": [("", "z2", "x.org"), ("nobody", "z3", "x.org")],
        "alias": [("z4", "", "|run", "")],
    }
    async with engine_with(database_url) as engine:
        await fill_in_bulk(engine, SITE)
        assert await check(engine) == []
        await fill_in_bulk(engine, wrong)
        told = await check(engine)
    beginnings = (
        "the mailbox z1: its home is",
        "virtual has a row for z2@x.org without a username",
        "alias has '|run' for z4",
        "virtual gives z3@x.org to 'nobody'",
        "the domain zzz.org has no addresses",
    )
    for line, beginning in zip(told, beginnings, strict=True):
        assert line.startswith(beginning)


async def test_the_first_rows_are_so_many(sqlite_url: str) -> None:
    async with engine_with(sqlite_url) as engine:
        await fill_in_bulk(engine, SITE)
        for most in (1, PAGE, PAGE + 1, 2 * PAGE):
            found = await first_rows(engine, "mailbox", "`uid`", "`uid` > ?", (1,), most=most)
            assert len(found) == most


async def test_lists_are_whole(database_url: str) -> None:
    """Those of a domain as well, and its rows are all counted."""
    others: Rows = {
        "rcpthosts": [("y.org",)],
        "mailbox": [("a@y.org", OWN, OWN, "/h", "x", None)],
        "virtual": [("u000003", "", "y.org")],
        "alias": [("alias", "a@y.org", "u000000", "x.org")],
    }
    async with engine_with(database_url) as engine:
        await fill_in_bulk(engine, SITE)
        await fill_in_bulk(engine, others)
        admin = Administration(engine)
        aliases = ["a@y.org", *(f"{name}@x.org" for name in NAMES)]
        assert await names(admin.mailboxes()) == ["a@y.org", *NAMES]
        assert await names(admin.mailboxes("y.org")) == ["a@y.org", "u000003"]
        assert await names(admin.mailboxes("x.org")) == NAMES
        assert [each.address async for some in admin.aliases() for each in some] == aliases
        assert [each.address async for some in admin.aliases("y.org") for each in some] == [
            "a@y.org"
        ]
        homes = admin.homes_of_others(Address("a", "y.org"))
        assert [each.name async for some in homes for each in some] == NAMES
        with pytest.raises(OperatorError, match=f"{MANY} rows"):
            await admin.remove_domain("x.org")


async def names(found: AsyncIterator[Mailboxes]) -> list[str]:
    return [account.name async for some in found for account in some.accounts]


async def administer(engine: Engine) -> None:
    """All that the commands of administration look for in whole tables."""
    admin = Administration(engine)
    for domain in (None, "x.org"):
        await names(admin.mailboxes(domain))
        assert [each async for each in admin.aliases(domain)]
    assert [each async for each in admin.homes_of_others(Address("u000000", ""))]
    with pytest.raises(OperatorError, match="still has"):
        await admin.remove_domain("x.org")
    with pytest.raises(OperatorError, match="no alias"):
        await admin.remove_alias(AliasEntry("a", "b"))
    await admin.remove_mailbox(Address("u000000", ""))


@pytest.mark.mariadb
async def test_no_statement_reads_more_than_a_page(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        await fill_in_bulk(engine, SITE)
        await engine.fetch("ANALYZE TABLE `rcpthosts`, `mailbox`, `virtual`, `alias`")
    watched = Watched(open_engine(Database(url=mariadb_url, pool_size=1), "/"))
    await check(watched)
    await administer(watched)
    await watched.close()
    assert {sql: read for sql, read in watched.read.items() if read > MOST} == {}


async def test_pages_are_found_by_the_key(sqlite_url: str) -> None:
    """SQLite reads a table on only for its first page."""
    async with engine_with(sqlite_url) as engine:
        await fill_in_bulk(engine, SITE)
        planned = Planned(engine)
        await check(planned)
        await administer(planned)
    later = [sql for sql in planned.plans if re.search("(name|alias|host)`\\)? > ", sql)]
    steps = {step for sql in later for step in planned.plans[sql]}
    assert steps
    for word in ("SCAN", "TEMP B-TREE", "MULTI-INDEX"):
        assert not any(word in step for step in steps), steps


class Asked:
    """An engine that others are made of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def dialect(self) -> Dialect:
        """See Engine."""
        return self._engine.dialect

    @property
    def concurrency(self) -> int:
        """See Engine."""
        return self._engine.concurrency

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        """See Engine."""
        return await self._engine.transaction(statements)

    async def close(self) -> None:
        """See Engine."""
        await self._engine.close()


class Watched(Asked):
    """An engine, and how many rows each of its statements reads at the most."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.read: dict[str, int] = {}

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """See Engine."""
        before = await self._count()
        rows = await self._engine.fetch(sql, params)
        self.read[sql] = max(self.read.get(sql, 0), await self._count() - before)
        return rows

    async def _count(self) -> int:
        return sum(int(text_of(count)) for _, count in await self._engine.fetch(READ))


class Planned(Asked):
    """An engine, and how SQLite goes about its statements."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.plans: dict[str, list[str]] = {}

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """See Engine."""
        plan = await self._engine.fetch(f"EXPLAIN QUERY PLAN {sql}", params)
        self.plans[sql] = [str(row[3]) for row in plan]
        return await self._engine.fetch(sql, params)
