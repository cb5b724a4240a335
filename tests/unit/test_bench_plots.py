"""Pictures of the bench's results."""

from __future__ import annotations

import struct
from pathlib import Path

from bench.figures import Better, Row, Series
from bench.plots import draw


def row(key: str, unit: str, *entrants: str) -> Row:
    better = Better.LESS if unit == "s" else Better.MORE
    series = [Series(name, (90.0, 100.0, 120.0)) for name in entrants]
    return Row(key, f"work {key}", unit, better, series)


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG (RFC 2083 §4.1.1), which matplotlib has written."""
    octets = picture.read_bytes()
    assert octets[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"Software\0Matplotlib" in octets
    assert octets[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", octets[16:24])
    return width, height


def test_a_picture_for_each_bench_and_unit(tmp_path: Path) -> None:
    rows = [
        row("mailboxes/4k-1", "messages/s", "restante", "postfix mysql:"),
        row("mailboxes/4k-50", "messages/s", "restante", "postfix mysql:", "exim"),
        row("mailboxes/start", "s", "restante"),
        row("listings/cold", "s", "restante", "dovecot"),
    ]
    drawn = draw(rows, tmp_path, "2026-01-01-host")
    assert sorted(path.name for path in drawn) == [
        "2026-01-01-host-listings-s.png",
        "2026-01-01-host-mailboxes-messages-per-s.png",
        "2026-01-01-host-mailboxes-s.png",
    ]
    assert sorted(drawn) == sorted(tmp_path.iterdir())
    sizes = [size_of(path) for path in drawn]
    assert min(width for width, _ in sizes) > 500
    # A picture grows with its bars, so that all can be read.
    assert sizes[0][1] > sizes[1][1]


def test_more_entrants_than_colours_are_drawn(tmp_path: Path) -> None:
    many = [f"entrant {number}" for number in range(12)]
    (picture,) = draw([row("growth/x", "messages/s", *many)], tmp_path, "stem")
    assert size_of(picture)[1] > 300
