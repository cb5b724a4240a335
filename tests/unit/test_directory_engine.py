"""Database URLs, the state of the database, and what the log may show."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

from restante.config.tree import Database
from restante.directory.encryption import Encryption
from restante.directory.engine import (
    Health,
    MySQLLocation,
    MySQLServer,
    SQLiteLocation,
    Statement,
    open_engine,
    parse_url,
    pem_files,
    shown_parameters,
)
from restante.errors import OperatorError
from tests.support.certificates import issue, replace, write
from tests.support.events import capture_logs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///restante.db", "/inst/restante.db"),
        ("sqlite:///a%20b/c%3Fd.db", "/inst/a b/c?d.db"),
        ("sqlite:////var/lib/r.db", "/var/lib/r.db"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    assert parse_url(url, "/inst") == SQLiteLocation(path)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (
            "mysql://u%40x:p%2F%3A%40@db.example.com:3307/mail",
            MySQLLocation((MySQLServer("db.example.com", 3307),), "u@x", "p/:@", "mail"),
        ),
        ("mysql://u:p@[::1]/mail", MySQLLocation((MySQLServer("::1"),), "u", "p", "mail")),
        (
            "mysql://u:p@/mail?unix_socket=%2Frun%2Fs.sock",
            MySQLLocation((MySQLServer("localhost", 3306, "/run/s.sock"),), "u", "p", "mail"),
        ),
        (
            "mysql://u:p,q@db1,[::1]:3307,[::2],db2:3308/mail",
            MySQLLocation(
                (
                    MySQLServer("db1"),
                    MySQLServer("::1", 3307),
                    MySQLServer("::2"),
                    MySQLServer("db2", 3308),
                ),
                "u",
                "p,q",
                "mail",
            ),
        ),
    ],
)
def test_mysql_urls(url: str, location: MySQLLocation) -> None:
    assert parse_url(url, "/") == location


@pytest.mark.parametrize(
    "url",
    [
        "",
        "restante.db",
        "postgres://u:secret@h/db",
        "sqlite://host/file",
        "sqlite:///",
        "sqlite:///a?mode=rwc",
        "mysql://h/db",
        "mysql://u:secret@h",
        "mysql://u:secret@h/a/b",
        "mysql://u:secret@h:port/db",
        "mysql://u:secret@h:99999/db",
        "mysql://u:secret@[::1/db",
        "mysql://u:secret@h/db?ssl=1",
        "mysql://u:secret@h/db?unix_socket=relative",
        "mysql://u:secret%FF@h/db",
        "mysql://u:a?secret=b@h/db",
        "mysql://u:secret@h,/db",
        "mysql://u:secret@h,h:port/db",
        "mysql://u:secret@h,i/db?unix_socket=%2Fs",
    ],
)
def test_bad_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_url(url, "/inst")
    assert "database.url" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("options", "encryption"),
    [
        ("", None),
        ("ssl_mode=REQUIRED", Encryption("REQUIRED")),
        ("ssl_mode=verify_ca", Encryption("VERIFY_CA")),
        ("ssl_mode=VERIFY_IDENTITY", Encryption("VERIFY_IDENTITY")),
        ("ssl_ca=tls/ca.pem", Encryption("VERIFY_IDENTITY", "/inst/tls/ca.pem")),
        ("ssl_ca=%2Fca.pem&ssl_mode=VERIFY_CA", Encryption("VERIFY_CA", "/ca.pem")),
        (
            "ssl_mode=REQUIRED&ssl_cert=/c.pem&ssl_key=k.pem",
            Encryption("REQUIRED", "", "/c.pem", "/inst/k.pem"),
        ),
    ],
)
def test_options_of_tls(options: str, encryption: Encryption | None) -> None:
    location = parse_url(f"mysql://u@h/mail?{options}", "/inst")
    assert location == MySQLLocation((MySQLServer("h"),), "u", "", "mail", encryption)
    database = Database(url=f"mysql://u@h/mail?{options}")
    assert pem_files(database, "/inst") == (encryption.files if encryption else set())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("ssl_mode=PREFERRED", "has the ssl_mode 'PREFERRED': it must be VERIFY_IDENTITY"),
        ("ssl_mode=", "has the ssl_mode '': it must be"),
        ("ssl_mode=REQUIRED&ssl_ca=/ca.pem", "ssl_mode=REQUIRED, which checks no certificate"),
        ("ssl_mode=REQUIRED&ssl_cert=/c.pem", "has only one of ssl_cert and ssl_key"),
        ("ssl_mode=REQUIRED&ssl_key=/k.pem", "has only one of ssl_cert and ssl_key"),
        ("ssl_cert=/c.pem&ssl_key=/k.pem", "without ssl_mode: add VERIFY_IDENTITY"),
        ("ssl_ca=", "ssl_ca names no file"),
        ("ssl_ca=%00", "ssl_ca names no file"),
        ("ssl_mode=REQUIRED&unix_socket=/s", "has ssl_mode and a unix_socket"),
        ("ssl_ca=/ca.pem&unix_socket=/s", "has ssl_ca and a unix_socket"),
        ("ssl_verify=1", "has the unknown option 'ssl_verify'; known are ssl_ca, ssl_cert,"),
    ],
)
def test_options_of_tls_that_are_refused(options: str, why: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_url(f"mysql://u:secret@h/mail?{options}", "/inst")
    assert str(caught.value).startswith("database.url")
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("ca.pem is missing", "ca.pem cannot be read: No such file or directory"),
        ("ca.pem is none", "ca.pem holds no certificate that can be read; write it in PEM"),
        ("own.pem is none", "own.pem holds no certificate that can be read"),
        ("own.key is missing", "own.key cannot be read: No such file or directory"),
        ("own.key is none", "own.key holds no private key that can be read"),
        ("own.key is another's", "own.key is not the key of {}/own.pem"),
        ("own.key is encrypted", "own.key is encrypted; a server needs a key without"),
    ],
)
def test_files_that_cannot_be_used(damage: str, why: str, tmp_path: Path) -> None:
    own, ca = issue("mx.example.com"), str(tmp_path / "ca.pem")
    write(tmp_path, "own", own)
    replace(ca, issue().certificate_pem)
    name, _, kind = damage.partition(" is ")
    contents = {
        "none": b"no PEM",
        "another's": issue().key_pem(),
        "encrypted": own.key_pem(b"passphrase"),
    }
    if kind == "missing":
        os.unlink(tmp_path / name)
    else:
        replace(str(tmp_path / name), contents[kind])
    files = {"ssl_ca": "ca.pem", "ssl_cert": "own.pem", "ssl_key": "own.key"}
    url = f"mysql://u:secret@h/mail?{urlencode(files)}"
    with pytest.raises(OperatorError) as caught:
        open_engine(Database(url=url), str(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"database.url: {tmp_path}/")
    assert why.format(tmp_path) in said


def test_a_location_never_shows_its_password() -> None:
    location = parse_url("mysql://u:secret@h/db", "/")
    assert "secret" not in f"{location} {location!r}"


def test_secret_parameters_are_not_shown() -> None:
    statement = Statement("UPDATE x SET y = ?, z = ?", ("hash", "name"), frozenset({0}))
    assert shown_parameters(statement) == "***, 'name'"


def test_no_trace_of_a_statement_shows_its_parameters() -> None:
    assert "hash" not in repr(Statement("UPDATE x SET y = ?", ("hash",), frozenset({0})))


def test_the_database_is_away_once_and_back_once() -> None:
    health = Health()
    with capture_logs() as events:
        health.answered(1.0)
        health.failed(2.0, "gone")
        health.failed(3.0, "gone")
        health.answered(4.0)
        health.answered(5.0)
    assert [event["event"] for event in events] == ["database_away", "database_back"]


def test_late_answers_to_old_questions_change_nothing() -> None:
    health = Health()
    with capture_logs() as events:
        health.answered(2.0)
        health.failed(1.0, "an old question timed out")
        health.failed(3.0, "gone")
        health.answered(2.5)
    assert [event["event"] for event in events] == ["database_away"]
