"""Delivery status notifications: the bounce that tells a sender what failed (RFC 3464).

The parts are put together by hand, as octets: the message that failed is
quoted as it came, however malformed it is, and nothing in it can make its
report fail.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from email.utils import formatdate

from restante.address import NULL_REVERSE_PATH, Address, NullReversePath, fold
from restante.config.tree import Queue
from restante.envelope import Content, Envelope, memory_content
from restante.queue import Notice, QueuedMessage, Submission, Target, Undeliverable
from restante.status import Reply

WHOLE_MESSAGE = 32 * 1024
"""A message of no more octets than this is returned whole, of a longer one the header."""
MAX_HEADER = 32 * 1024
"""Octets of a header that are returned."""
MAX_DIAGNOSTIC = 900
"""Characters of a reply in a Diagnostic-Code field, which is one line (RFC 5322 §2.1.1)."""
MAX_REPLY_LINE = 240
"""Characters of a line of a reply that a human being is shown: within 998 octets in UTF-8."""
MAX_REPLY_LINES = 20

_NOT_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_ONE_LINE = re.compile(r"[^ -~]+")


class BounceReporter:
    """Writes the reports of this host, to the sender or about a report to doublebounceto."""

    def __init__(self, settings: Queue, host: str) -> None:
        """``host`` is the name of this host; raises AddressSyntaxError for doublebounceto."""
        self._host = host
        self._author = Address(settings.bouncefrom, settings.bouncehost or host)
        self._second = Address.parse(settings.doublebounceto) if settings.doublebounceto else None

    def report(
        self, message: QueuedMessage, notices: Sequence[Notice], now: float, queue_id: str
    ) -> Submission | Undeliverable:
        """The report under the id ``queue_id``, from the null reverse-path (RFC 5321 §4.5.5).

        A message from the null reverse-path is reported to doublebounceto, unless it
        is for that very address: a report never leads to a third one.
        """
        sender = message.envelope.reverse_path
        if not isinstance(sender, NullReversePath):
            return self._write(message, notices, now, queue_id, sender)
        if self._second is None:
            return Undeliverable("a bounce failed, and queue.doublebounceto is not set")
        if _only_for(message.envelope, self._second):
            return Undeliverable(f"a bounce failed, and so did its report to {self._second}")
        return self._write(message, notices, now, queue_id, self._second)

    def _write(
        self,
        message: QueuedMessage,
        notices: Sequence[Notice],
        now: float,
        queue_id: str,
        to: Address,
    ) -> Submission:
        utf8 = message.envelope.smtputf8 or not to.is_ascii
        quoted, whole = _quoted(message.content)
        parts = (
            _part("text/plain; charset=utf-8", self._text(message, notices).encode("utf-8")),
            _part("message/delivery-status", self._status(message, notices).encode("ascii")),
            _part(_QUOTED_TYPES[utf8, whole], quoted),
        )
        boundary = _boundary(queue_id, parts)
        body = self._header(to, now, queue_id, boundary).encode("utf-8") + b"".join(
            b"\n--%s\n%s" % (boundary, part) for part in parts
        )
        body += b"\n--%s--\n" % boundary
        envelope = Envelope(
            queue_id, NULL_REVERSE_PATH, (to,), now, eight_bit=not body.isascii(), smtputf8=utf8
        )
        return Submission(envelope, memory_content(b"", body), (Target(str(to)),))

    def _header(self, to: Address, now: float, queue_id: str, boundary: bytes) -> str:
        return (
            f"Date: {formatdate(now, localtime=True)}\n"
            f"From: Mail Delivery System {self._author.to_path()}\n"
            f"To: {to.to_path()}\n"
            "Subject: Your message could not be delivered\n"
            f"Message-ID: <{queue_id}.report@{self._host}>\n"
            "Auto-Submitted: auto-replied\n"
            "MIME-Version: 1.0\n"
            "Content-Type: multipart/report; report-type=delivery-status;\n"
            f'\tboundary="{boundary.decode()}"\n'
            "\nThis is a delivery status notification in MIME format (RFC 3464).\n"
        )

    def _text(self, message: QueuedMessage, notices: Sequence[Notice]) -> str:
        """What happened, for a human being."""
        whose = message.envelope.reverse_path.to_path()
        about = "\n".join(_paragraph(notice) for notice in notices)
        return (
            f"This is the mail system at {self._host}.\n\n"
            f"The message from {whose}, accepted here under the id"
            f" {message.envelope.queue_id},\n"
            "could not be delivered as shown below, and will not be tried again.\n"
            f"The message, or its header, is attached.\n\n{about}"
        )

    def _status(self, message: QueuedMessage, notices: Sequence[Notice]) -> str:
        """The fields for the message, then those for each recipient (RFC 3464 §2.1)."""
        arrival = formatdate(message.envelope.received_at, localtime=True)
        head = f"Reporting-MTA: dns; {_one_line(self._host)}\nArrival-Date: {arrival}\n"
        return "\n".join([head, *(_recipient_fields(notice) for notice in notices)])


_QUOTED_TYPES = {
    (False, True): "message/rfc822",
    (False, False): "text/rfc822-headers",
    (True, True): "message/global",
    (True, False): "message/global-headers",
}
"""By whether the header may hold UTF-8 (RFC 6533 §§ 5, 6) and whether the message is whole."""


def _only_for(envelope: Envelope, address: Address) -> bool:
    return {fold(str(recipient)) for recipient in envelope.recipients} == {fold(str(address))}


def _paragraph(notice: Notice) -> str:
    """One failed recipient; neither address nor reply can begin a line of its own."""
    address, origin = notice.recipient.target.address, _origin(notice)
    by_way = f"\n(reached by way of <{_printable(origin)}>)" if origin != address else ""
    lines = f"{_codes(_reply(notice))} {_reply(notice).text}".split("\n")[:MAX_REPLY_LINES]
    said = "".join(f"    {_printable(line)[:MAX_REPLY_LINE]}\n" for line in lines)
    if _reply(notice).is_temporary:
        said = f"    given up, after {notice.recipient.attempts} attempts; the last answer:\n{said}"
    return f"<{_printable(address)}>{by_way}\n{said}"


def _reply(notice: Notice) -> Reply:
    last = notice.recipient.last
    return last.reply if last else Reply(554, "0.0", "given up")


def _codes(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced}".strip()


def _recipient_fields(notice: Notice) -> str:
    """RFC 3464 §2.3; the address the sender wrote is named where an alias led elsewhere."""
    address, origin = notice.recipient.target.address, _origin(notice)
    original = f"Original-Recipient: {_typed(origin)}\n" if origin != address else ""
    diagnostic = _one_line(str(_reply(notice)))[:MAX_DIAGNOSTIC]
    return (
        f"{original}Final-Recipient: {_typed(address)}\n"
        "Action: failed\n"
        f"Status: {_reply(notice).enhanced or '5.0.0'}\n"
        f"Diagnostic-Code: smtp; {diagnostic}\n"
    )


def _origin(notice: Notice) -> str:
    return next(iter(notice.recipient.trail), notice.recipient.target.address)


def _typed(address: str) -> str:
    """The address with its type: ``utf-8`` in its ASCII form if it needs it (RFC 6533 §3)."""
    mailbox = Address.from_stored(address).to_mailbox()
    if mailbox.isascii() and mailbox.isprintable():
        return f"rfc822; {mailbox}"
    return "utf-8; " + _NOT_XTEXT.sub(lambda found: f"\\x{{{ord(found.group()):02X}}}", mailbox)


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _one_line(text: str) -> str:
    return _NOT_ONE_LINE.sub("?", text.replace("\n", " ").replace("\r", " "))


def _part(kind: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    head = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n"
    return head.encode("ascii") + content


def _boundary(queue_id: str, parts: Sequence[bytes]) -> bytes:
    """A boundary that occurs in no part (RFC 2046 §5.1.1)."""
    candidates = (f"={number}={queue_id}".encode() for number in itertools.count())
    return next(b for b in candidates if not any(b in part for part in parts))


def _quoted(content: Content) -> tuple[bytes, bool]:
    """The message, or the beginning of its header; True if it is whole."""
    try:
        if content.size <= WHOLE_MESSAGE:
            return content.read(), True
        return _header_of(content), False
    except OSError:
        return content.trace, False


def _header_of(content: Content) -> bytes:
    beginning = b""
    for chunk in content.chunks():
        beginning += chunk
        if len(beginning) > MAX_HEADER or b"\n\n" in beginning:
            break
    header = b"" if beginning.startswith(b"\n") else beginning.partition(b"\n\n")[0]
    if len(header) > MAX_HEADER:
        header = header[: header.rfind(b"\n", 0, MAX_HEADER)]
    return header + b"\n"
