"""The DATA and BDAT codecs give back what was sent, however it was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restante.protocol.smtp.body import ChunkDecoder, ContentText, DataDecoder, Fault

LINES = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
        st.sampled_from([b"", b".", b"..", b"...", b".x"]),
    ),
    max_size=12,
)
CUTS = st.lists(st.integers(0, 200), max_size=8)
WIRE = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x", b"\r\n.", b"yyyyy"]), max_size=30
).map(b"".join)


def blocks_of(wire: bytes, cuts: list[int]) -> list[bytes]:
    """``wire`` cut at the places that lie within it."""
    places = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    return [wire[start:end] for start, end in pairwise(places)]


def with_its_lines(piece: bytes, text: ContentText) -> bytes:
    """The piece, whose line ends were counted: the size in the name of its file hangs on that."""
    assert not piece or text.lines == piece.count(b"\n")
    return piece


def decode_data(
    blocks: list[bytes], max_octets: int = 0, max_line: int = 1000
) -> tuple[bytes, bytes | None, Fault | None]:
    """The text, what follows the content (None: it has not ended), and the fault."""
    decoder = DataDecoder(ContentText(max_octets, max_line))
    text, held = b"", b""
    for number, block in enumerate(blocks):
        decoded, end = decoder.feed(b"?" + held + block, 1)
        text += with_its_lines(decoded, decoder.text)
        held = (b"?" + held + block)[end:]
        if decoder.done:
            return text, held + b"".join(blocks[number + 1 :]), decoder.text.fault
        assert len(held) <= 4
    return text, None, decoder.text.fault


def decode_chunks(
    blocks: list[bytes], max_octets: int = 0, max_line: int = 1000
) -> tuple[bytes, Fault | None]:
    """The text and the fault."""
    decoder = ChunkDecoder(ContentText(max_octets, max_line))
    text = b"".join(with_its_lines(decoder.feed(block), decoder.text) for block in blocks)
    text += with_its_lines(decoder.finish(), decoder.text)
    return text, decoder.text.fault


@settings(deadline=None)
@given(LINES, st.binary(max_size=20), CUTS)
def test_data_round_trip(lines: list[bytes], after: bytes, cuts: list[int]) -> None:
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    wire = b"".join(line + b"\r\n" for line in stuffed) + b".\r\n" + after
    text, rest, fault = decode_data(blocks_of(wire, cuts))
    assert fault is None
    assert text == b"".join(line + b"\n" for line in lines)
    assert rest == after


@settings(deadline=None)
@given(LINES, CUTS)
def test_chunks_round_trip(lines: list[bytes], cuts: list[int]) -> None:
    wire = b"\r\n".join(lines)
    text, fault = decode_chunks(blocks_of(wire, cuts))
    assert fault is None
    whole = b"\n".join(lines)
    assert text == (whole + b"\n" if whole and not whole.endswith(b"\n") else whole)


def naive_verdict(text: bytes, max_octets: int, max_line: int, added: int = 0) -> Fault | None:
    """The judgement, line by line, as the rules say it; ``added`` octets are the server's own."""
    lines = text.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line for line in lines):
        return Fault.BARE_LINE_END
    if max_octets and len(text) - added > max_octets:
        return Fault.TOO_BIG
    if any(len(line) + 2 > max_line for line in lines[:-1]):
        return Fault.LONG_LINE
    return None


@settings(deadline=None)
@given(WIRE, CUTS, st.integers(0, 30), st.integers(3, 12))
def test_data_agrees_with_a_decoder_line_by_line(
    wire: bytes, cuts: list[int], max_octets: int, max_line: int
) -> None:
    wire += b"\r\n.\r\n"
    end = (b"\r\n" + wire).index(b"\r\n.\r\n")
    content = wire[:end]
    unstuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:]
    text, rest, fault = decode_data(blocks_of(wire, cuts), max_octets, max_line)
    assert rest == wire[end + 3 :]
    assert fault == naive_verdict(unstuffed, max_octets, max_line)
    if fault is None:
        assert text == unstuffed.replace(b"\r\n", b"\n")


@settings(deadline=None)
@given(WIRE, CUTS, st.integers(0, 30), st.integers(3, 12))
def test_chunks_agree_with_a_decoder_line_by_line(
    wire: bytes, cuts: list[int], max_octets: int, max_line: int
) -> None:
    text, fault = decode_chunks(blocks_of(wire, cuts), max_octets, max_line)
    whole = wire if wire.endswith(b"\r\n") or not wire else wire + b"\r\n"
    assert fault == naive_verdict(whole, max_octets, max_line, len(whole) - len(wire))
    if fault is None:
        assert text == whole.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"]
)
def test_nothing_else_ends_a_content(ending: bytes) -> None:
    _, rest, _ = decode_data([b"text" + ending])
    assert rest is None


def test_a_refused_content_is_not_passed_on() -> None:
    decoder = DataDecoder(ContentText(0, 1000))
    assert decoder.feed(b"bare\nline", 0) == (b"", 9)
    assert decoder.feed(b"innocent\r\nlines\r\nx", 0) == (b"", 18)
    assert decoder.text.fault is Fault.BARE_LINE_END
