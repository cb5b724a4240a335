"""The envelope, the message content it carries, and the trace fields put in front of it."""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Flag, auto
from functools import lru_cache
from typing import BinaryIO, Literal

from restante.address import Address, ReversePath
from restante.labels import name_in_ascii
from restante.records import record

CHUNK = 256 * 1024
"""Octets read from a spooled body at a time."""

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _BASE32 for low in _BASE32]
"""Two digits for each number below 1024."""


def _base32(number: int, pairs: int) -> str:
    """The last digits of ``number``, so many pairs of them."""
    return "".join([_PAIRS[number >> 10 * place & 1023] for place in reversed(range(pairs))])


@lru_cache(maxsize=2)
def _of_a_second(number: int) -> str:
    """Seven digits for what changes once in 2**20 microseconds."""
    return _base32(number, 4)[1:]


def queue_ids(slot: int, clock: Callable[[], int] = time.time_ns) -> Iterator[str]:
    """Ids that no other message bears: microseconds, a counter, the worker's slot, a random mark.

    Ids sort by time. ``slot`` is the number of the worker's queue, 0 to 1023; the mark is drawn
    once. Machines that share Maildirs have the same slots, and may have the same host name.
    """
    whose = _base32(slot, 1) + _base32(secrets.randbits(20), 2)
    for count in itertools.count():
        now = clock() // 1000
        time_of_day = f"{_of_a_second(now >> 20)}{_PAIRS[now >> 10 & 1023]}{_PAIRS[now & 1023]}"
        yield f"{time_of_day}{_PAIRS[count & 1023]}{whose}"


class Notify(Flag):
    """Of what the sender asks to be told (RFC 3461 §4.1). NEVER is the empty set."""

    NEVER = 0
    SUCCESS = auto()
    FAILURE = auto()
    DELAY = auto()


_UNSAID = Notify.FAILURE | Notify.DELAY
"""What counts where the sender does not say."""


@dataclass(frozen=True, slots=True)
class RecipientDsn:
    """What RCPT says of notifications (RFC 3461 §§ 4.1, 4.2)."""

    notify: Notify | None = None
    """None: not said, which means failures, and delays where the host reports them."""
    orcpt: str = ""
    """``type;address`` with the address's xtext decoded (``rfc822;ann@example.com``), or empty."""

    def wants(self, what: Notify) -> bool:
        """Whether the sender is to be told of ``what``, one of the three."""
        return what in self._asked

    def merged(self, other: RecipientDsn) -> RecipientDsn:
        """What counts for a recipient who is named twice and gets one copy.

        The sender is told of all that either asks for, under the first original recipient.
        RFC 3461 does not say; nothing that was asked for is kept back.
        """
        notify = None if self.notify is other.notify is None else self._asked | other._asked
        return RecipientDsn(notify, self.orcpt or other.orcpt)

    @property
    def _asked(self) -> Notify:
        return _UNSAID if self.notify is None else self.notify


NO_DSN = RecipientDsn()


@record
class Envelope:
    """What SMTP says about a message, apart from the message (RFC 5321 §2.3.1)."""

    queue_id: str
    """Names the message in every log line, file name and report."""
    reverse_path: ReversePath
    recipients: tuple[Address, ...]
    """The forward-paths as they were accepted, before routing."""
    received_at: float
    """When the message was accepted, in seconds since the epoch."""
    eight_bit: bool = False
    """BODY=8BITMIME was given (RFC 6152)."""
    smtputf8: bool = False
    """SMTPUTF8 was given (RFC 6531)."""
    ret: Literal["", "FULL", "HDRS"] = ""
    """How much of the message a failure report returns (RFC 3461 §4.3); empty: not said."""
    envid: str = ""
    """The sender's own name for this transaction, xtext decoded (RFC 3461 §4.4)."""
    by_list: bool = False
    """The reverse-path is the owner's of a list, by which this copy came: it is another copy."""


@record
class HeaderFacts:
    """What delivery must know of a message's header, gathered once while it is received."""

    received: int = 0
    """How many Received fields it bears (RFC 5321 §6.3)."""
    delivered_to: frozenset[str] = frozenset()
    """The folded values of its Delivered-To fields."""


