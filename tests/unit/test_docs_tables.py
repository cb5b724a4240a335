"""The SQL of docs/tables.md is executed, and does what the page says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.instance import ANY_PORTS
from tests.support.mariadb import MariaDB
from tests.support.shell import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
EXAMPLES = "\n".join(re.findall(r"(?ms)^```sql\n(.*?)^```$", PAGE))
BECOMES = re.findall(r"(?m)^\| `(\S+@\S+)` \| (.*) \|$", PAGE)


@pytest.fixture
def site(shell: Shell) -> Shell:
    """A new instance with the rows of all examples."""
    made = shell.bare("init", str(shell.directory), "--host", "mx.example.com", *ANY_PORTS)
    assert made.code == 0, made.err
    with closing(sqlite3.connect(shell.directory / "restante.db")) as database:
        database.executescript(EXAMPLES)
    return shell


@pytest.mark.parametrize(("address", "becomes"), BECOMES)
def test_addresses(site: Shell, address: str, becomes: str) -> None:
    """Accounts, other hosts' addresses and programs, and no others."""
    told = site("explain", address).out
    accounts = re.findall(r"mail of `(\S+)`", becomes)
    assert set(re.findall(r"mailbox of (\S+):", told)) == set(accounts)
    elsewhere = re.findall(r"mail for `(\S+)`", becomes)
    assert set(re.findall(r"(\S+) is for elsewhere", told)) == set(elsewhere)
    for program in re.findall(r"standard input of `(\S+)`", becomes):
        assert program in told.partition("Decision")[2]
    assert "A stranger hears at RCPT: 250" in told


def test_columns(site: Shell) -> None:
    """The page names all that there are."""
    with closing(sqlite3.connect(site.directory / "restante.db")) as database:
        for table in ("rcpthosts", "mailbox", "virtual", "alias"):
            assert f"| `{table}` |" in PAGE
            for _, column, *_ in database.execute(f"PRAGMA table_info(`{table}`)"):
                assert f"`{column}`" in PAGE


@pytest.mark.mariadb
def test_mariadb_takes_them_too(mariadb_server: MariaDB, shell: Shell) -> None:
    name = mariadb_server.new_database()
    url = mariadb_server.url(name)
    made = shell.bare("init", str(shell.directory), "--database", url, *ANY_PORTS)
    assert made.code == 0, made.err
    mariadb_server.sql(EXAMPLES, name)
    assert mariadb_server.sql("SELECT count(*) FROM alias", name).split()[-1] == "6"
