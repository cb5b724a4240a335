"""Invariant: what a prefetch answers is what the database answers when it is asked directly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restante.address import Address
from restante.config.tree import Database, Routing
from restante.directory import Account, BadRow, KnownLookups, Lookups
from restante.directory.engine import Dialect, Engine, Rejected, Row, Statement, Value, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.question import MAX_ORDINARY
from restante.directory.schema import TABLES
from restante.errors import CannotKnow
from restante.routing.decision import Mailbox, NoSuchUser, Remote, Unknown
from restante.routing.router import Router
from tests.support.directory import Rows, directory_with, engine_with, fill
from tests.support.mariadb import MariaDB

LOCALS = ["", "a", "A", "a-b", "a-b-c", "é", "e", "a@x.org", "a-b@x.org", "alias", "a ", "%"]
DOMAINS = ["x.org", "X.org", "é.fr", "e.fr", "xn--9ca.fr", "y.net"]
T = TypeVar("T")

name = st.sampled_from(LOCALS)
host = st.sampled_from(DOMAINS)
databases = st.fixed_dictionaries(
    {
        "rcpthosts": st.lists(st.tuples(host), max_size=2, unique_by=lambda row: _key(row[0])),
        "mailbox": st.lists(
            st.tuples(
                name,
                st.integers(0, 3),
                st.integers(0, 3),
                st.sampled_from(["/h", "bad"]),
                st.none(),
                st.none(),
            ),
            max_size=4,
            unique_by=lambda row: _key(row[0]),
        ),
        "virtual": st.lists(st.tuples(name, name, host), max_size=6),
        "alias": st.lists(st.tuples(name, name, name, st.sampled_from(["", "x.org"])), max_size=6),
    }
)
addresses = st.lists(st.tuples(name, host), min_size=1, max_size=4)


def _key(text: str) -> str:
    """What the strictest unique key takes for the same name."""
    return text.strip().lower().replace("é", "e")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=databases, asked=addresses)
def test_on_sqlite(rows: Rows, asked: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'db'}"
        asyncio.run(_check(url, rows, asked))


@pytest.mark.mariadb
def test_on_mariadb(mariadb_server: MariaDB) -> None:
    url = mariadb_server.url(mariadb_server.new_database())

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows=databases, asked=addresses)
    def check(rows: Rows, asked: list[tuple[str, str]]) -> None:
        asyncio.run(_check(url, rows, asked))

    check()


async def _check(url: str, rows: Rows, asked: list[tuple[str, str]]) -> None:
    async with engine_with(url) as engine:
        await engine.transaction([Statement(f"DELETE FROM `{table}`") for table in rows])
        await fill(engine, rows)
        directory = SqlDirectory(engine)
        await _check_answers(await directory.prefetch(asked), directory)
        await _check_answers(await SqlDirectory(WithoutWith(engine)).prefetch(asked), directory)


async def _check_answers(fetched: KnownLookups, directory: SqlDirectory) -> None:
    for domain in DOMAINS:
        assert not fetched.is_accepted(domain) or await directory.accepts_domain(domain)
        assert await fetched.accepts_domain(domain) == await directory.accepts_domain(domain)
        assert await fetched.knows_domain(domain) == await directory.knows_domain(domain)
    for local in LOCALS:
        await _same(fetched.account(local), directory.account(local))
    for local, domain in product(LOCALS, DOMAINS):
        await _same(fetched.owners(local, domain), directory.owners(local, domain))
        if simply := fetched.simply_owned(local, domain):
            owner, account = simply
            assert (await directory.owners(local, domain))[0] == owner
            assert await directory.account(owner) == account
            assert await directory.instructions(account.name, "") == ()
    for user, extension in product(LOCALS, LOCALS):
        await _same(fetched.instructions(user, extension), directory.instructions(user, extension))


async def _same(one: Awaitable[T], other: Awaitable[T]) -> None:
    assert await _outcome(one) == await _outcome(other)


async def _outcome(question: Awaitable[T]) -> T | str:
    try:
        return await question
    except BadRow as error:
        return str(error)


class Counting:
    """An engine that counts what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked = 0

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    @property
    def concurrency(self) -> int:
        return self._engine.concurrency

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        self.asked += 1
        return await self._engine.fetch(sql, params)

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        return await self._engine.transaction(statements)

    async def close(self) -> None:
        await self._engine.close()


