"""What comes in at a worker's office: a request or a refusal, whatever it is; never too much."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.service.office import (
    MAX_NAME,
    MAX_REQUEST,
    PER_SECOND,
    TURN,
    BadRequest,
    Office,
    Request,
    read_request,
)


@pytest.mark.parametrize(
    ("octets", "request_"),
    [
        (b'{"id": 7, "helper": "iain@example.com"}', Request(7, "helper", "iain@example.com")),
        (b'{"id": 0, "system": "alias"}', Request(0, "system", "alias")),
        (b'{"id": 9, "file": "/srv/tls.key"}', Request(9, "file", "/srv/tls.key")),
    ],
)
def test_requests(octets: bytes, request_: Request) -> None:
    assert read_request(octets) == request_


@pytest.mark.parametrize(
    "octets",
    [
        b"hello",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * MAX_REQUEST,
        b'{"id": 7}',
        b'{"helper": "iain"}',
        b'{"id": "7", "helper": "iain"}',
        b'{"id": true, "helper": "iain"}',
        b'{"id": -1, "helper": "iain"}',
        b'{"id": 1e400, "helper": "iain"}',
        b'{"id": 9007199254740992, "helper": "iain"}',
        b'{"id": 7, "uid": 0}',
        b'{"id": 7, "helper": 0}',
        b'{"id": 7, "helper": ""}',
        b'{"id": 7, "helper": ["iain"]}',
        b'{"id": 7, "file": "/etc/passwd\\u0000"}',
        b'{"id": 7, "helper": "iain", "uid": 0}',
        b'{"id": 7, "helper": "iain", "system": "root"}',
        json.dumps({"id": 7, "helper": "x" * (MAX_NAME + 1)}).encode(),
        json.dumps({"id": 7, "helper": "x" * MAX_REQUEST}).encode(),
    ],
)
def test_what_is_no_request(octets: bytes) -> None:
    with pytest.raises(BadRequest):
        read_request(octets)


@given(st.binary(max_size=MAX_REQUEST + 1))
def test_whatever_comes_is_a_request_or_refused(octets: bytes) -> None:
    """Invariant: read_request returns a request within its limits, or raises BadRequest."""
    try:
        request = read_request(octets)
    except BadRequest:
        return
    assert 0 < len(request.name) <= MAX_NAME


class Desk:
    """An office, and a worker's end of it."""

    def __init__(self) -> None:
        ours, self.worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker.setblocking(False)
        self.served: list[Request] = []
        self.office = Office(3, frozenset(), ours, lambda _, request: self.served.append(request))

    def flood(self, datagram: bytes) -> int:
        """Put in what fits; how many datagrams."""
        count = 0
        while True:
            try:
                self.worker.send(datagram)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.worker.close()
    desk.office.close()


def test_others_have_their_turn(desk: Desk) -> None:
    for number in range(TURN + 2):
        desk.worker.send(b'{"id": %d, "helper": "iain"}' % number)
    assert desk.office.listen()
    assert len(desk.served) == TURN
    assert desk.office.listen()
    assert [request.id for request in desk.served] == list(range(TURN + 2))


def test_a_flood_is_not_listened_to_for_ever(desk: Desk) -> None:
    """One second's requests are served, and then the office rests, with the rest unread."""
    while desk.flood(b'{"id": 7, "helper": "iain"}') and desk.office.listen():
        assert len(desk.served) < 100 * PER_SECOND
    assert len(desk.served) >= PER_SECOND - 1
    assert desk.office.is_open


def test_junk_costs_more(desk: Desk) -> None:
    turns = 0
    while desk.flood(b"junk") and desk.office.listen():
        turns += 1
        assert turns < PER_SECOND
    assert desk.served == []
    assert desk.office.is_open


def test_a_worker_that_is_gone(desk: Desk) -> None:
    desk.worker.close()
    assert not desk.office.listen()
    assert not desk.office.is_open


def test_a_worker_that_reads_no_answers_is_not_waited_for(desk: Desk) -> None:
    for number in range(10_000):
        desk.office.refuse(number, "x" * 1000)
    assert json.loads(desk.worker.recv(4096)) == {"id": 0, "error": "x" * 1000}
