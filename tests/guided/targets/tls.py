"""TLS, before and after a handshake: whatever a peer sends in its place."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import Any

from restante.tls_stream import TlsStream
from tests.guided.scratch import scratch
from tests.guided.target import Choices, Target, cut
from tests.support.certificates import issue, trusting, write
from tests.support.tls_ends import HOST, TlsClient


class _Wire(asyncio.Transport):
    """Keeps what is written, until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self._is_closing = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whoever it is."""

    def write(self, data: Any) -> None:
        """Nothing is written behind the end."""
        assert not self._is_closing
        self.said += data

    def get_write_buffer_size(self) -> int:
        """The peer reads all."""
        return 0

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._is_closing

    def close(self) -> None:
        """Write nothing more."""
        self._is_closing = True

    abort = close

    def resume_reading(self) -> None:
        """As it is."""


class _Session(asyncio.Protocol):
    """Hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        """Text that came in records."""
        assert not self.is_lost
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Once."""
        assert not self.is_lost
        self.is_lost = True


@cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = issue()
    files = write(scratch("tls"), "mx", issue(HOST, by=authority))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    return server, trusting(authority)


def tls_records(data: bytes) -> None:
    """What no peer with the keys has sent is heard by nobody, and a handshake ends once."""
    choices = Choices(data)
    stage, size, octets = choices.octet() % 4, choices.octet() % 40, choices.rest
    server, client = _contexts()
    wire, session, outcomes = _Wire(), _Session(), list[Exception | None]()
    if stage == 3:
        stream = TlsStream(wire, session, client, outcomes.append, server_name=HOST)
    else:
        stream = TlsStream(wire, session, server, outcomes.append)
    if stage in (1, 2):
        peer = TlsClient(client)
        stream.data_received(peer.shake_hands())
        last, wire.said = peer.shake_hands(wire.said), b""
        if stage == 2:
            stream.data_received(last + peer.seal(b"EHLO x\r\n"))
            assert outcomes == [None]
    for piece in cut(octets, size):
        stream.data_received(piece)
    stream.eof_received()
    stream.connection_lost(None)
    assert len(outcomes) == 1
    assert session.heard == (b"EHLO x\r\n" if stage == 2 else b"")
    assert session.is_lost


HELLO = (
    b"\x16\x03\x01\0\x2f\1\0\0\x2b\3\3" + bytes(32) + b"\0\0\4\x13\1\xc0\x2f\1\0"
    b"\x14\3\3\0\1\1\x15\3\3\0\2\1\0"
)
RECORDS = (HELLO, b"\x15\3\3\0\2\1\0", b"\x17\3\3\0\5hello", b"EHLO x\r\n", b"\x14\3\3\0\1\1")
TARGETS = (
    Target(
        tls_records,
        [bytes([stage, 7]) + each for stage in range(4) for each in RECORDS],
        (b"\x16\3\3", b"\x17\3\3", b"\x15\3\3", b"\x14\3\3", b"\0\2", HELLO, b"\xff\xff"),
        longest=300,
    ),
)
