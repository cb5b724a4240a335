"""Columns of types that Restante would not have chosen say the same in every look-up."""

from __future__ import annotations

import pytest

from restante.address import Address
from restante.config.tree import Routing
from restante.directory import Account, Directory, Lookups
from restante.directory.engine import Engine, Statement, Value
from restante.directory.lookups import SqlDirectory
from restante.routing.decision import Instructions, Mailbox
from restante.routing.router import Router
from tests.contract.test_check_columns import make_case_sensitive
from tests.support.directory import Rows, engine_with, fill

SITE: Rows = {
    "virtual": [("ann", "ann", "x.org"), ("ann", "sales", "y.org")],
    "rcpthosts": [("x.org",), ("y.org",)],
}


async def make_mailbox(engine: Engine, *, number: str = "INT", home: str = "VARCHAR(99)") -> None:
    """The table with its uid and gid, or its home, of another type."""
    case = "NOCASE" if engine.dialect.name == "sqlite" else "utf8mb4_unicode_ci"
    await engine.transaction(
        [
            Statement("DROP TABLE `mailbox`"),
            Statement(
                f"CREATE TABLE `mailbox` (`username` VARCHAR(99) COLLATE {case}, "
                f"`uid` {number}, `gid` {number}, `home` {home}, "
                "`password` VARCHAR(99), `password_type` VARCHAR(20))"
            ),
        ]
    )


async def accounts_of_ann(directory: SqlDirectory) -> list[Account | None]:
    """Ann's account by each statement that knows it."""
    singly = [await _by_credentials(directory, login) for login in ("ann", "sales@y.org")]
    ways: list[Lookups] = [
        directory,
        await directory.prefetch([("ann", "x.org")]),
        await directory.prefetch([("ann", "x.org"), ("sales", "y.org")]),
        await directory.thorough((("ann", "x.org"),)),
        await directory.thorough((("sales", "y.org"),)),
    ]
    return [*singly, *[await lookups.account("ann") for lookups in ways]]


async def _by_credentials(directory: Directory, login: str) -> Account | None:
    found = await directory.credentials(login)
    return None if found is None else found.account


@pytest.mark.parametrize(
    "home", [b"/home/ann", b"/home/\xe9", "/home/é".encode(), b"/home/\xff?"], ids=repr
)
async def test_the_octets_of_a_home_are_what_they_are(database_url: str, home: bytes) -> None:
    """A home that is taken for another would be a mailbox that nobody reads."""
    async with engine_with(database_url, SITE) as engine:
        for kind in ("BLOB", "VARBINARY(99)"):
            await make_mailbox(engine, home=kind)
            await fill(engine, {"mailbox": [("ann", 1000, 1000, home, "x", None)]})
            expected = Account("ann", 1000, 1000, home.decode("utf-8", "surrogateescape"))
            assert set(await accounts_of_ann(SqlDirectory(engine))) == {expected}


@pytest.mark.mariadb
async def test_a_home_in_latin1_is_text(mariadb_url: str) -> None:
    async with engine_with(mariadb_url, SITE) as engine:
        await make_mailbox(engine, home="VARCHAR(99) CHARACTER SET latin1")
        await fill(engine, {"mailbox": [("ann", 1000, 1000, "/home/é", "x", None)]})
        found = await accounts_of_ann(SqlDirectory(engine))
        assert set(found) == {Account("ann", 1000, 1000, "/home/é")}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("VARCHAR(40)", "1000".zfill(40)),
        ("VARBINARY(20)", b"001000"),
    ],
)
async def test_zeros_in_front_of_a_uid_mean_nothing(
    database_url: str, kind: str, value: Value
) -> None:
    await _check_zeros(database_url, kind, value)


@pytest.mark.mariadb
@pytest.mark.parametrize("kind", ["INT(11) UNSIGNED ZEROFILL", "BIGINT(20) ZEROFILL"])
async def test_a_uid_may_be_filled_up_with_zeros(mariadb_url: str, kind: str) -> None:
    await _check_zeros(mariadb_url, kind, 1000)


async def _check_zeros(database_url: str, kind: str, value: Value) -> None:
    async with engine_with(database_url, SITE) as engine:
        await make_mailbox(engine, number=kind)
        await fill(engine, {"mailbox": [("ann", value, value, "/h", "x", None)]})
        found = await accounts_of_ann(SqlDirectory(engine))
        assert set(found) == {Account("ann", 1000, 1000, "/h")}


TELLING_CASE = (
    pytest.param("sqlite", "TEXT"),
    *(
        pytest.param("mariadb", column, marks=pytest.mark.mariadb)
        for column in (
            "VARCHAR(99) COLLATE utf8mb4_bin",
            "VARCHAR(99) CHARACTER SET latin1 COLLATE latin1_general_cs",
            "VARBINARY(99)",
        )
    ),
)
"""Engines, and columns of theirs in which capitals are other letters."""


def _in_small_letters(rows: Rows) -> Rows:
    def small(value: Value) -> Value:
        return value.lower() if isinstance(value, str) else value

    return {table: [tuple(map(small, row)) for row in some] for table, some in rows.items()}


async def _check_that_ann_is_found(directory: SqlDirectory) -> None:
    account = await directory.account("Ann")
    assert account is not None
    assert await directory.owners("Info", "X.org") == (account.name,)
    assert await directory.instructions("Ann", "List") == ("|true",)
    assert await directory.owns_in("Ann", "x.org")
    for login in ("Ann", "Info@X.org"):
        found = await directory.credentials(login)
        assert found is not None, login
        assert found.account == account


CAPITALS: Rows = {
    "mailbox": [("Ann", 1000, 1000, "/h", "x", None)],
    "virtual": [("Ann", "Info", "X.org"), ("Ann", "", "x.org")],
    "alias": [("Ann", "List", "|true", "")],
}


@pytest.mark.parametrize("rows", [CAPITALS, _in_small_letters(CAPITALS)], ids=["capitals", "small"])
@pytest.mark.parametrize(("engine", "column"), TELLING_CASE)
async def test_names_with_capitals_are_found_as_they_are_spelt_and_in_small_letters(
    request: pytest.FixtureRequest, engine: str, column: str, rows: Rows
) -> None:
    async with engine_with(request.getfixturevalue(f"{engine}_url")) as opened:
        await make_case_sensitive(opened, column)
        await fill(opened, rows)
        await _check_that_ann_is_found(SqlDirectory(opened))


async def test_addresses_go_the_same_way_with_capitals_and_without(database_url: str) -> None:
    """By whatever statements they are looked up."""
    router = Router(Routing(locals=("home.org",), subaddress_delimiter="+"), "mail.host")
    column = "TEXT" if database_url.startswith("sqlite") else "VARCHAR(99) COLLATE utf8mb4_bin"
    async with engine_with(database_url) as engine:
        await make_case_sensitive(engine, column)
        await fill(engine, _in_small_letters(CAPITALS))
        directory = SqlDirectory(engine)
        for address in ("Ann@home.org", "Info+List@x.org", "Ann-List@home.org", "Info@x.org"):
            local, _, domain = address.rpartition("@")
            capitals, small = Address(local, domain), Address(local.lower(), domain)
            (expected,) = await router.route_many([small], directory)
            assert isinstance(expected, Mailbox | Instructions)
            (together,) = await router.route_many([capitals], directory)
            for found in (together, await router.route(capitals, directory)):
                assert repr(found).lower() == repr(expected).lower(), address