class WithoutWith(Counting):
    """A server from before common table expressions: 1064, ER_PARSE_ERROR."""

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        if sql.startswith("WITH "):
            raise Rejected("You have an error in your SQL syntax (1064)")
        return await super().fetch(sql, params)


class Changing(Counting):
    """An engine with rows that somebody writes just before the statement of this number."""

    def __init__(self, engine: Engine, before: int, rows: Rows) -> None:
        super().__init__(engine)
        self._before = before
        self._rows = rows

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        if self.asked == self._before:
            await fill(self._engine, self._rows)
        return await super().fetch(sql, params)


async def _route_like(lookups: Lookups, local: str, domain: str) -> None:
    """Ask what routing asks about an address of a virtual domain."""
    await lookups.accepts_domain(domain)
    found = await lookups.owners(local, domain) or await lookups.owners("", domain)
    await lookups.knows_domain(domain)
    for owner in found:
        if await lookups.account(owner) is None:
            assert await lookups.instructions("alias", owner)
        else:
            await lookups.instructions(owner, "")


@pytest.mark.parametrize("local", ["anna", "example", "sales", "anybody", "Anna", "anna-list"])
async def test_an_address_costs_one_statement(database_url: str, local: str) -> None:
    rows: Rows = {
        "rcpthosts": [("x.org",)],
        "mailbox": [(who, 1, 1, "/h", None, None) for who in ("anna@x.org", "iain", "all")],
        "virtual": [
            ("anna@x.org", "anna", "x.org"),
            ("iain", "example", "x.org"),
            ("sales@x.org", "sales", "x.org"),
            ("all", "", "x.org"),
        ],
        "alias": [("alias", "sales@x.org", "anna", "x.org")],
    }
    async with engine_with(database_url, rows) as engine:
        counting = Counting(engine)
        lookups = await SqlDirectory(counting).prefetch([(local, "x.org")])
        await _route_like(lookups, local, "x.org")
        assert counting.asked == 1


@pytest.mark.parametrize("domain", ["x.org", "é.fr"])
async def test_a_login_is_asked_for_in_full_whoever_has_it(database_url: str, domain: str) -> None:
    """By its own name, by another address, by nobody: the number of round trips does not tell."""
    rows: Rows = {
        "mailbox": [(f"anna@{domain}", 1, 1, "/h", None, None)],
        "virtual": [(f"anna@{domain}", "sales", domain)],
    }
    async with engine_with(database_url, rows) as engine:
        asked = []
        for local in ("anna", "sales", "nobody"):
            counting = Counting(engine)
            directory = SqlDirectory(counting)
            found = await directory.credentials(f"{local}@{domain}", in_full=True)
            assert found == await directory.credentials(f"{local}@{domain}")
            assert (found is None) == (local == "nobody")
            counting.asked = 0
            await directory.credentials(f"{local}@{domain}", in_full=True)
            asked.append(counting.asked)
        assert len(set(asked)) == 1


async def test_a_mailbox_is_told_without_waiting(database_url: str) -> None:
    rows: Rows = {
        "rcpthosts": [("x.org",)],
        "mailbox": [(who, 1, 1, "/h", None, None) for who in ("anna", "iain", "bad")]
        + [("wrong", 1, 1, "no path", None, None)],
        "virtual": [(who, who, "x.org") for who in ("anna", "iain", "list", "wrong")]
        + [("", "nobody", "x.org")],
        "alias": [("alias", "list", "anna", "x.org"), ("iain", "", "anna", "x.org")],
    }
    asked = [(who, "x.org") for who in ("Anna", "iain", "list", "wrong", "nobody", "none")]
    async with directory_with(database_url, rows) as directory:
        fetched = await directory.prefetch(asked)
        simply = [fetched.simply_owned(*pair) for pair in asked]
        assert simply == [("anna", Account("anna", 1, 1, "/h")), *[None] * 5]
        assert fetched.is_accepted("X.org")
        assert not fetched.is_accepted("y.net")


