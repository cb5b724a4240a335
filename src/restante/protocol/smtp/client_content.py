"""A content on its way out: LF line ends in; CRLF, dot-stuffed or in chunks, out.

Whole blocks are searched and replaced, never single lines. A content that does not end
with a line end gets one.
"""

from __future__ import annotations

MIN_CHUNK = 64 * 1024
"""Octets that are gathered, if there are so many, before a BDAT takes them."""


class _LineEnds:
    """LF to CRLF, over blocks.

    A CR in a content would be bare on the wire, where it must not be (RFC 5321 §2.3.8) and
    where others may take it for a line end: it is left out.
    """

    def __init__(self) -> None:
        self.at_line_start = True

    def feed(self, text: bytes) -> bytes:
        """``text``, without CR, with CRLF line ends."""
        self.at_line_start = text.endswith(b"\n") if text else self.at_line_start
        return text.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """The line end that the last line lacks."""
        return b"" if self.at_line_start else b"\r\n"


def _without_cr(text: bytes) -> bytes:
    return text.replace(b"\r", b"") if b"\r" in text else text


class DataEncoder:
    """The content that follows DATA, dots stuffed (RFC 5321 §4.5.2)."""

    def __init__(self) -> None:
        self._lines = _LineEnds()

    def feed(self, text: bytes) -> bytes:
        """The next block on the wire."""
        text = _without_cr(text)
        dot = b"." if self._lines.at_line_start and text.startswith(b".") else b""
        if b"\n." in text:
            text = text.replace(b"\n.", b"\n..")
        return dot + self._lines.feed(text)

    def finish(self) -> bytes:
        """The end of data."""
        return self._lines.finish() + b".\r\n"


class ChunkEncoder:
    """The content as BDAT commands with their octets (RFC 3030 §2), each of some size."""

    def __init__(self) -> None:
        self._lines = _LineEnds()
        self._gathered: list[bytes] = []
        self._octets = 0

    def feed(self, text: bytes) -> bytes:
        """A BDAT command once enough is gathered, else nothing."""
        ready = self._take() if self._octets >= MIN_CHUNK else b""
        self._gather(self._lines.feed(_without_cr(text)))
        return b"BDAT %d\r\n%b" % (len(ready), ready) if ready else b""

    def finish(self) -> bytes:
        """The last BDAT command."""
        self._gather(self._lines.finish())
        last = self._take()
        return b"BDAT %d LAST\r\n%b" % (len(last), last)

    def _gather(self, wire: bytes) -> None:
        self._gathered.append(wire)
        self._octets += len(wire)

    def _take(self) -> bytes:
        taken = b"".join(self._gathered)
        self._gathered.clear()
        self._octets = 0
        return taken
