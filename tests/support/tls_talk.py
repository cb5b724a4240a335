"""What stands around a TlsStream in tests: a wire without a socket, a session, and ways to cut."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st

from restante.tls_stream import RECORD, TlsStream

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
BOTH = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


class Wire(asyncio.Transport):
    """The transport in clear text: keeps what is written, until the test takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.most = 0
        """Octets that were written at once."""
        self.is_stuck = False
        """The peer takes nothing."""
        self.is_closed = False
        self.is_aborted = False
        self.is_paused = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, TlsStream)
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closing()
        assert data
        self.said += data
        self.most = max(self.most, len(data))

    def take(self) -> bytes:
        said, self.said = self.said, b""
        return said

    def get_write_buffer_size(self) -> int:
        return len(self.said) if self.is_stuck else 0

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Session(asyncio.Protocol):
    """What a stream says to it, in order."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.answer: Callable[[bytes], None] = lambda data: None
        self.stays = True
        """It goes on when its peer has said all."""

    @property
    def text(self) -> bytes:
        return b"".join(each for each in self.heard if isinstance(each, bytes))

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.answer(data)

    def eof_received(self) -> bool:
        self.heard.append("end")
        return self.stays

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")


class Counted:
    """What lies between OpenSSL and a stream, and the most octets that it ever held."""

    def __init__(self, buffer: ssl.MemoryBIO) -> None:
        self._buffer = buffer
        self.most = 0

    @property
    def pending(self) -> int:
        return self._buffer.pending

    def read(self) -> bytes:
        self.most = max(self.most, self._buffer.pending)
        return self._buffer.read()

    def write(self, data: bytes) -> None:
        self._buffer.write(data)
        self.most = max(self.most, self._buffer.pending)


def counted(stream: TlsStream) -> tuple[Counted, Counted]:
    """Count from now on: what comes, and what goes."""
    incoming, outgoing = Counted(stream._incoming), Counted(stream._outgoing)
    stream._incoming, stream._outgoing = incoming, outgoing  # type: ignore[assignment]
    return incoming, outgoing


@st.composite
def cuts(draw: st.DrawFn) -> Callable[[bytes], Iterator[bytes]]:
    """A way to cut octets in pieces: the same sizes again and again."""
    sizes: Sequence[int] = draw(
        st.lists(
            st.sampled_from([1, 2, 3, 5, 7, 100, 1000, RECORD, RECORD + 1, 5 * RECORD]),
            min_size=1,
            max_size=4,
        )
    )

    def cut(octets: bytes) -> Iterator[bytes]:
        place, turn = 0, 0
        while place < len(octets):
            size = max(sizes[turn % len(sizes)], len(octets) // 2000)
            yield octets[place : place + size]
            place, turn = place + size, turn + 1

    return cut


texts = st.lists(
    st.sampled_from([b"x", b"NOOP\r\n", b"y" * RECORD, b"z" * (RECORD + 1), b"0123456789" * 7000]),
    min_size=1,
    max_size=4,
)


def damaged(octets: bytes, place: int, by: bytes, skipped: int) -> bytes:
    """``by`` in place of ``skipped`` octets, at a place that may lie behind them all."""
    place %= len(octets) + 1
    return octets[:place] + by + octets[place + skipped :]
