"""What is sent decodes to what is stored, however it is split; TOP cuts where RFC 1939 says."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from restante.protocol.pop3.message import TopCut, WireEncoder, whole
from restante.store import files

# Mostly the octets that matter: line ends, dots, and few others.
contents = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b".", b"a", b"\xff", b"\n.\n"])).map(
    b"".join
)
cuts = st.lists(st.integers(0, 60), max_size=6)


def _pieces(content: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(place, len(content)) for place in places), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(bounds)]


def _encode(pieces: list[bytes]) -> bytes:
    encoder = WireEncoder()
    return b"".join(encoder.feed(piece) for piece in pieces) + encoder.finish()


def _decode(wire: bytes) -> bytes:
    """The content as a client takes it: up to the first lone dot, dots unstuffed."""
    lines = []
    for line in wire.split(b"\r\n"):
        if line == b".":
            break
        lines.append(line.removeprefix(b".") + b"\n")
    return b"".join(lines)


def _canonical(content: bytes) -> bytes:
    """LF line ends, and one at the end."""
    content = content.replace(b"\r\n", b"\n")
    return content if content.endswith(b"\n") or not content else content + b"\n"


@settings(deadline=None)
@given(contents, cuts)
def test_decodes_to_what_is_stored(content: bytes, places: list[int]) -> None:
    wire = _encode(_pieces(content, places))
    assert wire.endswith(b".\r\n")
    assert _decode(wire) == _canonical(content)


@given(contents)
def test_the_short_way_sends_the_same(content: bytes) -> None:
    assert b"".join(whole(content)) == _encode([content])


@settings(deadline=None)
@given(contents, cuts)
def test_nothing_follows_the_end(content: bytes, places: list[int]) -> None:
    wire = _encode(_pieces(content, places))
    assert re.findall(rb"(?:^|\r\n)\.\r\n", wire) != []
    first_end = 0 if wire.startswith(b".\r\n") else wire.index(b"\r\n.\r\n") + 2
    assert first_end + 3 == len(wire)


@settings(deadline=None)
@given(contents, cuts)
def test_every_line_feed_has_one_carriage_return(content: bytes, places: list[int]) -> None:
    wire = _encode(_pieces(content, places))
    assert re.search(rb"(?<!\r)\n", wire) is None
    assert wire.count(b"\r") - wire.count(b"\n") == _canonical(content).count(b"\r")


def test_the_announced_size_is_what_is_sent(tmp_path: Path) -> None:
    paths, told = [], []
    edge = b"x" * (files.COUNTED - 1)
    for number, content in enumerate(
        [
            *(
                b"",
                b"a",
                b"a\n",
                b"a\r\n",
                b"a\r",
                b"\n\r\n\r",
                b"\r\n" * 200_000,
                b"x\n" * 200_000,
            ),
            *(edge + end for end in (b"", b"\n", b"\r\n", b"\r", b"y\n", b"\r\n\n", b"\rz\n")),
        ]
    ):
        path = tmp_path / str(number)
        path.write_bytes(content)
        paths.append(bytes(path))
        told.append(len(_encode([content]).removesuffix(b".\r\n")))
    assert files.wire_sizes(paths) == told


def test_what_is_no_message_has_no_size_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(b"a\n")
    (tmp_path / "link").symlink_to("mail")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    names = ["fifo", "mail", "link", "gone", "folder", "mail"]
    before = os.listdir("/proc/self/fd")
    told = files.wire_sizes([bytes(tmp_path / name) for name in names])
    assert [type(each) for each in told] == [
        files.NotRegular,
        int,
        OSError,
        FileNotFoundError,
        files.NotRegular,
        int,
    ]
    assert told[1] == told[5] == 3
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_sizes_are_true_although_few_files_can_be_open_at_the_same_time(tmp_path: Path) -> None:
    paths = [bytes(tmp_path / str(number)) for number in range(files.TOGETHER)]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(b"a\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        os.close(held.pop())
        os.close(held.pop())
        assert files.wire_sizes(paths) == [3] * files.TOGETHER
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


@settings(deadline=None)
@given(contents)
def test_the_announced_size_agrees_for_any_content(content: bytes) -> None:
    stuffing = sum(line.startswith(b".") for line in _canonical(content).split(b"\n"))
    wire = _encode([content]).removesuffix(b".\r\n")
    lone = content.count(b"\n") - content.count(b"\r\n")
    end = 2 if content and not content.endswith(b"\n") else 0
    assert len(wire) - stuffing == len(content) + lone + end


def _top(content: bytes, lines: int) -> bytes:
    """TOP done line by line."""
    passed: list[bytes] = []
    rows = re.findall(rb"[^\n]*\n|[^\n]+$", content)
    in_header = True
    for row in rows:
        if not in_header:
            if not lines:
                break
            lines -= 1
        passed.append(row)
        in_header = in_header and row not in (b"\n", b"\r\n")
    return b"".join(passed)


@settings(deadline=None)
@given(contents, cuts, st.integers(0, 5))
def test_top_passes_the_same_lines_however_split(
    content: bytes, places: list[int], lines: int
) -> None:
    cut = TopCut(lines)
    assert b"".join(cut.feed(piece) for piece in _pieces(content, places)) == _top(content, lines)


@settings(deadline=None)
@given(contents, st.integers(0, 5))
def test_top_is_done_as_soon_as_nothing_more_passes(content: bytes, lines: int) -> None:
    cut = TopCut(lines)
    whole = _top(content, lines)
    for place in range(len(content)):
        cut.feed(content[place : place + 1])
        if cut.done:
            assert place + 1 == len(whole)
            return
    assert whole == content
