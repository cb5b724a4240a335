"""The bench runs: a round of a few messages through a whole instance, and its results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench.__main__ import BENCHES, run
from bench.arena import Options
from bench.processes import ProcessTrees
from bench.programs import program
from bench.systems.dovecot import (
    AS_IT_COMES,
    CACHED,
    LOGINS,
    MAIN,
    REUSED,
    Variant,
    configuration,
)
from bench.systems.mariadb import Database
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.peer


def test_a_row_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(1, 1, 20, (), only=("mailboxes/4k-1",), sqlite=True)
    run(options, [BENCHES["mailboxes"]], tmp_path)
    (row,) = json.loads((tmp_path / "latest.json").read_text())["rows"]
    assert row["key"] == "mailboxes/4k-1"
    (series,) = row["series"]
    assert series["entrant"] == "restante"
    assert series["median"] > 0
    assert 0 < series["processor_seconds_per_1000"]["restante"] < 1000
    assert "4 KiB into mailboxes, 1 session" in capsys.readouterr().out


def test_mail_is_fetched_by_a_checking_client(tmp_path: Path) -> None:
    options = Options(1, 1, 20, (), only=("fetch/4k",), sqlite=True)
    run(options, [BENCHES["fetch"]], tmp_path)
    (row,) = json.loads((tmp_path / "latest.json").read_text())["rows"]
    (series,) = row["series"]
    assert (row["key"], series["entrant"]) == ("fetch/4k", "restante")
    assert series["median"] > 0


@pytest.mark.parametrize(
    "variant", [AS_IT_COMES, LOGINS, REUSED, CACHED], ids=lambda variant: variant.name
)
def test_the_installed_dovecot_reads_its_configuration(tmp_path: Path, variant: Variant) -> None:
    database = Database(MariaDB(tmp_path, 3306), ProcessTrees("mariadb"), "peers")
    for name, text in configuration(database, tmp_path, tmp_path, 1110, variant).items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [program("doveconf"), "-n", "-c", str(tmp_path / MAIN)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "port = 1110\n" in done.stdout
    assert ("auth_cache_size = 10" in done.stdout) == variant.auth_cache
    assert ("process_min_avail = 2\n" in done.stdout) == variant.login_again
    assert (" = 10000\n" in done.stdout) == variant.session_again
