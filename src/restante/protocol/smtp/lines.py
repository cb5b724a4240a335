"""Octets that have been received and not been used, and the lines among them."""

from __future__ import annotations


class Input:
    """A block of octets and how far it is used.

    Of a line that is too long no more is kept than one block.
    """

    __slots__ = ("_max_line", "_skipping", "block", "start")

    def __init__(self, max_line: int) -> None:
        self.block = b""
        self.start = 0
        """Where in ``block`` the unused octets begin."""
        self._max_line = max_line
        self._skipping = False

    def append(self, data: bytes) -> None:
        """Add octets from the peer."""
        self.block = data if len(self.block) == self.start else self.block[self.start :] + data
        self.start = 0

    def clear(self) -> None:
        """Forget all that has not been used."""
        self.block, self.start, self._skipping = b"", 0, False

    def __len__(self) -> int:
        return len(self.block) - self.start

    def peek_line(self) -> bytes:
        """The next line with its line end if it is complete and short enough, else nothing."""
        if self._skipping:
            return b""
        newline = self.block.find(b"\n", self.start, self.start + self._max_line)
        return self.block[self.start : newline + 1] if newline >= 0 else b""

    def take_line(self) -> bytes | None:
        """The next line with its line end: a line feed, preceded by CR or not.

        None where it is not complete, nothing at all where it was too long: it is gone then.
        """
        if not self._skipping:
            start = self.start
            end = self.block.find(b"\n", start, start + self._max_line) + 1
            if end:
                self.start = end
                return self.block[start:end]
            if len(self) < self._max_line:
                return None
        return self._skip_line()

    def take(self, octets: int) -> bytes:
        """As many octets as there are, but no more than ``octets``."""
        taken = self.block[self.start : self.start + octets]
        self.start += len(taken)
        return taken

    def _skip_line(self) -> bytes | None:
        newline = self.block.find(b"\n", self.start)
        self._skipping = newline < 0
        self.start = len(self.block) if self._skipping else newline + 1
        return None if self._skipping else b""