async def test_what_is_not_ordinary_costs_a_few_statements_and_then_one_for_the_rest(
    database_url: str,
) -> None:
    rows: Rows = {
        "mailbox": [(who, 1, 1, "/h", None, None) for who in ("anna", "anna@x.org")],
        "alias": [("anna", "a-b", "list", "x.org"), ("alias", "anna-a-b", "all", "x.org")],
    }
    async with engine_with(database_url, rows) as engine:
        counting = Counting(engine)
        lookups = await SqlDirectory(counting).prefetch([("anna-a-b", "x.org")])
        at_first = counting.asked
        assert await lookups.account("anna-a-b") is None
        assert await lookups.account("anna-a") is None
        assert counting.asked == at_first + 2
        for name in ("anna", "anna@x.org"):
            assert await lookups.account(name) is not None
            assert await lookups.instructions(name, "") == ()
        assert await lookups.instructions("anna", "a-b") == ("&list@x.org",)
        assert await lookups.instructions("alias", "anna-a-b") == ("&all@x.org",)
        assert counting.asked == at_first + 3


class Afar(Counting):
    """An engine that lets others go on while a statement is under way, or fails at this one."""

    fails_at = 0

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        rows = await super().fetch(sql, params)
        is_failing = self.asked == self.fails_at
        await asyncio.sleep(0)
        if is_failing:
            raise CannotKnow("no answer in time")
        return rows


async def test_what_is_asked_side_by_side_has_one_statement_for_the_rest(
    database_url: str,
) -> None:
    names = [f"anna-{number}" for number in range(12)]
    mailboxes: Rows = {"mailbox": [(name, 1, 1, "/h", None, None) for name in names]}
    async with engine_with(database_url, mailboxes) as engine:
        remote = Afar(engine)
        lookups = await SqlDirectory(remote).prefetch([(name, "x.org") for name in names])
        singly = 2 + len(names) // 4
        remote.fails_at = remote.asked + singly + 1
        asking = [lookups.knows_domain(f"{name}.org") for name in names[:singly]]
        await asyncio.gather(*asking)
        rest = [lookups.instructions(name, "") for name in names]
        found = await asyncio.gather(*rest, return_exceptions=True)
        assert [type(each) for each in found] == [CannotKnow] * len(names)
        assert remote.asked == remote.fails_at
        rest = [lookups.instructions(name, "") for name in names]
        assert await asyncio.gather(*rest) == [()] * len(names), "a failure is not kept"
        assert remote.asked == remote.fails_at + 1


async def test_a_domain_of_others_costs_two_statements(database_url: str) -> None:
    async with engine_with(database_url, {"virtual": [("anna", "anna", "x.org")]}) as engine:
        counting = Counting(engine)
        lookups = await SqlDirectory(counting).prefetch([("anna", "x.org"), ("zoe", "y.net")])
        assert await lookups.owners("zoe", "y.net") == await lookups.owners("", "y.net") == ()
        assert not await lookups.knows_domain("y.net")
        assert not await lookups.accepts_domain("y.net")
        assert await lookups.knows_domain("x.org")
        assert counting.asked == 2


async def test_an_address_that_comes_with_its_domain_is_never_the_one_without_the_other(
    database_url: str,
) -> None:
    """Whenever the first row of a domain is written, its address is seen with it."""
    router = Router(Routing(), "mail.host")
    account: Rows = {"mailbox": [("anna", 1, 1, "/h", None, None)]}
    for statement in (0, 1):
        async with engine_with(database_url, account) as engine:
            changing = Changing(engine, statement, {"virtual": [("anna", "anna", "x.org")]})
            address = Address("anna", "x.org")
            (decision,) = await router.route_many([address], SqlDirectory(changing))
            assert isinstance(decision, Mailbox), statement
            await engine.transaction([Statement(f"DELETE FROM `{table}`") for table in TABLES])


