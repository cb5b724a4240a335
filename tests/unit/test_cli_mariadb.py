"""The commands on MariaDB: a new instance, and a database that refuses the password."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from restante.cli.app import run
from restante.eventlog import NOWHERE, log
from tests.support.instance import ANY_PORTS
from tests.support.mariadb import PASSWORD, MariaDB

pytestmark = pytest.mark.mariadb


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Commands silence the log of their process."""
    yield
    log.destination = NOWHERE


def test_an_instance_on_mariadb(
    tmp_path: Path, mariadb_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = str(tmp_path / "instance")

    assert run(["init", instance, "--database", mariadb_url, *ANY_PORTS]) == 0
    assert run(["-C", instance, "domain", "add", "example.com"]) == 0
    assert run(["-C", instance, "alias", "add", "sales@example.com", "ann@example.com"]) == 0
    assert run(["-C", instance, "check"]) == 0
    capsys.readouterr()
    assert run(["-C", instance, "alias", "list", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == [
        {"alias": "sales@example.com", "target": "ann@example.com"}
    ]


def test_init_with_a_refused_password_leaves_nothing(
    tmp_path: Path, mariadb_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = mariadb_url.replace(quote(PASSWORD, safe=""), "hunter2")
    assert wrong != mariadb_url

    assert run(["init", str(tmp_path / "instance"), "--database", wrong]) == 75

    said = capsys.readouterr().err
    assert "Access denied" in said
    assert "hunter2" not in said
    assert said.count("\n") == 1
    assert not (tmp_path / "instance").exists()


def test_tables_that_were_there_survive_a_second_init(
    tmp_path: Path, mariadb_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert run(["init", first, "--database", mariadb_url]) == 0
    assert run(["-C", first, "domain", "add", "example.com"]) == 0
    assert run(["init", second, "--database", mariadb_url]) == 0
    capsys.readouterr()

    assert run(["-C", second, "domain", "list"]) == 0
    assert capsys.readouterr().out == "example.com\n"


def test_check_names_capitals_that_the_database_tells_apart(
    tmp_path: Path, mariadb_server: MariaDB, capsys: pytest.CaptureFixture[str]
) -> None:
    instance, name = str(tmp_path / "instance"), mariadb_server.new_database()
    assert run(["init", instance, "--database", mariadb_server.url(name), *ANY_PORTS]) == 0
    change = "ALTER TABLE rcpthosts CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    mariadb_server.sql(f"{change}; INSERT INTO rcpthosts VALUES ('Example.COM')", name)
    capsys.readouterr()

    assert run(["-C", instance, "check", "--json"]) == 1

    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem.startswith("rcpthosts.host tells capitals from small letters")
    assert "'Example.COM'" in problem


def test_check_names_a_server_that_cannot_be_asked_while_others_are(
    tmp_path: Path,
    mariadb_server: MariaDB,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = str(tmp_path / "instance")
    url = mariadb_server.url(mariadb_server.new_database(), tcp=True)
    assert run(["init", instance, "--database", url, *ANY_PORTS]) == 0
    there = f"127.0.0.1:{mariadb_server.port}"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        away = f"127.0.0.1:{nobody.getsockname()[1]}"
        for hosts in (f"{there},{away}", f"{away},{there}"):
            monkeypatch.setenv("RESTANTE_DATABASE__URL", url.replace(there, hosts))
            capsys.readouterr()

            assert run(["-C", instance, "check", "--json"]) == 0

            told = [
                line
                for line in json.loads(capsys.readouterr().out)["advice"]
                if line.startswith("database.url")
            ]
            (one,) = told
            assert f" at {away}: cannot connect: Connection refused; " in one
            assert there not in one


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_is_away_is_told_of_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        place = f"{host}:{nobody.getsockname()[1]}"
        assert run(["init", str(tmp_path / "i"), "--database", f"mysql://u:p@{place}/mail"]) == 75

    assert capsys.readouterr().err == (
        f"restante: the database mail at {place}: cannot connect: Connection refused; "
        "is the server running, and is database.url right?\n"
    )
