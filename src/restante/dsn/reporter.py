"""Puts a report together and addresses it."""

from __future__ import annotations

import itertools
from binascii import b2a_qp
from collections.abc import Sequence
from email.utils import formatdate

from restante.address import NULL_REVERSE_PATH, Address, NullReversePath, fold
from restante.config.tree import Queue
from restante.dsn.explanation import Explanation, subject
from restante.dsn.fields import StatusFields
from restante.dsn.original import Original, needs_no_encoding, read_original
from restante.envelope import Envelope, Notify, RecipientDsn, memory_content
from restante.labels import in_a_labels, name_in_ascii
from restante.queue import (
    Action,
    Notice,
    QueuedMessage,
    Submission,
    Target,
    Undeliverable,
)

UNREPORTED = RecipientDsn(Notify.NEVER)
"""What a report asks of its own delivery (RFC 3461 §6.1)."""

_PREAMBLE = b"This is a delivery status notification in MIME format (RFC 3464).\n"


class DsnReporter:
    """Writes the reports of this host, to the sender or about a report to doublebounceto."""

    def __init__(self, settings: Queue, host: str) -> None:
        """``host`` is the name of this host; raises AddressSyntaxError for doublebounceto."""
        self._host = host
        self._lifetime = settings.queuelifetime
        self._author = Address(settings.bouncefrom, in_a_labels(fold(settings.bouncehost)) or host)
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
        about, content = message.envelope, message.content
        failed = any(notice.action is Action.FAILED for notice in notices)
        original = read_original(about, content, failed=failed)
        # UTF-8 in the report's own header, and only that, needs SMTPUTF8 on its way: what is
        # beyond ASCII in its parts needs 8BITMIME, which more hosts speak (RFC 6532 §3.7).
        named = name_in_ascii(to.to_mailbox())
        utf8 = not named.isascii()
        fields = StatusFields(self._host, self._lifetime, is_global=utf8)
        text = Explanation(self._host, self._lifetime).write(about, original, notices)
        returned = original.global_media_type if about.smtputf8 else original.media_type
        parts = (
            _part("text/plain; charset=utf-8", "Notification", text.encode()),
            _part(fields.media_type, "Delivery report", fields.write(about, content, notices)),
            _part(returned, "Message" if original.is_whole else "Header", original.quoted),
        )
        boundary = _boundary(queue_id, parts)
        kind = f'multipart/report; report-type=delivery-status;\n\tboundary="{boundary.decode()}"'
        inner = b"".join(b"\n--%s\n%s" % (boundary, part) for part in parts)
        header = self._header(named, subject(about, notices), original, now, queue_id)
        body = header.encode() + _entity(kind, _PREAMBLE + inner + b"\n--%s--\n" % boundary)
        envelope = Envelope(
            queue_id, NULL_REVERSE_PATH, (to,), now, eight_bit=not body.isascii(), smtputf8=utf8
        )
        target = Target(str(to), dsn=UNREPORTED)
        return Submission(envelope, memory_content(b"", body), (target,))

    def _header(self, to: str, about: str, original: Original, now: float, queue_id: str) -> str:
        """A reply to the message where it has a name, so that both are shown together."""
        replied = original.message_id
        thread = f"In-Reply-To: {replied}\nReferences: {replied}\n" if replied else ""
        return (
            f"Date: {formatdate(now, localtime=True)}\n"
            f"From: Mail Delivery System {self._author.to_path()}\n"
            f"To: <{to}>\n"
            f"Subject: {about}\n"
            f"Message-ID: <{queue_id}.report@{self._host}>\n"
            f"{thread}"
            "Auto-Submitted: auto-replied\n"
            "MIME-Version: 1.0\n"
        )


def _only_for(envelope: Envelope, address: Address) -> bool:
    return {fold(str(recipient)) for recipient in envelope.recipients} == {fold(str(address))}


def _part(kind: str, description: str, content: bytes) -> bytes:
    return f"Content-Description: {description}\n".encode("ascii") + _entity(kind, content)


def _entity(kind: str, content: bytes) -> bytes:
    """The content with the fields that tell how to read it.

    A multipart is 8bit where a part is (RFC 2045 §6.4). Only a header may need more than that;
    quoted-printable is what it may have (RFC 6522 §4).
    """
    encoding = "7bit" if content.isascii() else "8bit"
    if not needs_no_encoding(content):
        encoding = "quoted-printable"
        content = b"\n".join(b2a_qp(line, istext=False) for line in content.split(b"\n"))
    head = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n"
    return head.encode("ascii") + content


def _boundary(queue_id: str, parts: Sequence[bytes]) -> bytes:
    """A boundary that occurs in no part (RFC 2046 §5.1.1)."""
    candidates = (f"={number}={queue_id}".encode() for number in itertools.count())
    return next(b for b in candidates if not any(b in part for part in parts))
