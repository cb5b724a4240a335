"""LIST and UIDL are made many lines at a time: each line is whole, wherever numbers grow."""

from __future__ import annotations

from array import array

import pytest

from restante.protocol.pop3.listing import LINES, Listing
from restante.store import Messages

BORDERS = (LINES - 1, LINES, 2 * LINES, 10 * LINES)


@pytest.mark.parametrize("number", [0, 1, *(border + n for border in BORDERS for n in (-1, 0, 1))])
@pytest.mark.parametrize("marked", [(), (0,), (LINES - 2, LINES - 1, LINES)])
def test_each_message_has_its_line(number: int, marked: tuple[int, ...]) -> None:
    listing = Listing(Messages([b"uid%d" % n for n in range(number)], array("Q", range(number))))
    there = [index for index in range(number) if index not in marked]
    for index in marked:
        if index < number:
            listing.mark(index)
    assert b"".join(listing.sizes()) == b"".join(b"%d %d\r\n" % (n + 1, n) for n in there)
    assert b"".join(listing.uids()) == b"".join(b"%d uid%d\r\n" % (n + 1, n) for n in there)
