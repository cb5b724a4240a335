"""Whose tickets are taken, and for how long."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from restante.tls.certificate import PairFiles
from restante.tls.certificates import LOOK_INTERVAL, Certificates
from restante.tls.tickets import LIFETIME, SHARED, TICKETS, TicketContexts
from tests.support.certificates import Issued, issue, trusting, write

HOST = "mx.example.com"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass
class Clock:
    """Time that passes when told to."""

    seconds: float = 0.0

    def worker(self, files: PairFiles, tickets: TicketContexts) -> Certificates:
        return Certificates([files], None, tickets, monotonic=lambda: self.seconds)


class Client:
    """Comes again with the session that it had last."""

    def __init__(
        self, trust: ssl.SSLContext, version: ssl.TLSVersion, name: str | None = HOST
    ) -> None:
        self.context = trust
        self.context.minimum_version = self.context.maximum_version = version
        self.context.check_hostname = name is not None
        self.name = name
        self.session: ssl.SSLSession | None = None

    def is_known_to(self, worker: Certificates) -> bool:
        """Hold a session; whether its handshake went on from the last one."""
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(down, up, server_hostname=self.name, session=self.session)
        server = worker.for_handshake().wrap_bio(up, down, server_side=True)
        for side in (client, server, client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        server.write(b"hello")
        assert client.read(5) == b"hello"  # what comes before it are tickets
        self.session = client.session
        return bool(client.session_reused)


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue()


@pytest.fixture
def files(tmp_path: Path, authority: Issued) -> PairFiles:
    return write(tmp_path, "mx", issue(HOST, by=authority))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [HOST, None])
def test_any_worker_takes_what_another_has_given_out(
    files: PairFiles, authority: Issued, version: ssl.TLSVersion, name: str | None
) -> None:
    clock, tickets = Clock(), TicketContexts(0.0)
    first, second = clock.worker(files, tickets), clock.worker(files, tickets)
    client = Client(trusting(authority), version, name)
    assert not client.is_known_to(first)
    assert client.is_known_to(second)
    assert client.is_known_to(first)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_lasts_a_week(files: PairFiles, authority: Issued, version: ssl.TLSVersion) -> None:
    clock, tickets = Clock(), TicketContexts(0.0)
    first, second = clock.worker(files, tickets), clock.worker(files, tickets)
    client = Client(trusting(authority), version)
    client.is_known_to(first)
    clock.seconds = LIFETIME - 1
    assert client.is_known_to(second)
    clock.seconds = LIFETIME + LOOK_INTERVAL
    assert not client.is_known_to(second)
    assert client.is_known_to(first)


def test_keys_never_end() -> None:
    """After those that were made in advance, each worker goes on with its own."""
    tickets = TicketContexts(0.0)
    weeks = [tickets.at(week * LIFETIME) for week in range(SHARED + 3)]
    assert len({id(context) for context in weeks}) == SHARED + 3
    assert tickets.at((SHARED + 2) * LIFETIME + 1) is weeks[-1]


def test_those_of_another_generation_are_not_taken(files: PairFiles, authority: Issued) -> None:
    clock = Clock()
    client = Client(trusting(authority), ssl.TLSVersion.TLSv1_3)
    client.is_known_to(clock.worker(files, TicketContexts(0.0)))
    assert not client.is_known_to(clock.worker(files, TicketContexts(0.0)))


def test_a_new_certificate_leaves_tickets_good(
    tmp_path: Path, files: PairFiles, authority: Issued
) -> None:
    clock, tickets = Clock(), TicketContexts(0.0)
    client = Client(trusting(authority), ssl.TLSVersion.TLSv1_3)
    worker = clock.worker(files, tickets)
    client.is_known_to(worker)
    write(tmp_path, "mx", issue(HOST, by=authority))
    clock.seconds = 60.0
    assert client.is_known_to(worker)


def test_each_handshake_makes_one_ticket() -> None:
    assert TicketContexts(0.0).at(0.0).num_tickets == TICKETS == 1
