"""A delivery status notification, read back by Python's own parser."""

from __future__ import annotations

import email
import email.policy
from binascii import a2b_qp
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage, Message

from tests.support.instance import Instance, until

_POLICY = email.policy.default.clone(utf8=True)
LONGEST_LINE = 998
"""Octets (RFC 2045 §§ 2.7, 2.8)."""
STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")


@dataclass(frozen=True, slots=True)
class ReadReport:
    """A report, taken apart."""

    header: EmailMessage
    text: str
    """What people read, with LF line ends."""
    status_type: str
    message: Message
    """The fields about the message."""
    recipients: Sequence[Message]
    """The fields about each recipient."""
    returned_type: str
    returned: bytes
    """The last part's octets, decoded, with LF line ends."""

    @property
    def recipient(self) -> Message:
        """The fields about the only recipient."""
        (only,) = self.recipients
        return only


def read_report(octets: bytes) -> ReadReport:
    """The report in ``octets`` (LF or CRLF); an AssertionError if it is none, or is defective."""
    octets = octets.replace(b"\r\n", b"\n")
    wire = octets.replace(b"\n", b"\r\n")
    read = email.message_from_bytes(wire, policy=_POLICY)
    assert isinstance(read, EmailMessage)
    assert read.get_content_type() == "multipart/report"
    assert read.get_param("report-type") == "delivery-status"
    assert not read.defects
    human, machine, returned = read.iter_parts()
    assert human.get_content_type() == "text/plain"
    assert machine.get_content_type() in STATUS_TYPES
    boundary = str(read.get_boundary()).encode()
    inner = [part.partition(b"\n\n")[2] for part in octets.split(b"\n--" + boundary)[1:4]]
    encodings = [_encoding(part) for part in read.iter_parts()]
    assert _encoding(read) == ("8bit" if "8bit" in encodings else "7bit")
    for encoding, content in zip(encodings, inner, strict=True):
        assert encoding == "8bit" or content.isascii()
        assert b"\0" not in content
        assert max(map(len, content.split(b"\n"))) <= LONGEST_LINE
    if encodings[2] == "quoted-printable":
        assert returned.get_content_type().endswith("-headers")
        inner[2] = a2b_qp(inner[2])
    about, *recipients = (
        email.message_from_bytes(block, policy=_POLICY)
        for block in inner[1].strip(b"\n").split(b"\n\n")
    )
    for block in (about, *recipients):
        assert not block.defects
        assert not block.get_payload()
    text = human.get_content().replace("\r\n", "\n")
    return ReadReport(
        read,
        text,
        machine.get_content_type(),
        about,
        recipients,
        returned.get_content_type(),
        inner[2],
    )


def _encoding(part: Message) -> str:
    return str(part["Content-Transfer-Encoding"])


def take_reports(instance: Instance, mailbox: str) -> list[ReadReport]:
    """The reports in a mailbox, by POP3, when nothing waits any more; the mailbox is emptied."""
    until(lambda: not instance.queued(), "an empty queue")
    session = instance.pop3(mailbox)
    try:
        count, _ = session.stat()
        found = [b"\n".join(session.retr(number)[1]) + b"\n" for number in range(1, count + 1)]
        for number in range(1, count + 1):
            session.dele(number)
    finally:
        session.quit()
    return [read_report(message) for message in found]
