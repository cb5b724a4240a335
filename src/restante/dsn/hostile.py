"""Text that others wrote, made fit to be written into a report."""

from __future__ import annotations

import re

from restante.status import Reply

MAX_REPLY_LINE = 240
"""Characters of a line of a reply that are shown: within 998 octets in UTF-8 (RFC 5322 §2.1.1)."""
MAX_REPLY_LINES = 20
"""Lines of a reply that are shown."""

_NOT_ASCII_TEXT = re.compile(r"[^ -~]+")


def printable(text: str) -> str:
    """``text`` as part of one line, whatever is in it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def ascii_text(text: str) -> str:
    """``text`` as part of one line of ASCII."""
    return _NOT_ASCII_TEXT.sub("?", text)


def reply_lines(reply: Reply) -> list[str]:
    """A reply line by line as it goes over the wire (RFC 5321 §4.2), within the bounds above."""
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    lines = reply.text.split("\n")[:MAX_REPLY_LINES]
    said = [printable(enhanced + line)[:MAX_REPLY_LINE].rstrip() for line in lines]
    return [
        f"{reply.code}{'-' if number < len(said) else ' '}{line}"
        for number, line in enumerate(said, start=1)
    ]
