"""What the database rejects now it will reject later: no status that asks for another try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.cli.app import run
from restante.cli.status import ExitCode, code_of
from restante.directory.engine import Overtaken
from restante.eventlog import NOWHERE, log
from tests.support.instance import ANY_PORTS
from tests.support.mariadb import MariaDB
from tests.support.shell import Shell

VIEW = "CREATE VIEW rcpthosts AS SELECT DISTINCT host FROM hosts"


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Commands silence the log of their process."""
    yield
    log.destination = NOWHERE


def test_a_table_that_is_missing(hosted: Shell) -> None:
    hosted.change("DROP TABLE alias")

    told = hosted("alias", "list")

    assert told.code == ExitCode.REFUSED
    assert "no such table: alias" in told.err


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE rcpthosts", "doesn't exist"),
        ("ALTER TABLE rcpthosts MODIFY host VARCHAR(9)", "too long"),
        (f"RENAME TABLE rcpthosts TO hosts; {VIEW}", "is not insertable-into"),
        ("ALTER TABLE rcpthosts ADD CONSTRAINT some CHECK (host LIKE '%.org')", "constraint"),
    ],
)
def test_what_mariadb_will_never_take(
    tmp_path: Path,
    mariadb_server: MariaDB,
    capsys: pytest.CaptureFixture[str],
    change: str,
    said: str,
) -> None:
    instance, name = str(tmp_path / "instance"), mariadb_server.new_database()
    assert run(["init", instance, "--database", mariadb_server.url(name), *ANY_PORTS]) == 0
    mariadb_server.sql(change, name)
    capsys.readouterr()

    assert run(["-C", instance, "domain", "add", "example.com"]) == ExitCode.REFUSED

    assert said in capsys.readouterr().err.lower()


def test_what_another_transaction_has_overtaken_may_work_later() -> None:
    assert code_of(Overtaken("a deadlock")) == ExitCode.TEMPORARY