@pytest.mark.parametrize("statement", [0, 1])
async def test_an_address_that_comes_with_its_owner_is_never_the_one_without_the_other(
    database_url: str, statement: int
) -> None:
    """Also where another address already belonged to that name."""
    router = Router(Routing(), "mail.host")
    rows: Rows = {
        "mailbox": [("anna", 1, 1, "/h", None, None)],
        "virtual": [("anna", "anna", "x.org")],
    }
    async with engine_with(database_url, {"virtual": [("anna", "anna", "y.net")]}) as engine:
        changing = Changing(engine, statement, rows)
        addresses = [Address("anna", "y.net"), Address("anna", "x.org")]
        _, decision = await router.route_many(addresses, SqlDirectory(changing))
        assert decision == _mailbox("anna")


class Rejecting(Changing):
    """A changing engine that rejects a name in a column."""

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        rows = await super().fetch(sql, params)
        if UNFIT in params:
            raise Rejected(f"{UNFIT} does not fit")
        return rows


UNFIT = "unfit"


@pytest.mark.parametrize("statement", range(6))
async def test_beside_a_name_that_is_rejected_the_first_of_a_domain_is_not_missed(
    database_url: str, statement: int
) -> None:
    """It is seen, or its domain is not yet: whenever it is written."""
    router = Router(Routing(), "mail.host")
    account: Rows = {"mailbox": [("anna", 1, 1, "/h", None, None)]}
    async with engine_with(database_url, account) as engine:
        rejecting = Rejecting(engine, statement, {"virtual": [("anna", "anna", "x.org")]})
        lookups = await SqlDirectory(rejecting).prefetch([(UNFIT, "x.org"), ("anna", "x.org")])
        decision = await router.route(Address("anna", "x.org"), lookups)
        assert isinstance(decision, Mailbox | Remote)
        unfit = await router.route(Address(UNFIT, "x.org"), lookups)
        assert isinstance(unfit, Unknown)


@pytest.mark.parametrize("statement", range(6))
async def test_among_many_addresses_the_first_of_a_domain_are_not_missed(
    database_url: str, statement: int
) -> None:
    """Those that are asked in an earlier part, when a later one finds the domain."""
    names = [f"n{number}" for number in range(2 * MAX_ORDINARY)]
    rows: Rows = {"virtual": [("anna", name, "x.org") for name in names]}
    account: Rows = {"mailbox": [("anna", 1, 1, "/h", None, None)]}
    async with engine_with(database_url, account) as engine:
        directory = SqlDirectory(Changing(engine, statement, rows))
        router = Router(Routing(), "mail.host")
        addresses = [Address(name, "x.org") for name in names]
        for decision in await router.route_many(addresses, directory):
            assert isinstance(decision, Mailbox | Remote)


@pytest.mark.parametrize("statement", range(6))
@pytest.mark.parametrize(("asked", "written"), [("x.org", "x.org"), ("é.fr", "xn--9ca.fr")])
async def test_among_many_addresses_a_new_catch_all_has_no_others_mail(
    database_url: str, statement: int, asked: str, written: str
) -> None:
    """Not that of an address which came with it, and was asked for a moment earlier."""
    names = [f"n{number}" for number in range(2 * MAX_ORDINARY)]
    there: Rows = {
        "mailbox": [(who, 1, 1, "/h", None, None) for who in ("anna", "all")],
        "virtual": [("anna", "old", asked)],
    }
    new: Rows = {"virtual": [("all", "", asked), *(("anna", name, written) for name in names)]}
    async with engine_with(database_url, there) as engine:
        directory = SqlDirectory(Changing(engine, statement, new))
        router = Router(Routing(), "mail.host")
        addresses = [Address(name, asked) for name in names]
        for decision in await router.route_many(addresses, directory):
            assert isinstance(decision, NoSuchUser) or decision == _mailbox("anna", written)


def _mailbox(user: str, domain: str = "x.org") -> Mailbox:
    return Mailbox(Account(user, 1, 1, "/h"), f"{user}@{domain}", "/h/Maildir")


