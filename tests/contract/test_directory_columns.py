"""Columns of types that Restante would not have chosen say the same in every look-up."""

from __future__ import annotations

import pytest

from restante.directory import Account, Directory, Lookups
from restante.directory.engine import Engine, Statement, Value
from restante.directory.lookups import SqlDirectory
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
