"""A stored message on its way to the client: line ends, dot-stuffing, and the cut for TOP.

Everything here works on whole blocks, split anywhere; nothing is done line by line.
"""

from __future__ import annotations

import re

_END_OF_HEADER = re.compile(rb"\n\r?\n")


class WireEncoder:
    """Turns a stored message into a multi-line response (RFC 1939 §3).

    A lone LF becomes CRLF, a CRLF stays what it is, and a line that begins with a dot
    gets another. A message that does not end with a line end gets one.
    """

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The octets for the next block; a CR at its end waits for the block that follows."""
        if self._held:
            data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if not data:
            return b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        wire = data.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        if self._at_line_start and data.startswith(b"."):
            wire = b"." + wire
        self._at_line_start = data.endswith(b"\n")
        return wire

    def finish(self) -> bytes:
        """The octets that end the response."""
        complete = self._at_line_start and not self._held
        return self._held + (b"" if complete else b"\r\n") + b".\r\n"


def whole(data: bytes) -> tuple[bytes, bytes]:
    """A message that is here as a whole, and the end of the response: what a WireEncoder gives."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    wire = data.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
    if data.startswith(b"."):
        wire = b"." + wire
    return wire, b".\r\n" if not data or data.endswith(b"\n") else b"\r\n.\r\n"


class TopCut:
    """Lets the header, the empty line and so many lines of the body pass (RFC 1939 §7, TOP)."""

    __slots__ = ("_in_header", "_line", "_remaining", "done")

    def __init__(self, body_lines: int) -> None:
        self._remaining = body_lines
        self._in_header = True
        self._line = b""
        """The line that the last block left open, as far as it may still become empty."""
        self.done = False
        """Nothing that follows will pass."""

    def feed(self, data: bytes) -> bytes:
        """As much of the block as passes."""
        if self.done:
            return b""
        end = self._header_end(data) if self._in_header else 0
        if end is None:
            return data
        self._in_header = False
        return data[: self._body_end(data, end)]

    def _header_end(self, data: bytes) -> int | None:
        """Where the body begins in this block, or None if the header goes on."""
        opening = self._line + data[:2]
        for empty in (b"\n", b"\r\n"):
            if len(self._line) < len(empty) and opening.startswith(empty):
                return len(empty) - len(self._line)
        found = _END_OF_HEADER.search(data)
        if found is not None:
            return found.end()
        self._keep_open_line(data)
        return None

    def _keep_open_line(self, data: bytes) -> None:
        if data.endswith(b"\n"):
            self._line = b""
        elif data.endswith(b"\n\r") or self._line + data == b"\r":
            self._line = b"\r"
        elif data:
            self._line = b"x"

    def _body_end(self, data: bytes, start: int) -> int:
        lines = data.count(b"\n", start)
        if lines < self._remaining:
            self._remaining -= lines
            return len(data)
        self.done = True
        if not self._remaining:
            return start
        rest = data[start:].split(b"\n", self._remaining)[-1]
        return len(data) - len(rest)


class Transfer:
    """A message being sent: which, counted from 0, how far, and how much of its body."""

    __slots__ = ("begun", "cut", "encoder", "index")

    def __init__(self, index: int, body_lines: int | None) -> None:
        self.index = index
        self.begun = False
        self.encoder = WireEncoder()
        self.cut = None if body_lines is None else TopCut(body_lines)

    def encode(self, data: bytes) -> bytes:
        """A part of the message as it goes to the client."""
        return self.encoder.feed(data if self.cut is None else self.cut.feed(data))

    @property
    def wants_more(self) -> bool:
        """Whether the client is to get more of it."""
        return self.cut is None or not self.cut.done
