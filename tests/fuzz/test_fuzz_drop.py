"""Whatever a file holds, it is read as the message it means, or raises BadRecord."""

from __future__ import annotations

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from restante.drop.record import (
    HEAD_SIZE,
    BadRecord,
    Head,
    Recipient,
    Record,
    decode,
    decode_head,
    encode,
    encode_head,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
recipients = st.builds(Recipient, texts, texts, texts)
records = st.builds(
    Record, texts, st.lists(recipients, min_size=1, max_size=5).map(tuple), texts, texts
)
PIECES = st.sampled_from([b"S", b"T", b"N", b"O", b"R", b"V", b"\0", b"a@b", b"\xff", b"NEVER"])


@given(records)
def test_what_is_written_is_read(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.integers(0, 4 * 1024 * 1024), st.integers(0, 10**12 - 1))
def test_heads(envelope: int, content: int) -> None:
    head = Head(envelope, content)
    octets = encode_head(head)
    assert len(octets) == HEAD_SIZE
    assert decode_head(octets) == head


@given(st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60))
@example(b"S\0Ta\0N\0")
def test_any_envelope(octets: bytes) -> None:
    with contextlib.suppress(BadRecord):
        record = decode(octets)
        assert record.recipients
        assert encode(record) == octets


@given(st.binary(max_size=60) | st.integers(0, 37).map(lambda cut: encode_head(Head(1, 2))[:cut]))
def test_any_head(octets: bytes) -> None:
    with contextlib.suppress(BadRecord):
        assert encode_head(decode_head(octets)) == octets
