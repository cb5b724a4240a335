"""What errors of MySQL and MariaDB mean: who is to blame, and whether it may be asked again."""

from __future__ import annotations

import pytest

from restante.directory.driver import MySQLError
from restante.directory.engine import Overtaken, Rejected, Unfit
from restante.directory.mysql_errors import (
    AllTaken,
    ChangeWaited,
    explanation,
    is_away,
    is_full,
    is_lost,
    kind_of,
)
from restante.errors import CannotKnow

REMEDY = "and none was free in time: the database is slow, or database.pool_size small"


@pytest.mark.parametrize(
    ("error", "kind", "is_servers"),
    [
        (MySQLError(2003, "Can't connect"), CannotKnow, True),
        (MySQLError(1045, "Access denied"), CannotKnow, True),
        (MySQLError(1047, "WSREP has not yet prepared node for application use"), CannotKnow, True),
        (MySQLError(1226, "User has exceeded the 'max_user_connections'"), CannotKnow, True),
        (MySQLError(4711, "What nobody has heard of"), CannotKnow, True),
        (TimeoutError(), CannotKnow, True),
        (RuntimeError("what is this?"), CannotKnow, True),
        (AllTaken(4), CannotKnow, False),
        (MySQLError(1146, "No such table"), Rejected, False),
        (MySQLError(3854, "Cannot convert string"), Unfit, False),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), Rejected, False),
        (MySQLError(1213, "Deadlock found"), Overtaken, False),
        (MySQLError(1114, "The table is full"), Overtaken, False),
        (ChangeWaited(), Overtaken, False),
    ],
    ids=repr,
)
def test_what_a_question_comes_to(
    error: Exception, kind: type[CannotKnow], *, is_servers: bool
) -> None:
    assert kind_of(error) is kind
    assert is_away(error) is is_servers


def test_which_connection_is_of_no_use_any_more() -> None:
    lost = [MySQLError(2006, "gone away"), MySQLError(1615, "to be prepared again"), MySQLError()]
    assert all(map(is_lost, lost))
    assert not any(map(is_lost, [MySQLError(1146, "No such table"), TimeoutError()]))


def test_a_server_without_a_connection_to_spare_is_well() -> None:
    assert all(is_full(MySQLError(number, "too many")) for number in (1040, 1203, 1226))
    assert not is_full(MySQLError(2003, "Can't connect"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (MySQLError(1146, "No such table"), "No such table (1146)"),
        (MySQLError("not these octets"), "what answers there is no MySQL server: not these octets"),
        (
            MySQLError(1049, "Unknown database 'x'"),
            "Unknown database 'x' (1049); is the name at the end of database.url right?",
        ),
        (AllTaken(4), f"all 4 connections are taken, {REMEDY}"),
    ],
    ids=repr,
)
def test_what_an_operator_reads(error: Exception, said: str) -> None:
    assert explanation(error) == said


def test_of_a_server_that_cannot_be_reached_the_reason_of_each_address_is_read() -> None:
    error = MySQLError(2003, "Can't connect to MySQL server on 'db'")
    error.__cause__ = OSError(
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 3306, 0, 0), "
        "[Errno 113] Connect call failed ('127.0.0.1', 3306)"
    )
    assert explanation(error) == (
        "cannot connect: Connection refused, No route to host; "
        "is the server running, and is database.url right?"
    )
