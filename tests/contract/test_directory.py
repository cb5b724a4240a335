"""What every directory answers, on every engine."""

from __future__ import annotations

import pytest

from restante.directory import Account, BadRow, Directory
from restante.directory.admin import Administration
from restante.directory.engine import Statement
from restante.directory.lookups import SqlDirectory
from restante.directory.schema import inspect
from tests.support.directory import Rows, directory_with, engine_with, fill

IAIN = ("iain", 1000, 1001, "/home/iain", "hash", "Crypt-Password")
SITE: Rows = {
    "rcpthosts": [("iain.cx",), ("Babasse.COM",)],
    "mailbox": [IAIN, ("anna@example.com", 1002, 1002, "/mail/anna", None, None)],
    "virtual": [
        ("iain", "example", "babasse.com"),
        ("anna@example.com", "anna", "example.com"),
        ("anna@example.com", "", "example.com"),
        ("sales@example.com", "sales", "example.com"),
        ("sales@example.com", "sales", "example.com"),
    ],
    "alias": [
        ("alias", "sales@example.com", "anna", "example.com"),
        ("alias", "sales@example.com", "anna", "example.com"),
        ("alias", "sales@example.com", "./Maildir/", ""),
        ("iain", "list", "|cat", ""),
    ],
}
HOSTILE = ["o'brien", 'a"b', "a\\b", "a`b", "a%sb", "a?b", "a;--b", "\U0001f600", "ñandú", "a\nb"]


