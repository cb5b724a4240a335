"""A message as it comes from a program, made into lines that end in LF, within limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from restante.drop.site import Site
from restante.sendmail import Refusal

BLOCK = 256 * 1024
"""Octets that are read at a time."""

_CRLF = re.compile(rb"\r+\n")
_MBOX_LINES = re.compile(rb"(?:>?From [^\n]*\n)+")
_END_OF_HEADER = b"\n\n"


class Source:
    """Whole lines out of ``blocks``, which are cut anywhere.

    CRLF becomes LF; a CR alone, as progress bars print it, becomes a space in a header, where a
    line end could smuggle a field in, and a line end in a body. The last line ends in LF too.
    """

    def __init__(self, blocks: Iterator[bytes], site: Site, *, ends_with_dot: bool) -> None:
        self._lines = _lines(blocks, site.max_text_line)
        if ends_with_dot:
            self._lines = _up_to_dot(self._lines)
        self._site = site

    def start(self) -> bytes:
        """Whole lines, among them all of the header, without mbox's own lines; Refusal if too long.

        A header that nothing ends may come with more lines behind it.
        """
        start = bytearray()
        for block in self._lines:
            start += block
            if start.startswith(b"\n") or _END_OF_HEADER in start:
                break
            if len(start) > self._site.max_header:
                break
        mbox = _MBOX_LINES.match(start)
        return bytes(start[mbox.end() if mbox else 0 :])

    def rest(self) -> Iterator[bytes]:
        """The lines behind ``start``; raises Refusal."""
        return self._lines


def header_text(octets: bytes) -> bytes:
    """``octets`` in which no CR is left."""
    return octets.replace(b"\r", b" ")


def body_text(octets: bytes) -> bytes:
    """``octets`` in which every CR is a line end."""
    return octets.replace(b"\r", b"\n")


def standard_input() -> Iterator[bytes]:
    """Blocks of standard input up to its end; raises Refusal (EX_IOERR)."""
    while True:
        try:
            block = os.read(0, BLOCK)
        except OSError as error:
            raise Refusal(os.EX_IOERR, f"standard input cannot be read: {error.strerror}") from None
        if not block:
            return
        yield block


def _lines(blocks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """Blocks that begin and end with a line; raises Refusal for a line that is far too long.

    ``longest`` bounds the memory; whoever sends the message on has the exact limit.
    """
    pending = b""
    for block in blocks:
        pending += block
        whole = pending.rfind(b"\n") + 1
        if len(pending) - whole > longest:
            raise Refusal(os.EX_DATAERR, f"a line is longer than {longest} octets")
        if whole:
            yield _with_lf(pending[:whole])
            pending = pending[whole:]
    if pending:
        yield _with_lf(pending + b"\n")


def _with_lf(lines: bytes) -> bytes:
    return _CRLF.sub(b"\n", lines) if b"\r" in lines else lines


def _up_to_dot(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        if block.startswith(b".\n"):
            return
        end = block.find(b"\n.\n")
        if end >= 0:
            yield block[: end + 1]
            return
        yield block
