"""What ``check`` says of hashes, on every engine."""

from __future__ import annotations

import pytest

from restante.auth.schemes import hash_password
from restante.cli.check.findings import MAX_NAMED, Findings
from restante.cli.check.passwords import UPGRADED_SIZE, examine_passwords
from restante.config.tree import Auth, Database
from restante.directory.engine import open_engine
from tests.support.directory import Rows, engine_with
from tests.support.mariadb import MariaDB

SCRAM = ("SCRAM-SHA-256", "PLAIN")
KEYS = "{SCRAM-SHA-256}4096,c2FsdA==" + ",AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" * 2


def mailboxes(*hashes: tuple[str, str | None, str | None]) -> Rows:
    return {"mailbox": [(name, 1000, 1000, f"/mail/{name}", *rest) for name, *rest in hashes]}


SITE = mailboxes(
    ("a", "{PLAIN}secret", None),
    ("b", "secret", "Password"),
    ("c", "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4", "MySQL-Password"),
    ("d", KEYS, "Crypt-Password"),
    ("e", None, None),
    ("f", "", "Rot13"),
    ("g", "!", "Crypt-Password"),
)


async def examined(url: str, rows: Rows, auth: Auth | None = None) -> list[str]:
    findings = Findings()
    async with engine_with(url, rows) as engine:
        await examine_passwords(engine, auth or Auth(), findings)
    assert findings.advice == []
    return findings.problems


async def test_hashes_that_are_known_are_no_problem(database_url: str) -> None:
    assert await examined(database_url, SITE) == []


async def test_hashes_that_cannot_be_judged_are_named(database_url: str) -> None:
    rows = mailboxes(("a", "{ROT13}frperg", None), ("b", "x", "Rot13"), ("c", "$1$x", ""))
    problems = sorted(await examined(database_url, rows))
    assert [problem.split(":")[0] for problem in problems] == [
        "the mailbox a",
        "the mailbox b",
        "the mailbox c",
    ]
    assert "{ROT13}; its logins fail" in problems[0]
    assert "frperg" not in str(problems)


async def test_hashes_that_scram_cannot_use_are_named_where_it_is_announced(
    database_url: str,
) -> None:
    problems = await examined(database_url, SITE, Auth(mechanisms=SCRAM))
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "the mailbox c",
        "the mailbox g",
    ]


async def test_a_list_of_problems_is_short(sqlite_url: str) -> None:
    rows = mailboxes(*((f"user{number}", "{ROT13}x", None) for number in range(MAX_NAMED + 5)))
    problems = await examined(sqlite_url, rows)
    assert len(problems) == MAX_NAMED + 1
    assert problems[-1] == "5 more mailboxes like these"


async def test_nothing_stands_in_the_way_of_upgrades(database_url: str) -> None:
    assert await examined(database_url, SITE, Auth(upgrade="argon2id")) == []


@pytest.mark.mariadb
async def test_column_and_right_that_upgrades_need(mariadb_server: MariaDB) -> None:
    name = mariadb_server.new_database()
    findings = Findings()
    async with engine_with(mariadb_server.url(name)):
        mariadb_server.sql("ALTER TABLE mailbox MODIFY password VARCHAR(100)", name)
        url = mariadb_server.url_of("looker", f"SELECT ON {name}.*", name)
        engine = open_engine(Database(url=url), "/")
        await examine_passwords(engine, Auth(upgrade="argon2id"), findings)
        await engine.close()
    short, denied = findings.problems
    assert "has 100 characters, too few" in short
    assert "UPDATE command denied" in denied


def test_size_of_a_new_hash() -> None:
    assert len(hash_password("secret")) == UPGRADED_SIZE
