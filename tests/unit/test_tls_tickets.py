"""Whose tickets are taken, and for how long."""

from __future__ import annotations

import contextlib
import ssl
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from restante.tls import TlsSession
from restante.tls.certificate import PairFiles
from restante.tls.certificates import LOOK_INTERVAL, Certificates
from restante.tls.tickets import LIFETIME, SHARED, TICKETS, TicketContexts
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.tls_ends import TlsClient

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


def test_what_is_known_of_clients_goes_with_a_key(files: PairFiles) -> None:
    """A context remembers those that have no tickets (TLS 1.2)."""
    clock, tickets = Clock(), TicketContexts(0.0)
    worker = clock.worker(files, tickets)
    former = weakref.ref(worker.for_handshake())
    clock.seconds = LIFETIME
    assert worker.for_handshake()
    assert former() is None


def test_weeks_in_which_nobody_came_are_left_out() -> None:
    """All workers come to the same key, whether they had clients meanwhile or not."""
    tickets = TicketContexts(0.0)
    made = list(tickets._contexts)
    assert tickets.at(5.5 * LIFETIME) is made[5]
    assert tickets.at(5 * LIFETIME) is made[5]


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


class Meeting:
    """One handshake, and what each end has of it."""

    def __init__(self, door: ssl.SSLContext, client: TlsClient) -> None:
        self.client = client
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = door.wrap_bio(incoming, outgoing, server_side=True)
        said, behind = client.shake_hands(), b""
        while said:
            incoming.write(said)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.server.do_handshake()
            said, behind = b"", outgoing.read()
            if not client.is_shaken:
                said, behind = client.shake_hands(behind), b""
        self.tickets = list(_sizes(behind)) if self.server.version() == "TLSv1.3" else []
        """How large those of TLS 1.3 are, in octets."""
        self.server.write(b"hello")
        assert client.open(behind + outgoing.read()) == b"hello"


def _sizes(records: bytes) -> Iterator[int]:
    while records:
        size = 5 + int.from_bytes(records[3:5])
        yield size
        records = records[size:]


def meet(
    door: ssl.SSLContext,
    trust: ssl.SSLContext,
    version: ssl.TLSVersion,
    name: str | None = HOST,
    before: Meeting | None = None,
) -> Meeting:
    trust.minimum_version = trust.maximum_version = version
    trust.check_hostname = name is not None
    session = before.client.tls.session if before else None
    return Meeting(door, TlsClient(trust, name, session))


@pytest.mark.parametrize("name", [HOST, None])
def test_a_client_gets_one_ticket_of_a_certificates_context_too(
    files: PairFiles, authority: Issued, name: str | None
) -> None:
    door = Certificates([files]).for_handshake()
    trust = trusting(authority)
    first = meet(door, trust, ssl.TLSVersion.TLSv1_3, name)
    assert len(first.tickets) == TICKETS
    again = meet(door, trust, ssl.TLSVersion.TLSv1_3, name, first)
    assert again.server.session_reused
    assert len(again.tickets) == TICKETS, "else it could come again only once"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_is_resumed_has_no_channel_binding(
    files: PairFiles, authority: Issued, version: ssl.TLSVersion
) -> None:
    door, trust = Certificates([files]).for_handshake(), trusting(authority)
    first = meet(door, trust, version)
    again = meet(door, trust, version, before=first)
    assert again.server.session_reused
    is_old = version is ssl.TLSVersion.TLSv1_2
    assert list(TlsSession.of(first.server, "").bindings) == ["tls-unique"] * is_old
    assert not TlsSession.of(again.server, "").bindings


def test_a_client_may_come_again_by_another_name(
    tmp_path: Path, files: PairFiles, authority: Issued
) -> None:
    """Whose name it is then told of; whether it believes that is its own affair in TLS 1.3."""
    other = write(tmp_path, "other", issue("other.example.com", by=authority))
    certificates = Certificates([files, other])
    trust = trusting(authority)
    version = ssl.TLSVersion.TLSv1_3
    first = meet(certificates.for_handshake(), trust, version)
    again = meet(certificates.for_handshake(), trust, version, "other.example.com", first)
    assert again.server.session_reused
    assert certificates.server_name(again.server) == "other.example.com"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_context_without_a_certificate_serves_nobody(
    authority: Issued, version: ssl.TLSVersion
) -> None:
    """Unless somebody chooses one, for instance because of a bug."""
    with pytest.raises(ssl.SSLError, match=r"(?i)no[ _]shared[ _]cipher|unsupported[ _]protocol"):
        meet(TicketContexts(0.0).at(0.0), trusting(authority), version)