async def test_a_row_without_an_owner_spoils_no_other_address(database_url: str) -> None:
    """A site's own table may have NULL there."""
    columns = {
        "sqlite": "(username TEXT, virtual_username TEXT, virtual_host TEXT)",
        "mysql": "(username VARCHAR(320), virtual_username VARCHAR(320), virtual_host VARCHAR(255))"
        " CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    }
    rows: Rows = {
        "virtual": [(None, "nobody", "x.org"), ("list", "list", "x.org")],
        "alias": [("alias", "", "anna", "y.net")],
    }
    async with engine_with(database_url) as engine:
        await engine.transaction([Statement("DROP TABLE `virtual`")])
        await engine.transaction(
            [Statement(f"CREATE TABLE `virtual` {columns[engine.dialect.name]}")]
        )
        await fill(engine, rows)
        directory = SqlDirectory(engine)
        lookups = await directory.prefetch([("nobody", "x.org"), ("list", "x.org")])
        with pytest.raises(BadRow):
            await lookups.owners("nobody", "x.org")
        assert await lookups.instructions("alias", "") == ("&anna@y.net",)


async def test_many_addresses_are_asked_in_parts(database_url: str) -> None:
    many = [(f"u{number}", f"d{number % 7}.org") for number in range(2 * MAX_ORDINARY + 1)]
    rows: Rows = {"virtual": [("owner", local, domain) for local, domain in many]}
    async with engine_with(database_url, rows) as engine:
        counting = Counting(engine)
        lookups = await SqlDirectory(counting).prefetch(many)
        for local, domain in many:
            assert await lookups.owners(local, domain) == ("owner",)
        assert counting.asked == 3


async def test_no_look_up_reads_a_whole_table(database_url: str) -> None:
    """The plan of every statement goes by indexes."""
    database = Database(url=database_url)
    many: Rows = {
        "rcpthosts": [(f"d{n}.org",) for n in range(500)],
        "mailbox": [(f"u{n}@d.org", 1, 1, "/h", None, None) for n in range(500)],
        "virtual": [(f"u{n}@d.org", f"u{n}", f"d{n % 9}.org") for n in range(500)],
        "alias": [("alias", f"u{n}@d.org", "x", "y") for n in range(500)],
    }
    async with engine_with(database_url, many) as engine:
        explaining = Explaining(open_engine(database, "/"))
        directory = SqlDirectory(explaining)
        await explaining.refresh(engine)
        for some in (
            [("u1", "d1.org")],
            [(f"u{n}-x", f"d{n}.org") for n in range(3)],
            [("u1", "é.fr")],
            [(f"u{n}", f"{domain}.fr") for n in range(3) for domain in ("É", "ж", "xn--9ca")],
        ):
            await directory.prefetch(some)
            await directory.thorough(tuple(some))
        await directory.credentials("u1@d1.org")
        await directory.credentials("u1@xn--9ca.fr")
        await directory.owns_in("u1@d.org", "é.fr")
        await directory.account("u1@d.org")
        await directory.owners("u1", "d1.org")
        await directory.knows_domain("d1.org")
        await directory.instructions("alias", "u1")
        await directory.accepts_domain("d1.org")
        await directory.close()
    assert explaining.scans == []


class Explaining(Counting):
    """An engine that answers nothing and notes which plans read a table from end to end."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.scans: list[str] = []

    async def refresh(self, engine: Engine) -> None:
        """Let the planner know how large the tables are."""
        tables = "`rcpthosts`, `mailbox`, `virtual`, `alias`"
        text = "ANALYZE" if self.dialect.name == "sqlite" else f"ANALYZE TABLE {tables}"
        await engine.fetch(text)

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        if self.dialect.name == "sqlite":
            plan = await self._engine.fetch(f"EXPLAIN QUERY PLAN {sql}", params)
            self.scans += [str(row[3]) for row in plan if _scans_sqlite(str(row[3]))]
        else:
            plan = await self._engine.fetch(f"EXPLAIN FORMAT=TRADITIONAL {sql}", params)
            self.scans += [str(row) for row in plan if _scans_mysql(row)]
        return []


def _scans_sqlite(step: str) -> bool:
    words = step.split()
    return words[0] == "SCAN" and words[1] not in ("o", "k0") and not words[1].startswith("k")


def _scans_mysql(row: Row) -> bool:
    table = str(row[2])
    access = row[3:5]  # on MySQL there are partitions before it
    scans = "ALL" in access or "index" in access
    return scans and not table.startswith("<") and table != "None"
