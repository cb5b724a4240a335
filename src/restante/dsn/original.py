"""The message that a report is about: what of it is returned, and by what its sender knows it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header

from restante.dsn.hostile import printable
from restante.envelope import Content, Envelope

WHOLE_MESSAGE = 32 * 1024
"""Octets up to which a message is returned whole where its sender did not say."""
WHOLE_IF_ASKED = 1024 * 1024
"""Octets up to which a message is returned whole where its sender said RET=FULL."""
MAX_HEADER = 32 * 1024
"""Octets of a header that are returned."""
MAX_LINE = 998
"""Octets of a line in data that needs no encoding (RFC 2045 §§ 2.7, 2.8)."""
MAX_SUBJECT = 200
"""Characters of a subject that are shown."""

# msg-id without comments, quoted strings and folding inside (RFC 5322 §3.6.4); a field with more
# than 250 characters could not be quoted on a line.
_MESSAGE_ID = re.compile(
    rb"^message-id:(?:[ \t]|\n[ \t])*(<[!-;=?A-~]{1,120}@[!-;=?A-~]{1,120}>)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SUBJECT = re.compile(rb"^subject:((?:[^\n]|\n[ \t]){0,1000})", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Original:
    """As much of a message as its report needs."""

    quoted: bytes
    """The whole message, or the beginning of its header; with LF line ends."""
    is_whole: bool
    message_id: str
    """With its angle brackets; empty if there is none, or none that can be quoted."""
    subject: str
    """Decoded (RFC 2047); empty if there is none."""

    @property
    def media_type(self) -> str:
        """The type of the returned part (RFC 3464 §2, RFC 6522 §4)."""
        return "message/rfc822" if self.is_whole else "text/rfc822-headers"

    @property
    def global_media_type(self) -> str:
        """The same where the header may hold UTF-8 (RFC 6533 §§ 5, 6)."""
        return "message/global" if self.is_whole else "message/global-headers"


def read_original(envelope: Envelope, content: Content, *, failed: bool) -> Original:
    """What is returned of a message; ``failed``: the report tells of a failure.

    Only then RET counts and more than the header may come back (RFC 3461 §4.3). A message that
    would need an encoding does not: none is allowed for it (RFC 2046 §5.2.1), and whoever refused
    it for its NUL or its long lines would refuse the report as well. A body that cannot be read
    does not stop the report.
    """
    bound = {"FULL": WHOLE_IF_ASKED, "HDRS": 0, "": WHOLE_MESSAGE}[envelope.ret] if failed else 0
    quoted = _whole(content) if content.size <= bound else None
    is_whole = quoted is not None
    if quoted is None:
        quoted = _header_of(content)
    header = quoted.partition(b"\n\n")[0]
    found = _MESSAGE_ID.search(header)
    return Original(quoted, is_whole, found[1].decode("ascii") if found else "", _subject(header))


def needs_no_encoding(octets: bytes) -> bool:
    """Whether they are 7bit or 8bit data: without a NUL, in lines of a bounded length."""
    return b"\0" not in octets and all(len(line) <= MAX_LINE for line in octets.split(b"\n"))


def _whole(content: Content) -> bytes | None:
    """None if it cannot be read to its end, or needs an encoding."""
    with contextlib.suppress(OSError):
        octets = content.read()
        if needs_no_encoding(octets):
            return octets
    return None


def _header_of(content: Content) -> bytes:
    """As much of it as is returned and can be read."""
    beginning = b""
    with contextlib.suppress(OSError):
        for chunk in content.chunks():
            beginning += chunk
            if len(beginning) > MAX_HEADER or b"\n\n" in beginning:
                break
    header = b"" if beginning.startswith(b"\n") else beginning.partition(b"\n\n")[0]
    if len(header) > MAX_HEADER:
        header = header[: header.rfind(b"\n", 0, MAX_HEADER)]
    return header.removesuffix(b"\n") + b"\n"


def _subject(header: bytes) -> str:
    found = _SUBJECT.search(header)
    if found is None:
        return ""
    raw = found[1].decode("utf-8", "replace")
    try:
        decoded = "".join(_decoded(*word) for word in decode_header(raw))
    except (HeaderParseError, ValueError):
        decoded = raw
    return " ".join(printable(decoded).split())[:MAX_SUBJECT]


def _decoded(word: bytes | str, charset: str | None) -> str:
    if isinstance(word, str):
        return word
    try:
        return word.decode(charset or "utf-8", "replace")
    except LookupError:
        return word.decode("ascii", "replace")
