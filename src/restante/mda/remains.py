"""What an earlier attempt to write a letter into an mbox has left there.

A letter is known by its beginning, which no other delivery shares. Nothing but its own
octets is ever given up: where other mail has come after an attempt that was cut off, the
fragment stays, and the letter is written once more.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from restante.envelope import CHUNK
from restante.mda.mboxrd import BLANK_LINE, FROM, Letter

LONGEST_HEADER = 2 * 1024 * 1024
"""Octets of a header, with what readers have added, that are looked at."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What was found."""

    is_whole: bool = False
    """The letter is there, complete."""
    torn_at: int | None = None
    """A part of it begins here and reaches to the end of the file, with nothing else behind it."""


class _Likeness(Enum):
    """How a file goes on, held against what was written."""

    WHOLE = "whole"
    CUT = "cut"
    """It ends too early, or a power cut has left holes (octets 0), and nothing else is in it."""
    OTHER = "other"


def look_for(fd: int, size: int, letter: Letter) -> Remains:
    """What the file, ``size`` octets long and locked, holds of the letter; raises OSError."""
    for offset in _beginnings(fd, size, letter.from_line):
        likeness = _compare(fd, size, offset, letter.pieces())
        if likeness is _Likeness.WHOLE or _is_whole_inside(fd, size, offset, letter):
            return Remains(is_whole=True)
        if likeness is _Likeness.CUT:
            return Remains(torn_at=offset)
    return Remains()


def _beginnings(fd: int, size: int, line: bytes) -> Iterator[int]:
    """Where the letter may begin: where its first line stands, or at the end a part of that."""
    for offset in itertools.chain(_find(fd, size, 0, line), _tails(fd, size, line)):
        before = os.pread(fd, min(offset, len(BLANK_LINE)), max(offset - len(BLANK_LINE), 0))
        if not before or before == BLANK_LINE:
            yield offset


def _tails(fd: int, size: int, line: bytes) -> Iterator[int]:
    """Where the file ends in the beginning of the line: ``From`` at the least."""
    first = max(size - len(line) + 1, 0)
    tail = os.pread(fd, len(line), first)
    at = tail.rfind(FROM)
    if at >= 0 and line.startswith(tail[at:]):
        yield first + at


def _find(fd: int, size: int, start: int, wanted: bytes) -> Iterator[int]:
    """Every offset from ``start`` on at which ``wanted`` stands."""
    while start < size:
        piece = os.pread(fd, CHUNK + len(wanted) - 1, start)
        at = piece.find(wanted)
        while at >= 0:
            yield start + at
            at = piece.find(wanted, at + 1)
        start += CHUNK


def _compare(fd: int, size: int, offset: int, pieces: Iterable[bytes]) -> _Likeness:
    """How the file goes on at ``offset``, held against ``pieces``."""
    complete = True
    for piece in pieces:
        there = os.pread(fd, len(piece), offset)
        if not _is_like(there, piece):
            return _Likeness.OTHER
        offset += len(there)
        complete = complete and there == piece
    if complete:
        return _Likeness.WHOLE
    return _Likeness.CUT if offset == size else _Likeness.OTHER


def _is_like(there: bytes, piece: bytes) -> bool:
    """Whether ``there`` is the beginning of ``piece``, but for octets 0."""
    if piece.startswith(there):
        return True
    return all(octet in (0, meant) for octet, meant in zip(there, piece, strict=False))


def _is_whole_inside(fd: int, size: int, offset: int, letter: Letter) -> bool:
    """Whether the body is there in full, below a header to which a reader has added its marks."""
    key = letter.key
    if os.pread(fd, len(key), offset) != key:
        return False
    end = next(_find(fd, size, offset, BLANK_LINE), size)
    if end - offset > LONGEST_HEADER or FROM in os.pread(fd, end - offset, offset)[1:]:
        return False  # a fragment, to which another program has added a message of its own
    if not any(piece.strip(b"\n") for piece in _after_header(letter.pieces())):
        return False  # a letter without a body: a fragment of it would look the same
    body = _after_header(letter.pieces())
    return _compare(fd, size, end + len(BLANK_LINE), body) is _Likeness.WHOLE


def _after_header(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces without what stands before the first empty line, and that line."""
    header = b""
    for piece in pieces:
        header += piece
        before, blank, after = header.partition(BLANK_LINE)
        if blank:
            yield after
            break
        header = before
    yield from pieces
