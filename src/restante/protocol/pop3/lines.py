"""The client's octets, taken line by line in bounded memory."""

from __future__ import annotations

from enum import Enum, auto


class TooLong(Enum):
    """A line was over its limit; it is gone."""

    LINE = auto()


class LineBuffer:
    """Octets that came in and the lines in them.

    Of a line that is too long no more is kept than the limit. A line ends with LF; a CR
    before it belongs to the end (RFC 1939 §3 wants both; a bare LF does no harm here).
    """

    __slots__ = ("_discarding", "_start", "octets")

    def __init__(self) -> None:
        self.octets = b""
        """What came in and may be needed; empty if no part of a line is there."""
        self._start = 0
        """Where in these the next line begins."""
        self._discarding = False

    def feed(self, data: bytes) -> None:
        """Add what came in."""
        self.octets = self.octets[self._start :] + data if self.octets else data
        self._start = 0

    def clear(self) -> None:
        """Forget all that came in."""
        self.octets, self._start, self._discarding = b"", 0, False

    def starts_with(self, verb: bytes) -> bool:
        """Whether the next line begins with ``verb``, which is upper case, in any case."""
        start = self._start
        return not self._discarding and self.octets[start : start + len(verb)].upper() == verb

    def take(self, limit: int) -> bytes | TooLong | None:
        """The next line without its end, None if it is not there yet.

        ``limit`` is in octets, CRLF included. What is too long is told once it ended.
        """
        start = self._start
        end = self.octets.find(b"\n", start)
        if end < 0:
            self._wait(limit)
            return None
        line = self.octets[start:end]
        self._start = end + 1
        if self._start == len(self.octets):
            self.octets, self._start = b"", 0  # nothing is held while the client is silent
        if self._discarding or end + 1 - start > limit:
            self._discarding = False
            return TooLong.LINE
        return line.removesuffix(b"\r")

    def _wait(self, limit: int) -> None:
        self.octets, self._start = self.octets[self._start :], 0
        if self._discarding or len(self.octets) >= limit:
            self.octets, self._discarding = b"", True
