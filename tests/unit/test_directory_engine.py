"""Database URLs, the state of the database, and what the log may show."""

from __future__ import annotations

import pytest

from restante.directory.engine import (
    Health,
    MySQLLocation,
    MySQLServer,
    SQLiteLocation,
    Statement,
    parse_url,
    shown_parameters,
)
from restante.errors import OperatorError
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
