"""The content of a message on the wire: DATA (RFC 5321 §4.5.2) and BDAT (RFC 3030).

Whole blocks are searched and replaced, never single lines, and no more than four
octets are held back between two blocks.
"""

from __future__ import annotations

from enum import IntEnum

END_OF_DATA = b"\r\n.\r\n"
"""What alone ends a content, whatever else looks like it (RFC 5321 §4.1.1.4)."""
_EMPTY_DATA = b".\r\n"
_DOT = b"\r\n."


class Fault(IntEnum):
    """A rule that a content broke; of several the first is told."""

    BARE_LINE_END = 1
    """A <CR> without <LF> or the reverse (RFC 5321 §2.3.8)."""
    TOO_BIG = 2
    LONG_LINE = 3


class ContentText:
    """The content so far: turned to LF line ends, measured and judged.

    ``max_octets`` counts CRLF line ends and no stuffed dots (RFC 1870 §3), 0 is no
    limit; ``max_line`` counts a line with its CRLF (RFC 5321 §4.5.3.1.6).
    All of a content is judged even after a fault, so that the verdict
    does not hang on how the content was cut into blocks.
    """

    def __init__(self, max_octets: int, max_line: int) -> None:
        self._max_octets = max_octets
        self._max_line = max_line - 1  # measured with LF
        self._octets = 0
        self._open_line = 0
        self.fault: Fault | None = None
        """The gravest rule broken so far."""
        self.lines = 0
        """Line ends in the text that was given last."""

    def take(self, wire: bytes, *, stuffed: bool) -> bytes:
        """``wire`` with LF line ends, or nothing once a rule is broken.

        ``wire`` ends with no half of a line end. ``stuffed``: lines in it, the first
        aside, may begin with a stuffed dot.
        """
        # With a CR before each LF the text is the wire again, unless a CR or LF stood alone there.
        text = wire.replace(b"\r", b"")
        if text.replace(b"\n", b"\r\n") != wire:
            self._blame(Fault.BARE_LINE_END)
            return b""
        self.lines = len(wire) - len(text)
        if stuffed:
            text = b"\n".join(text.split(b"\n."))
        self._octets += len(text) + self.lines
        if self._max_octets and self._octets > self._max_octets:
            self._blame(Fault.TOO_BIG)
        self._measure_lines(text)
        return text if self.fault is None else b""

    def end_line(self) -> bytes:
        """The line end that the last line lacks; the client sent none, so it has no size."""
        if not self._open_line:
            return b""
        self._measure_lines(b"\n")
        self.lines = 1
        return b"\n" if self.fault is None else b""

    def _measure_lines(self, text: bytes) -> None:
        """Leap from line end to line end, each as far as a line may reach."""
        start = -self._open_line
        while len(text) - start > self._max_line:
            newline = text.rfind(b"\n", max(start, 0), start + self._max_line)
            if newline < 0:
                self._blame(Fault.LONG_LINE)
                break
            start = newline + 1
        newline = text.rfind(b"\n")
        self._open_line = len(text) - newline - 1 if newline >= 0 else self._open_line + len(text)

    def _blame(self, fault: Fault) -> None:
        self.fault = fault if self.fault is None else min(fault, self.fault)


class DataDecoder:
    """The content that follows DATA: dots unstuffed, the end found, line ends made LF."""

    def __init__(self, text: ContentText) -> None:
        self.text = text
        self.done = False
        """Whether the end of the content was met."""
        self._at_start = True

    def feed(self, block: bytes, start: int) -> tuple[bytes, int]:
        """The text that ``block`` gives from ``start`` on, and where its unused octets begin.

        Those are to be fed again with more: at most four while the content has not ended.
        """
        if self._at_start:
            head = block[start : start + len(_EMPTY_DATA)]
            if head == _EMPTY_DATA:
                self.done = True
                return b"", start + len(_EMPTY_DATA)
            if _EMPTY_DATA.startswith(head):
                return b"", start
            self._at_start = False
            start += head.startswith(b".")
        return self._feed(block, start)

    def _feed(self, block: bytes, start: int) -> tuple[bytes, int]:
        # Most blocks hold neither a stuffed dot nor the end: one search tells both.
        dot = block.find(_DOT, start)
        end = block.find(END_OF_DATA, dot) if dot >= 0 else -1
        if end < 0:
            cut = used = len(block) - _held_back(block, start)
        else:
            cut, used = end + len(b"\r\n"), end + len(END_OF_DATA)
            self.done = True
        return self.text.take(block[start:cut], stuffed=dot != end), used


class ChunkDecoder:
    """The content that BDAT chunks carry: line ends made LF, also across chunks."""

    def __init__(self, text: ContentText) -> None:
        self.text = text
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        """The text of the next octets."""
        wire = self._held + octets
        self._held = b"\r" if wire.endswith(b"\r") else b""
        return self.text.take(wire.removesuffix(b"\r"), stuffed=False)

    def finish(self) -> bytes:
        """The text that the end of the content adds: the line end that its last line lacks."""
        self.text.take(self._held, stuffed=False)
        return self.text.end_line()


def _held_back(block: bytes, start: int) -> int:
    """How many octets at the end of ``block`` may begin the end of the content."""
    for length in range(len(END_OF_DATA) - 1, 0, -1):
        if block.endswith(END_OF_DATA[:length], start):
            return length
    return 0
