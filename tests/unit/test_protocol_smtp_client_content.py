"""Contents on their way out: the octets on the wire, however the content was cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.protocol.smtp.client_content import (
    MIN_CHUNK,
    ChunkEncoder,
    DataEncoder,
)

PIECES = st.lists(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\n.", b"\r\n", b"yy\xff"])).map(b"".join),
    max_size=8,
)


def encode(encoder: DataEncoder | ChunkEncoder, blocks: list[bytes]) -> bytes:
    """All that goes onto the wire."""
    return b"".join([*(encoder.feed(block) for block in blocks), encoder.finish()])


def by_lines(content: bytes) -> list[bytes]:
    """The lines of a content; what follows the last line end is one if it is not empty."""
    *lines, rest = content.replace(b"\r", b"").split(b"\n")
    return [*lines, rest] if rest else lines


@given(PIECES)
def test_data(blocks: list[bytes]) -> None:
    stuffed = [
        b"." + line if line.startswith(b".") else line for line in by_lines(b"".join(blocks))
    ]
    wire = b"".join(line + b"\r\n" for line in [*stuffed, b"."])
    assert encode(DataEncoder(), blocks) == wire


@given(PIECES)
def test_chunks(blocks: list[bytes]) -> None:
    octets = b"".join(line + b"\r\n" for line in by_lines(b"".join(blocks)))
    wire = b"BDAT %d LAST\r\n%b" % (len(octets), octets)
    assert encode(ChunkEncoder(), blocks) == wire


def test_small_blocks_are_gathered_into_chunks() -> None:
    wire = encode(ChunkEncoder(), [b"x" * 1000 + b"\n"] * 200)
    sizes = [int(size) for size in re.findall(rb"BDAT ([0-9]+)", wire)]
    assert len(sizes) == 4
    assert min(sizes[:-1]) >= MIN_CHUNK
    assert sum(sizes) == 1002 * 200
    assert wire.count(b"LAST") == 1


@pytest.mark.parametrize("blocks", [[], [b""], [b"", b""]])
def test_nothing(blocks: list[bytes]) -> None:
    assert encode(DataEncoder(), blocks) == b".\r\n"
    assert encode(ChunkEncoder(), blocks) == b"BDAT 0 LAST\r\n"