async def test_rcpthosts_are_found_in_any_case(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        assert await directory.accepts_domain("IAIN.cx")
        assert await directory.accepts_domain("babasse.com")
        assert not await directory.accepts_domain("example.com")


async def test_an_account_is_its_row(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        assert await directory.account("IAIN") == Account("iain", 1000, 1001, "/home/iain")
        assert await directory.account("nobody") is None


async def test_owners_are_distinct_and_the_catch_all_is_asked_by_an_empty_local_part(
    database_url: str,
) -> None:
    async with directory_with(database_url, SITE) as directory:
        assert await directory.owners("SALES", "Example.com") == ("sales@example.com",)
        assert await directory.owners("", "example.com") == ("anna@example.com",)
        assert await directory.owners("", "babasse.com") == ()
        assert await directory.knows_domain("BABASSE.com")
        assert not await directory.knows_domain("iain.cx")


async def test_whether_a_user_has_an_address_in_a_domain(database_url: str) -> None:
    rows: Rows = {"virtual": [*SITE["virtual"], ("josé", "a", "café.fr"), ("zoe", "", "x.org")]}
    async with directory_with(database_url, rows) as directory:
        assert await directory.owns_in("IAIN", "Babasse.com")
        assert await directory.owns_in("zoe", "x.org")
        assert await directory.owns_in("josé", "café.fr")
        for user, domain in (
            ("iain", "example.com"),
            ("nobody", "babasse.com"),
            ("jose", "café.fr"),
            ("josé", "cafe.fr"),
            ("zoe ", "x.org"),
        ):
            assert not await directory.owns_in(user, domain), (user, domain)


async def test_instructions_are_lines_without_repetition(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        assert await directory.instructions("alias", "sales@example.com") == (
            "&anna@example.com",
            "./Maildir/",
        )
        assert await directory.instructions("iain", "LIST") == ("|cat",)
        assert await directory.instructions("iain", "") == ()


async def test_instructions_come_in_the_order_in_which_they_were_added(database_url: str) -> None:
    """A program may end the list, so that order is not for us to choose."""
    lines = ("|filter", "./Maildir/", "&zoe@x.org", "&ann@x.org", "./mbox", "|archive")
    rows: Rows = {
        "mailbox": [("iain", 1, 1, "/h", None, None)],
        "virtual": [("iain", "iain", "x.org")],
        "alias": [("iain", "", line, "") for line in lines],
    }
    async with directory_with(database_url, rows) as directory:
        for lookups in (directory, await directory.prefetch([("iain", "x.org")])):
            assert await lookups.instructions("iain", "") == lines


async def test_credentials_by_user_name_or_by_address(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        by_name = await directory.credentials("Iain")
        assert by_name is not None
        assert (by_name.account.uid, by_name.password) == (1000, "hash")
        assert by_name.password_type == "Crypt-Password"
        assert await directory.credentials("example@BABASSE.com") == by_name
        anna = await directory.credentials("anna@example.com")
        assert anna is not None
        assert (anna.password, anna.password_type) == (None, None)
        for unknown in ("other@example.com", "example", "@example.com", "x@", "@", ""):
            assert await directory.credentials(unknown) is None, unknown


async def test_credentials_of_an_address_with_several_owners_are_always_the_same(
    database_url: str,
) -> None:
    rows: Rows = {
        "mailbox": [(name, 1000, 1000, f"/{name}", name, None) for name in ("zoe", "bob", "eve")],
        "virtual": [(name, "all", "x.org") for name in ("zoe", "eve", "bob")],
    }
    async with directory_with(database_url, rows) as directory:
        found = await directory.credentials("all@x.org")
        assert found is not None
        assert found.account.name == "bob"


async def test_an_address_is_no_login_of_an_account_whose_name_only_resembles_its_owner(
    database_url: str,
) -> None:
    rows: Rows = {
        "mailbox": [("müller", 1000, 1000, "/m", "x", None), ("eve ", 1000, 1000, "/e", "x", None)],
        "virtual": [("muller", "info", "x.org"), ("eve", "eve", "x.org"), ("MüLLER", "m", "x.org")],
    }
    async with directory_with(database_url, rows) as directory:
        for login in ("info@x.org", "eve@x.org"):
            assert await directory.credentials(login) is None, login
        found = await directory.credentials("m@x.org")
        assert found is not None
        assert found.account.name == "müller"


async def test_letters_outside_ascii_and_blanks_are_different_letters(database_url: str) -> None:
    rows: Rows = {
        "rcpthosts": [("café.fr",), ("blank.org ",)],
        "mailbox": [("josé", 1000, 1000, "/j", "x", None), ("eve ", 1000, 1000, "/e", "x", None)],
        "virtual": [("josé", "rené", "café.fr"), ("bob", "bob ", "x.org")],
        "alias": [("josé", "é", "a", "b"), ("bob ", "", "a", "b")],
    }
    async with directory_with(database_url, rows) as directory:
        assert await directory.accepts_domain("café.fr")
        for wrong in ("cafe.fr", "CAFÉ.fr", "blank.org"):
            assert not await directory.accepts_domain(wrong), wrong
        for wrong in ("jose", "JOSÉ", "eve", "josé "):
            assert await directory.account(wrong) is None, wrong
            assert await directory.credentials(wrong) is None, wrong
        assert await directory.owners("RENé", "CAFé.FR") == ("josé",)
        assert await directory.owners("rene", "café.fr") == ()
        assert await directory.owners("bob", "x.org") == ()
        assert not await directory.knows_domain("cafe.fr")
        assert await directory.instructions("josé", "e") == ()
        assert await directory.instructions("bob", "") == ()
        assert await directory.credentials("rene@café.fr") is None
        fetched = await directory.prefetch([("rene", "cafe.fr"), ("bob", "x.org")])
        assert not await fetched.knows_domain("cafe.fr")
        assert await fetched.owners("rene", "cafe.fr") == ()


async def test_a_domain_is_known_although_the_database_takes_another_for_it(
    database_url: str,
) -> None:
    rows: Rows = {"virtual": [("a", "a", "café.fr"), ("a", "a", "cafe.fr")]}
    async with directory_with(database_url, rows) as directory:
        for domain in ("café.fr", "cafe.fr"):
            fetched = await directory.prefetch([("nobody", domain)])
            assert await fetched.knows_domain(domain), domain


@pytest.mark.parametrize("name", HOSTILE)
async def test_any_character_is_only_a_character(database_url: str, name: str) -> None:
    rows: Rows = {
        "mailbox": [(name, 1000, 1000, f"/m/{name}", name, name)],
        "virtual": [(name, name, "x.org")],
        "alias": [(name, name, name, "x.org")],
    }
    async with directory_with(database_url, rows) as directory:
        for lookups in (directory, await directory.prefetch([(name, "x.org")])):
            assert await lookups.owners(name, "x.org") == (name,)
            assert await lookups.account(name) == Account(name, 1000, 1000, f"/m/{name}")
            assert await lookups.instructions(name, name) == (f"&{name}@x.org",)
        found = await directory.credentials(f"{name}@x.org")
        assert found is not None
        assert found.password == name


@pytest.mark.parametrize(
    ("home", "column"), [("relative", "home"), ("", "home"), ("/a\0b", "home")]
)
async def test_a_home_that_cannot_be_used_is_not_nobody(
    database_url: str, home: str, column: str
) -> None:
    rows: Rows = {"mailbox": [("bad", 1000, 1000, home, "x", None)]}
    async with directory_with(database_url, rows) as directory:
        await _expect_bad_row(directory, column)


@pytest.mark.parametrize("uid", [None, "", "x", "-1", "1.5", "4294967295", "99999999999", "²"])
async def test_a_uid_that_cannot_be_used_is_not_nobody(database_url: str, uid: str | None) -> None:
    async with engine_with(database_url) as engine:
        await engine.transaction(
            [
                Statement("DROP TABLE `mailbox`"),
                Statement(
                    f"CREATE TABLE `mailbox` (`username` {_name_type(database_url)}, "
                    "`uid` VARCHAR(20), `gid` VARCHAR(20), `home` VARCHAR(99), "
                    "`password` VARCHAR(99), `password_type` VARCHAR(20))"
                ),
            ]
        )
        await fill(engine, {"mailbox": [("bad", uid, "1", "/h", "x", None)]})
        await _expect_bad_row(SqlDirectory(engine), "uid")


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT", "DECIMAL(10)", "BIGINT", "VARCHAR(20)"])
async def test_a_uid_may_have_any_type_that_holds_it(database_url: str, kind: str) -> None:
    async with engine_with(database_url, {"virtual": [("ann", "ann", "x.org")]}) as engine:
        await engine.transaction(
            [
                Statement("DROP TABLE `mailbox`"),
                Statement(
                    f"CREATE TABLE `mailbox` (`username` {_name_type(database_url)}, "
                    f"`uid` {kind}, `gid` {kind}, `home` VARCHAR(99), "
                    "`password` VARCHAR(99), `password_type` VARCHAR(20))"
                ),
            ]
        )
        await fill(engine, {"mailbox": [("ann", 1000, 65534, "/h", "x", None)]})
        directory = SqlDirectory(engine)
        fetched = await directory.prefetch([("ann", "x.org")])
        expected = Account("ann", 1000, 65534, "/h")
        assert fetched.simply_owned("ann", "x.org") == ("ann", expected)
        assert await directory.account("ann") == expected


def _name_type(database_url: str) -> str:
    case = "NOCASE" if database_url.startswith("sqlite") else "utf8mb4_unicode_ci"
    return f"VARCHAR(99) COLLATE {case}"


async def _expect_bad_row(directory: Directory, column: str) -> None:
    expected = f"mailbox.*'bad'.*{column}"
    with pytest.raises(BadRow, match=expected):
        await directory.account("bad")
    with pytest.raises(BadRow, match=expected):
        await directory.credentials("bad")
    fetched = await directory.prefetch([("bad", "x.org")])
    with pytest.raises(BadRow, match=expected):
        await fetched.account("bad")


async def test_a_row_of_virtual_without_an_owner_is_not_nobody(database_url: str) -> None:
    async with directory_with(database_url, {"virtual": [("", "a", "x.org")]}) as directory:
        for lookups in (directory, await directory.prefetch([("a", "x.org")])):
            with pytest.raises(BadRow, match=r"virtual.*a@x\.org"):
                await lookups.owners("a", "x.org")


async def test_trailing_blanks_in_one_row_hide_no_other(database_url: str) -> None:
    """MySQL takes both for equal, and may come upon the wrong one first."""
    found = [("ann ", "a", "x.org "), ("ann ", "b", "x.org"), ("ann", "c", "x.org")]
    async with directory_with(database_url, {"virtual": found}) as directory:
        assert await directory.knows_domain("x.org")
        assert await directory.owns_in("ann", "x.org")
        fetched = await directory.prefetch([("nobody", "x.org")])
        assert await fetched.knows_domain("x.org")


async def test_rows_written_by_another_connection_are_seen_at_once(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        assert await directory.account("late") is None
        async with engine_with(database_url) as by_hand:
            await fill(by_hand, {"mailbox": [("late", 1, 1, "/l", None, None)]})
        assert await directory.account("late") is not None


async def test_a_legacy_site_with_its_own_tables(database_url: str) -> None:
    """No keys, few types, NULLs, and whatever other columns it has."""
    options = "" if database_url.startswith("sqlite") else " ENGINE=MyISAM DEFAULT CHARSET=latin1"
    case = " COLLATE NOCASE" if database_url.startswith("sqlite") else ""
    async with engine_with(database_url) as engine:
        name = f"VARCHAR(64){case}"
        await engine.transaction(
            [
                *(Statement(f"DROP TABLE `{t}`") for t in SITE),
                Statement(f"CREATE TABLE rcpthosts (host {name}){options}"),
                Statement(
                    f"CREATE TABLE mailbox (username {name}, uid INT, gid INT, home CHAR(99), "
                    f"password CHAR(41), password_type CHAR(20), note CHAR(9)){options}"
                ),
                Statement(
                    f"CREATE TABLE `virtual` (username {name}, virtual_username {name}, "
                    f"virtual_host {name}){options}"
                ),
                Statement(
                    f"CREATE TABLE alias (username {name}, alias {name}, "
                    f"alias_username {name}, alias_host {name}){options}"
                ),
            ]
        )
        await Administration(engine).create_schema()
        await fill(engine, SITE)
        await fill(engine, {"alias": [("bob", "", "./Maildir/", None)]})
        await fill(engine, {"virtual": [("iain", "rené", "babasse.com")]})
        directory = SqlDirectory(engine)
        fetched = await directory.prefetch([("René", "babasse.com")])
        assert await fetched.owners("RENé", "babasse.com") == ("iain",)
        assert await fetched.account("iain") == Account("iain", 1000, 1001, "/home/iain")
        assert await directory.instructions("bob", "") == ("./Maildir/",)
        inspection = await inspect(engine)
        assert inspection.problems == ()
        assert len(inspection.advice) == (2 if case else 5)


async def test_inspection_names_what_is_missing(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        whole = await inspect(engine)
        assert (whole.problems, whole.advice) == ((), ())
        await engine.transaction(
            [
                Statement("DROP TABLE `alias`"),
                Statement("ALTER TABLE `mailbox` DROP COLUMN `password_type`"),
            ]
        )
        assert (await inspect(engine)).problems == (
            "the table mailbox has no column password_type: add it",
            (
                "the database has no table alias: restante init NEW_DIR --database URL "
                "makes it, given the URL of this database"
            ),
        )


@pytest.mark.mariadb
async def test_missing_tables_are_made_so_that_names_can_be_compared(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        await engine.transaction(
            [
                *(Statement(f"DROP TABLE `{table}`") for table in SITE),
                Statement(
                    "CREATE TABLE mailbox (username VARCHAR(64) PRIMARY KEY, uid INT, gid INT, "
                    "home CHAR(99), password CHAR(41), password_type CHAR(20)) CHARSET=latin1"
                ),
            ]
        )
        await Administration(engine).create_schema()
        assert (await inspect(engine)).problems == ()
        await fill(engine, SITE)
        fetched = await SqlDirectory(engine).prefetch([("sales", "example.com")])
        assert await fetched.owners("sales", "example.com") == ("sales@example.com",)


@pytest.mark.mariadb
async def test_collations_that_cannot_be_compared_are_a_problem(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        change = "ALTER TABLE mailbox CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        await engine.transaction([Statement(change)])
        problems = (await inspect(engine)).problems
        assert len(problems) == 1
        assert "utf8mb4_general_ci, utf8mb4_unicode_ci" in problems[0]
