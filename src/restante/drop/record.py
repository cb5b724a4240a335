"""The form of a dropped message: its sizes, its envelope, and its content with LF line ends.

::

    restante-drop 1 EEEEEEEE CCCCCCCCCCCC\\n      the version, the sizes of envelope and content
    envelope                                     parts, each a letter, its value and a NUL
    content

``S`` is the reverse-path (empty: the null one; with ``-@[]`` behind it one for each recipient, see
``address.sender_for``), ``R`` RET, ``V`` ENVID, ``U`` SMTPUTF8 and ``F`` that nothing is sent (with
any value), ``T`` a recipient, and ``N`` and ``O`` NOTIFY and ORCPT of the recipient before (RFC
3461, RFC 6531). Addresses stand as in SMTP paths, without the angle brackets; text is UTF-8. A file
whose size is not the sum of its sizes is no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

HEAD_SIZE = 38
MAX_ENVELOPE = 4 * 1024 * 1024
"""Octets of an envelope."""
MAX_RECIPIENTS = 10_000
"""Recipients of one message (RFC 5321 §4.5.3.1.8 asks for 100)."""

_NEWER = re.compile(rb"restante-drop (?!1 )[1-9][0-9]* ")
"""How a file of a later version begins, which is HEAD_SIZE octets long at least."""
_HEAD = re.compile(rb"restante-drop 1 ([0-9]{8}) ([0-9]{12})\n")


class BadRecord(ValueError):
    """The octets are no dropped message; the text says why."""


class NewerRecord(ValueError):
    """It is a message, as a later version of Restante writes it; the text says so."""


class Recipient(NamedTuple):
    """Whom the message is for, and of what its sender wants to be told (RFC 3461 §§ 4.1, 4.2)."""

    address: str
    notify: str = ""
    """``NEVER``, or some of SUCCESS, FAILURE and DELAY with commas between; empty: not said."""
    orcpt: str = ""
    """``type;address``, decoded; empty: not said."""


class Record(NamedTuple):
    """An envelope as a program wrote it."""

    sender: str
    """The reverse-path; empty: the null one."""
    recipients: tuple[Recipient, ...]
    ret: str = ""
    """FULL, HDRS, or empty."""
    envid: str = ""
    """Decoded; empty: not said."""
    smtputf8: bool = False
    """It was said of the message: its header may be in UTF-8 though no address here is."""
    no_addresses: bool = False
    """What was given for its recipients are none, and stands in the place of local parts: the
    sender is told."""


class Head(NamedTuple):
    """How long the parts of a file are, in octets."""

    envelope: int
    content: int

    @property
    def file_size(self) -> int:
        """Octets of the whole file."""
        return HEAD_SIZE + self.envelope + self.content


def encode_head(head: Head) -> bytes:
    """The first HEAD_SIZE octets of a file."""
    return b"restante-drop 1 %08d %012d\n" % head


def decode_head(octets: bytes) -> Head:
    """The reverse; raises BadRecord and NewerRecord."""
    match = _HEAD.fullmatch(octets)
    if match is None:
        if _NEWER.match(octets):
            raise NewerRecord("it was written by a newer version of Restante")
        raise BadRecord("it does not begin as a dropped message does")
    head = Head(int(match[1]), int(match[2]))
    if head.envelope > MAX_ENVELOPE:
        raise BadRecord(f"its envelope is larger than {MAX_ENVELOPE} octets")
    return head


def encode(record: Record) -> bytes:
    """The envelope; no value may hold a NUL."""
    parts = ["S" + record.sender]
    parts += [tag + value for tag, value in (("R", record.ret), ("V", record.envid)) if value]
    parts += ["U1"] if record.smtputf8 else []
    parts += ["F1"] if record.no_addresses else []
    for recipient in record.recipients:
        parts.append("T" + recipient.address)
        parts += ["N" + recipient.notify] if recipient.notify else []
        parts += ["O" + recipient.orcpt] if recipient.orcpt else []
    return "".join(part + "\0" for part in parts).encode()


def decode(octets: bytes) -> Record:
    """The reverse; raises BadRecord. What the values mean is not looked at."""
    parts = _Parts(octets)
    sender = parts.take("S")
    ret = parts.take_any("R")
    envid = parts.take_any("V")
    smtputf8, no_addresses = bool(parts.take_any("U")), bool(parts.take_any("F"))
    record = Record(sender, tuple(_recipients(parts)), ret, envid, smtputf8, no_addresses)
    if not record.recipients:
        raise BadRecord("it is for nobody")
    return record


def _recipients(parts: _Parts) -> Iterator[Recipient]:
    number = 0
    while not parts.at_end:
        number += 1
        if number > MAX_RECIPIENTS:
            raise BadRecord(f"it has more than {MAX_RECIPIENTS} recipients")
        yield Recipient(parts.take("T"), parts.take_any("N"), parts.take_any("O"))


class _Parts:
    def __init__(self, octets: bytes) -> None:
        if not octets.endswith(b"\0"):
            raise BadRecord("its envelope does not end with a NUL")
        try:
            text = octets.decode()
        except UnicodeDecodeError:
            raise BadRecord("its envelope is not UTF-8") from None
        self._parts = text[:-1].split("\0")
        self._position = 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._parts)

    def take(self, tag: str) -> str:
        """The value of the next part, which must bear ``tag``."""
        if self.at_end or not self._parts[self._position].startswith(tag):
            raise BadRecord(f"part {self._position + 1} of its envelope is no {tag}")
        self._position += 1
        return self._parts[self._position - 1][1:]

    def take_any(self, tag: str) -> str:
        """The value of the next part if it bears ``tag``; else an empty one, which none has."""
        if self.at_end or not self._parts[self._position].startswith(tag):
            return ""
        if value := self.take(tag):
            return value
        raise BadRecord(f"part {self._position} of its envelope is an empty {tag}")
