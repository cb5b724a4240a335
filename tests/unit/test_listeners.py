"""Bound sockets: what a reload takes over, and what it can undo."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from restante.config import Settings
from restante.config.tree import HostPort, Pop3, Server, Smtp
from restante.service.listeners import Listeners, PortTaken

ANY = HostPort("127.0.0.1", 0)


def settings(workers: int, smtp: tuple[HostPort, ...], pop3: tuple[HostPort, ...]) -> Settings:
    return Settings("/nowhere", Server(workers=workers), smtp=Smtp(smtp), pop3=Pop3(pop3))


@pytest.fixture
def two() -> Iterator[Listeners]:
    listeners = Listeners().adjusted(settings(2, (ANY,), (ANY,)))
    yield listeners
    listeners.close()


def sockets(listeners: Listeners, service: str) -> list[socket.socket]:
    return [each.socket for each in listeners if each.service == service]


def is_open(bound: socket.socket) -> bool:
    return bound.fileno() >= 0


def test_what_stays_in_the_settings_keeps_its_socket(two: Listeners) -> None:
    wider = two.adjusted(settings(3, (ANY,), (ANY,)))
    with closing(wider):
        assert sockets(wider, "smtp") == sockets(two, "smtp")


def test_a_reload_that_is_undone_changes_nothing(two: Listeners) -> None:
    before = sockets(two, "smtp") + sockets(two, "pop3")
    narrower = two.adjusted(settings(1, (ANY,), ()))
    narrower.close(keep=two)
    assert all(map(is_open, before))
    assert sockets(two, "smtp") + sockets(two, "pop3") == before


def test_a_reload_leaves_what_is_wanted_no_more(two: Listeners) -> None:
    narrower = two.adjusted(settings(1, (ANY,), ()))
    with closing(narrower):
        two.close(keep=narrower)
        assert all(map(is_open, sockets(two, "smtp")))
        assert not any(map(is_open, sockets(two, "pop3")))


def test_an_address_that_is_taken_leaves_nothing_bound(two: Listeners) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = HostPort("127.0.0.1", other.getsockname()[1])
        with pytest.raises(PortTaken, match=str(taken)):
            two.adjusted(settings(3, (ANY, replace(taken)), (ANY,)))
    assert all(map(is_open, sockets(two, "smtp")))


def test_an_address_is_nobody_elses_meanwhile(two: Listeners) -> None:
    (bound,) = sockets(two, "smtp")
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(bound.getsockname())
