"""Replies as a client reads them, several in a block."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from restante.protocol.smtp.client_reply import MAX_LINE, NotAReply, ReplyReader

LONGEST = b"250 " + b"x" * (MAX_LINE - len(b"250 \r\n")) + b"\r\n"


def codes(blocks: Iterable[bytes]) -> list[int]:
    reader = ReplyReader()
    found = []
    for block in blocks:
        reader.feed(block)
        while (reply := reader.next_reply()) is not None:
            found.append(reply.code)
    return found


def test_a_line_may_have_so_many_octets_wherever_it_begins() -> None:
    assert codes([b"220 hi\r\n" + LONGEST + LONGEST]) == [220, 250, 250]
    for too_long in (b"250 x" + LONGEST[4:], LONGEST[:-1] + b"x"):
        reader = ReplyReader()
        reader.feed(b"220 hi\r\n" + too_long)
        assert reader.next_reply() is not None
        with pytest.raises(NotAReply, match=rf"^a line longer than {MAX_LINE} octets: '250 x.*…'$"):
            reader.next_reply()


def test_nothing_is_left_of_what_was_read() -> None:
    reader = ReplyReader()
    reader.feed(b"220 hi\r\n250-")
    assert reader.next_reply() is not None
    assert not reader.is_empty
    assert reader.next_reply() is None
    reader.feed(b"mx\r\n250 ok\r\n")
    assert reader.next_reply() is not None
    assert reader.is_empty


def test_lines_cost_no_more_for_all_that_follows_them() -> None:
    said = b"250-\r\n" * 200 + b"250 \r\n"
    in_pieces = seconds_for([said] * 1000)
    assert seconds_for([said * 1000]) < 4 * in_pieces


def seconds_for(blocks: list[bytes]) -> float:
    """Of processor time."""
    began = time.process_time()
    assert codes(blocks) == [250] * 1000
    return time.process_time() - began
