"""A message as an mbox holds it (mbox(5), the form called mboxrd, which loses nothing).

What is written of a delivery is always the same, octet for octet, however often it is
tried: so a retry can tell what an earlier attempt left in the file.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from restante.address import ReversePath
from restante.envelope import (
    CHUNK,
    Content,
    Envelope,
    delivered_to_field,
    return_path_field,
)

FROM = b"From "
"""How the first line of every message in an mbox begins."""
BLANK_LINE = b"\n\n"
"""What ends a message, and what stands before the next."""

_TO_QUOTE = re.compile(rb"^(?=>*From )", re.MULTILINE)
_BEGUN = re.compile(rb"(>*)((?:F(?:r(?:o(?:m)?)?)?)?)")
"""The end of a piece that may be the beginning of a line to quote."""
_NOT_IN_FROM_LINE = re.compile(r"[\s\x00-\x1f\x7f]")


def from_line(reverse_path: ReversePath, received_at: float) -> bytes:
    """The line that begins a message, its line end included (UFLINE in qmail-command(8)).

    The date is that of acceptance, in UTC.
    """
    sender = _NOT_IN_FROM_LINE.sub("-", str(reverse_path)) or "MAILER-DAEMON"
    date = time.asctime(time.gmtime(received_at))
    return f"From {sender} {date}\n".encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Letter:
    """One delivery as it is written into an mbox."""

    envelope: Envelope
    content: Content
    delivered_to: tuple[str, ...]

    @property
    def from_line(self) -> bytes:
        """Its first line."""
        return from_line(self.envelope.reverse_path, self.envelope.received_at)

    @property
    def key(self) -> bytes:
        """How it begins, and no other delivery: the trace fields name the message."""
        with contextlib.closing(self.content.chunks()) as chunks:
            first = next(chunks) or next(chunks, b"")
        return b"".join((self.from_line, *self._fields(), *quoted([first])))

    def pieces(self) -> Iterator[bytes]:
        """All of it, in pieces of a bounded size; raises OSError if the body cannot be read."""
        yield self.from_line
        last = b""
        for piece in quoted(self._fields_and_content()):
            yield piece
            last = piece or last
        yield b"\n" if last.endswith(b"\n") else BLANK_LINE

    def _fields(self) -> Iterator[bytes]:
        yield return_path_field(self.envelope.reverse_path)
        yield from map(delivered_to_field, self.delivered_to)

    def _fields_and_content(self) -> Iterator[bytes]:
        yield from self._fields()
        for chunk in self.content.chunks():
            for start in range(0, len(chunk), CHUNK):
                yield chunk[start : start + CHUNK]


def quoted(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text in ``pieces`` with ``>`` before every line that begins with ``>*From ``.

    At most four octets are held back from one piece to the next.
    """
    held = b""
    may_begin = True
    """All of the present line that was given out is ``>``, or nothing."""
    for piece in pieces:
        text = held + piece
        newline = text.rfind(b"\n")
        if newline < 0 and not may_begin:
            yield text
            continue
        start = 0 if may_begin else text.index(b"\n") + 1
        begun = _BEGUN.fullmatch(text, newline + 1)
        may_begin = begun is not None
        held = begun[2] if begun else b""
        yield text[:start] + _TO_QUOTE.sub(b">", text[start : len(text) - len(held)])
    yield held
