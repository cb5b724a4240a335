"""The SMTP client engine talks to Postfix and Exim over real sockets and real TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import pytest

from restante.address import Address
from restante.protocol.smtp.client import SmtpClient
from restante.protocol.smtp.client_events import (
    ClientWait,
    Closed,
    OutgoingMessage,
    OutgoingRecipient,
    Ready,
    StartTls,
    TransactionDone,
)
from tests.support.certificates import Issued, issue
from tests.support.far_hosts import FarHost, exim, postfix
from tests.support.instance import PATIENCE, until
from tests.support.ports import free_port

pytestmark = pytest.mark.peer

ADDRESS = "127.0.0.2"
CONTENT = b"From: <me@far.example>\nSubject: interop\n\n.dot\n..dots\n.\nlast line" + b"x" * 600
LARGE = CONTENT + b"\n" + b"a line of some length, and then another\n" * 20_000


_Event = TypeVar("_Event")


class _NewHost(Protocol):
    def __call__(
        self, domain: str, address: str, port: int, certificate: Issued
    ) -> AbstractContextManager[FarHost]: ...


class Talk:
    """A blocking driver of the engine."""

    def __init__(self, port: int, *, tls: bool, chunking: bool) -> None:
        self._socket = socket.create_connection((ADDRESS, port), timeout=PATIENCE)
        self._tls = tls
        self._chunking = chunking
        self.client = SmtpClient("client.example")
        self.offered = self._greet()

    def _greet(self) -> Ready:
        """To the last Ready."""
        ready = self._until(Ready)
        if self._tls:
            self.client.start_tls()
            self._until(StartTls)
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self._socket = context.wrap_socket(self._socket)
            self.client.tls_started()
            ready = self._until(Ready)
        return ready

    def send(self, content: bytes, *recipients: str) -> list[str]:
        """Send a message; what became of each recipient."""
        addresses = tuple(OutgoingRecipient(Address.parse(each)) for each in recipients)
        self._content = content
        self.client.send(OutgoingMessage(Address("me", "far.example"), addresses, len(content)))
        return [str(result.reply) for result in self._until(TransactionDone).results]

    def quit(self) -> Closed:
        """Take leave."""
        self.client.quit()
        with contextlib.closing(self._socket):
            return self._until(Closed)

    def _until(self, kind: type[_Event]) -> _Event:
        while not isinstance(event := self.client.next_event(), kind):
            self._socket.sendall(self.client.outgoing())
            if event is ClientWait.NEED_DATA:
                self._receive()
            elif event is ClientWait.NEED_CONTENT:
                self._give_content()
            else:
                assert not isinstance(event, Closed), event
        return event

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if data:
            # A host that does not offer it.
            self.client.receive(data if self._chunking else data.replace(b"CHUNKING", b"XCHUNKS"))
        else:
            self.client.receive_eof()

    def _give_content(self) -> None:
        for at in range(0, len(self._content), 100_000):
            self.client.content(self._content[at : at + 100_000])
        self.client.end_content()


HOSTS: dict[str, _NewHost] = {"postfix": postfix, "exim": exim}
CODES = {"user": "250", "none": "550", "full": "45"}
"""How the replies begin that the hosts' local parts get; Exim makes 451 of any deferral."""


@pytest.fixture(scope="module", params=HOSTS)
def far(request: pytest.FixtureRequest) -> Iterator[tuple[FarHost, int]]:
    """Postfix and Exim in turn, and their port."""
    port = free_port()
    with HOSTS[request.param]("far.example", ADDRESS, port, issue("mail.far.example")) as host:
        yield host, port


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("chunking", [False, True], ids=["data", "bdat"])
def test_contents_arrive(far: tuple[FarHost, int], tls: bool, chunking: bool) -> None:
    host, port = far
    before = len(host.messages("user"))
    talk = Talk(port, tls=tls, chunking=chunking)
    assert talk.offered.extensions.pipelining
    assert talk.client.extensions.chunking is chunking
    for content in (CONTENT, LARGE):
        (reply,) = talk.send(content, host.address("user"))
        assert reply.startswith("250")
    talk.quit()
    until(lambda: len(host.messages("user")) == before + 2, "both are delivered")
    delivered = host.messages("user")
    for content in (CONTENT, LARGE):
        # The header gets fields that it lacks.
        _, body = content.split(b"\n\n", 1)
        ended = body.removesuffix(b"\n") + b"\n"
        assert any(each.endswith(b"\n\n" + ended) for each in delivered)


def test_refusals(far: tuple[FarHost, int]) -> None:
    host, port = far
    talk = Talk(port, tls=False, chunking=True)
    for recipients in (["none", "full"], ["none", "user", "full"], ["full"], ["user"]):
        replies = talk.send(CONTENT, *map(host.address, recipients))
        for local, reply in zip(recipients, replies, strict=True):
            assert reply.startswith(CODES[local])
        assert all("5.1.1" in reply for reply in replies if reply.startswith("550"))
        assert all("4.2.2" in reply for reply in replies if reply.startswith("45"))
    assert str(talk.quit().reply).startswith("221")