@record
class Content:
    """A message with LF line ends: trace fields of this host, then the body as received.

    The body lies in memory, or in a file when it is large: ``body`` is then the file's path, or
    a descriptor of it where whoever has the content could not open the file by its name.
    A content never changes.
    """

    trace: bytes
    body: bytes | str | int
    body_size: int
    """Octets of ``body``."""
    body_lines: int
    """Line feeds in ``body``: with CRLF line ends it has so many octets more."""
    facts: HeaderFacts = field(default_factory=HeaderFacts)

    @property
    def size(self) -> int:
        """Octets with LF line ends, trace fields included."""
        return len(self.trace) + self.body_size

    @property
    def lines(self) -> int:
        """Line feeds, trace fields included."""
        return self.trace.count(b"\n") + self.body_lines

    def chunks(self) -> Generator[bytes, None, None]:
        """The whole message in pieces; raises OSError as ``body_chunks`` does."""
        yield self.trace
        yield from self.body_chunks()

    def body_chunks(self) -> Generator[bytes, None, None]:
        """The body in pieces; raises OSError when a spooled one cannot be read to its end."""
        if isinstance(self.body, bytes):
            yield self.body
        elif isinstance(self.body, int):
            yield from self._complete(_all_of(self.body))
        else:
            with open(self.body, "rb") as spool:
                yield from self._complete(iter_file(spool))

    def _complete(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """A file that has become short, on a file system that was damaged, is not the message."""
        missing = self.body_size
        for piece in pieces:
            missing -= len(piece)
            yield piece
        if missing:
            raise OSError(errno.EIO, f"a spooled body is {missing} octets shorter than it was")

    def read(self) -> bytes:
        """The whole message in memory; for small ones, tests and ``queue show --body``."""
        return b"".join(self.chunks())


def iter_file(source: BinaryIO) -> Iterator[bytes]:
    """The rest of ``source`` in pieces of CHUNK octets."""
    while chunk := source.read(CHUNK):
        yield chunk


def _all_of(descriptor: int) -> Iterator[bytes]:
    """All of an open file in pieces of CHUNK octets; its position does not matter nor change."""
    position = 0
    while chunk := os.pread(descriptor, CHUNK, position):
        yield chunk
        position += len(chunk)


def line_feeds(data: bytes) -> int:
    """How many there are: of one octet, ``bytes.count`` is four times slower than its removal."""
    return len(data) - len(data.replace(b"\n", b""))


def memory_content(trace: bytes, body: bytes, facts: HeaderFacts | None = None) -> Content:
    """A content whose body lies in memory."""
    return Content(trace, body, len(body), line_feeds(body), facts or HeaderFacts())


@record
class Origin:
    """Where a message came from, for its Received field (RFC 5321 §4.4)."""

    helo: str
    """The name the client gave; empty if it gave none."""
    address: str
    """The client's IP address, as text; empty for mail made here and where nobody is to know it."""
    protocol: str
    """SMTP, ESMTP, UTF8SMTP, ... as registered for ``with`` (RFC 3848, RFC 6531 §4.3)."""
    tls: str = ""
    """TLS version and cipher, as in ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty: clear text."""


# specials of RFC 5322 §3.2.3: a client that calls itself "a;b(" would have the rest of the field,
# which is not its own to write, read as a date or as a comment.
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,"]')
_LITERAL = re.compile(r"\[[0-9A-Za-z.:-]+\]")


def received_field(
    origin: Origin, host: str, queue_id: str, recipients: tuple[Address, ...], at: float
) -> bytes:
    """A Received field in the form of RFC 5321 §4.4, with LF line ends.

    The ``for`` clause is written for a single recipient only, so that no
    recipient learns of another (RFC 5321 §7.2), and where it is ASCII.
    """
    helo = origin.helo if _LITERAL.fullmatch(origin.helo) else _SPECIAL.sub("?", origin.helo)
    literal = f"IPv6:{origin.address}" if ":" in origin.address else origin.address
    came_from = (
        f"from {helo or 'unknown'} ([{literal}])" if literal else f"from {helo or 'localhost'}"
    )
    tls = f"\n\t({origin.tls})" if origin.tls else ""
    text = f"Received: {came_from}\n\tby {host} with {origin.protocol}{tls} id {queue_id}"
    return (text + _end_of_received(recipients, at)).encode()


def invocation_field(
    uid: int, host: str, queue_id: str, recipients: tuple[Address, ...], at: float
) -> bytes:
    """The Received field of a message that a program of user ``uid`` left here."""
    text = f"Received: by {host} (invoked by uid {uid})\n\tid {queue_id}"
    return (text + _end_of_received(recipients, at)).encode()


def _end_of_received(recipients: tuple[Address, ...], at: float) -> str:
    return f"{_for(recipients)};\n\t{_date(int(at))}\n"


def _for(recipients: tuple[Address, ...]) -> str:
    if len(recipients) != 1:
        return ""
    # A message that is ASCII but for this would be returned where SMTPUTF8 is not known.
    name = name_in_ascii(recipients[0].to_mailbox())
    return f"\n\tfor <{name}>" if name.isascii() else ""


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, localtime=True)


_CAME_FROM = re.compile(rb"Received: from ([!-~]+) \(\[(?:IPv6:)?([!-Z^-~]+)\]\)")


def received_from(trace: bytes) -> str:
    """The client that a field of ``received_field`` names, ``client.example (192.0.2.1)``.

    Empty for mail made here, and where the client is kept out of the field.
    """
    found = _CAME_FROM.match(trace)
    return f"{found[1].decode()} ({found[2].decode()})" if found else ""


def return_path_field(reverse_path: ReversePath) -> bytes:
    """The Return-Path field that final delivery writes (RFC 5321 §4.4)."""
    return f"Return-Path: {reverse_path.to_path()}\n".encode()


def delivered_to_field(address: str) -> bytes:
    """The Delivered-To field by which loops are found."""
    return f"Delivered-To: {address}\n".encode()
