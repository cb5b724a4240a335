"""Of several servers the first that is well is asked, and one connection finds out what is well."""

from __future__ import annotations

from collections.abc import Iterator

from restante.directory.engine import MySQLServer
from restante.directory.servers import REST, Servers
from tests.support.events import capture_logs

NEAR, FAR, FARTHER = (MySQLServer(f"db{number}.example.com") for number in range(3))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_asked_as_long_as_it_is_well() -> None:
    servers = Servers([NEAR, FAR])
    assert servers.first == NEAR
    assert list(servers.turns()) == [NEAR, FAR]
    servers.failed(FAR)
    assert servers.first == NEAR


def test_one_that_failed_is_left_alone_for_a_while() -> None:
    servers, clock = several()
    servers.failed(NEAR)
    assert servers.first == FAR
    assert list(failing(servers)) == [FAR, FARTHER, NEAR]
    clock.now += REST
    assert servers.first == NEAR


def test_one_that_is_well_and_gives_no_connection_is_better_than_the_last_resort() -> None:
    servers, _ = several()
    servers.failed(NEAR)
    servers.failed(FARTHER)
    assert list(servers.turns()) == [FAR]


def test_one_connection_finds_out_whether_it_is_back() -> None:
    servers, clock = several()
    servers.failed(NEAR)
    clock.now += REST
    finding_out = servers.turns()
    assert next(finding_out) == NEAR
    assert next(servers.turns()) == FAR, "somebody is trying already"
    servers.answered(NEAR)
    assert next(servers.turns()) == NEAR


def test_where_none_is_well_the_one_that_answered_last_is_tried() -> None:
    """It may have been slow with one answer, while the others are down."""
    servers, clock = several()
    servers.failed(NEAR)
    servers.answered(FAR)
    for server in (FARTHER, FAR):
        servers.failed(server)
    assert servers.first == FAR
    assert list(failing(servers)) == [FAR]
    clock.now += REST
    assert servers.first == NEAR, "it may be back"


def test_where_none_was_ever_well_the_first_alone_is_tried() -> None:
    servers, clock = several()
    for server in (FAR, NEAR, FARTHER):
        servers.failed(server)
        clock.now += 1
    assert servers.first == NEAR
    assert list(servers.turns()) == [NEAR]
    assert not servers.is_any_well
    clock.now += REST - 3
    assert servers.is_any_well
    assert list(failing(servers)) == [FAR, NEAR]


def test_a_change_is_logged_once() -> None:
    servers, _ = several()
    with capture_logs() as events:
        for server in (NEAR, NEAR, FAR, FAR, NEAR):
            servers.answered(server)
    assert [(event["event"], event["server"]) for event in events] == [
        ("database_server", "db1.example.com:3306"),
        ("database_server", "db0.example.com:3306"),
    ]


def failing(servers: Servers) -> Iterator[MySQLServer]:
    """Those that are tried where each of them fails."""
    for server in servers.turns():
        servers.failed(server)
        yield server


def several() -> tuple[Servers, Clock]:
    clock = Clock()
    return Servers([NEAR, FAR, FARTHER], clock), clock
