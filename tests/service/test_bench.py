"""The bench runs: a round of a few messages through a whole instance, and its results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench.__main__ import BENCHES, run
from bench.arena import Options
from bench.certificates import rsa_pair
from bench.processes import ProcessTrees
from bench.programs import program
from bench.systems.dovecot import (
    AS_IT_COMES,
    CACHED,
    LOGINS,
    MAIN,
    REUSED,
    Tls,
    Variant,
    configuration,
)
from bench.systems.mariadb import Database
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def no_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compared here: mailboxes may be new."""
    monkeypatch.setattr("bench.sending.SETTLED_AFTER", 0.0)


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
    ("row", "note"),
    [
        ("pop3s/sessions-10", "handshakes that were resumed: restante 0%"),
        # Of two hundred sessions the first ten, of as many clients, have no ticket.
        ("pop3s/resumed-10", "handshakes that were resumed: restante 95%"),
        ("starttls/4k-10", ""),
    ],
)
def test_work_over_tls_is_measured(tmp_path: Path, row: str, note: str) -> None:
    options = Options(1, 2, 100, (), only=(row,), sqlite=True)
    run(options, [BENCHES[row.partition("/")[0]]], tmp_path)
    (written,) = json.loads((tmp_path / "latest.json").read_text())["rows"]
    (series,) = written["series"]
    assert (written["key"], written["note"], series["entrant"]) == (row, note, "restante")
    assert series["median"] > 0


@pytest.mark.parametrize(
    "variant", [AS_IT_COMES, LOGINS, REUSED, CACHED], ids=lambda variant: variant.name
)
def test_the_installed_dovecot_reads_its_configuration(tmp_path: Path, variant: Variant) -> None:
    understood = dovecot_understands(tmp_path, variant)
    assert "port = 1110\n" in understood
    assert "ssl = no\n" in understood
    assert ("auth_cache_size = 10" in understood) == variant.auth_cache
    assert ("process_min_avail = 2\n" in understood) == variant.login_again
    assert (" = 10000\n" in understood) == variant.session_again


def test_the_installed_dovecot_reads_what_it_is_told_of_tls(tmp_path: Path) -> None:
    certificate = rsa_pair(tmp_path)
    understood = dovecot_understands(tmp_path, REUSED, Tls(1995, certificate))
    assert "port = 1995\n" in understood
    assert "ssl = yes\n" in understood
    assert "ssl = no\n" not in understood
    assert certificate.certificate in understood


def dovecot_understands(directory: Path, variant: Variant, tls: Tls | None = None) -> str:
    """What doveconf says of a configuration; it must have no objections."""
    database = Database(MariaDB(directory, 3306), ProcessTrees("mariadb"), "peers")
    for name, text in configuration(database, directory, directory, 1110, variant, tls).items():
        (directory / name).write_text(text)
    done = subprocess.run(
        [program("doveconf"), "-n", "-c", str(directory / MAIN)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
