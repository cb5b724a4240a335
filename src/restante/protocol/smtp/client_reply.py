"""Replies as a client reads them (RFC 5321 §4.2): several lines, bounded, from anybody."""

from __future__ import annotations

import re

from restante.status import Reply

MAX_LINE = 4096
"""Octets in one line of a reply with its line end; RFC 5321 §4.5.3.1.5 allows 512."""
MAX_LINES = 256
"""Lines in one reply; RFC 5321 §4.2.1 names no bound."""
MAX_REPLY = 32 * 1024
"""Octets in one reply with its line ends."""
_MAX_QUOTED = 80
"""Octets that are quoted of what is no reply."""

# Second digits above 5 are not in the ABNF of RFC 5321 §4.2, but in use (571).
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)")


class NotAReply(Exception):
    """The peer sent what cannot be read as a reply; the text says what, fit for a log."""


class ReplyReader:
    """Octets in, replies out; what it holds is one reply and what was fed after it."""

    def __init__(self) -> None:
        self._block = b""
        self._start = 0
        """Where in ``_block`` the unused octets begin."""
        self._searched = 0
        """Where to look for the next line feed: there is none between."""
        self._code = b""
        self._texts: list[bytes] = []
        self._octets = 0

    def feed(self, data: bytes) -> None:
        """Take octets from the peer."""
        self._block += data

    @property
    def is_empty(self) -> bool:
        """Whether every octet fed was part of a reply that has been read."""
        return self._start == len(self._block) and not self._texts

    def next_reply(self) -> Reply | None:
        """The next reply, or None before all of it is there; raises NotAReply.

        A line may end with LF alone. After NotAReply nothing more can be read.
        """
        while (line := self._take_line()) is not None:
            if self._add(line):
                return self._finish()
        return None

    def _take_line(self) -> bytes | None:
        start, newline = self._start, self._block.find(b"\n", self._searched)
        if (newline if newline >= 0 else len(self._block)) - start >= MAX_LINE:
            begun = self._block[start : start + MAX_LINE]
            raise NotAReply(f"a line longer than {MAX_LINE} octets: {_quote(begun)}")
        if newline < 0:
            # What is used goes here, and not with each line: there may be thousands in a block.
            self._block = self._block[start:]
            self._start, self._searched = 0, len(self._block)
            return None
        self._start = self._searched = newline + 1
        return self._block[start : newline + 1]

    def _add(self, line: bytes) -> bool:
        """Add a line to the reply that is read; whether it is the last one."""
        self._octets += len(line)
        if self._octets > MAX_REPLY or len(self._texts) == MAX_LINES:
            raise NotAReply(f"a reply longer than {MAX_REPLY} octets or {MAX_LINES} lines")
        match = _LINE.fullmatch(line.removesuffix(b"\n").removesuffix(b"\r"))
        if match is None:
            raise NotAReply(f"not a reply: {_quote(line)}")
        if self._texts and match[1] != self._code:
            raise NotAReply(f"a reply of {self._code.decode()} that goes on with {_quote(line)}")
        self._code = match[1]
        self._texts.append(match[3] or b"")
        return match[2] != b"-"

    def _finish(self) -> Reply:
        reply = _reply(int(self._code), [_text(octets) for octets in self._texts])
        self._texts = []
        self._octets = 0
        return reply


def _reply(code: int, lines: list[str]) -> Reply:
    """The reply, its enhanced status taken out of the text if it fits the code (RFC 2034 §4)."""
    match = _ENHANCED.match(lines[0])
    if match is None or int(match[1]) != code // 100:
        return Reply(code, "", "\n".join(lines))
    status = f"{match[1]}.{match[2]}"
    texts = [line.removeprefix(status).lstrip() if _has(line, status) else line for line in lines]
    return Reply(code, match[2], "\n".join(texts))


def _has(line: str, status: str) -> bool:
    return line == status or line.startswith(f"{status} ")


def _text(octets: bytes) -> str:
    """The octets as text without control characters: it goes into logs and reports."""
    text = octets.decode("utf-8", "replace").rstrip()
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char == "\t" else "?" for char in text)


def _quote(octets: bytes) -> str:
    text = _text(octets[:_MAX_QUOTED])
    return f"'{text}'" if len(octets) <= _MAX_QUOTED else f"'{text}…'"
