"""What programs of this host leave: sendmail, qmail-queue, checkpassword, and the files between."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import cast
from unittest.mock import patch

from restante.checkpassword import Ending, program
from restante.checkpassword.options import parse as parse_checkpassword
from restante.checkpassword.wire import MAX_CREDENTIALS
from restante.drop import DropPaths
from restante.drop.record import (
    HEAD_SIZE,
    BadRecord,
    NewerRecord,
    Recipient,
    Record,
    decode,
    decode_head,
    encode,
    encode_head,
)
from restante.drop.site import Site
from restante.pickup.letter import Letter, _envelope, _targets
from restante.protocol.smtp.dsn import MAX_ENVID, encode_xtext
from restante.protocol.smtp.events import Closed, Wait
from restante.sendmail import Refusal
from restante.sendmail import qmail_queue as program_of_qmail
from restante.sendmail.message import Home, leave, send
from restante.sendmail.options import parse
from restante.sendmail.qmail_queue import _Failed, _message, _records
from restante.sendmail.smtp import _Session
from restante.spool import Spool
from tests.guided.scratch import scratch
from tests.guided.target import Choices, Target, cut, text_of

MAX_HEADER = 400
SITE = Site(
    "mx.example.com", "mx.example.com", "example.com", "plus.example", 2000, MAX_HEADER, 300, 5, ""
)
ENVIRON = {"USER": "ann", "NAME": "Ann"}
SPOOLED = re.compile(r"m[0-9a-f]{32}")


def sendmail(data: bytes) -> None:
    """What sendmail takes from a program, pick-up takes from sendmail; else it is refused."""
    arguments, _, message = data.partition(b"\0")
    size = Choices(message).octet() % 40
    words = [text_of(word) for word in arguments.split(b"\n")]
    try:
        options = parse(["sendmail", *words])
        send(options, ENVIRON, cut(message[1:], size), _home())
    except Refusal as refusal:
        assert refusal.status in (os.EX_USAGE, os.EX_DATAERR, os.EX_CONFIG), refusal
        return
    finally:
        dropped = _dropped()
    (octets,) = dropped
    _pick_up(octets)


def qmail_queue(data: bytes) -> None:
    """An envelope of qmail-queue: pick-up takes what it makes of one that it takes."""
    try:
        records = _records(data.split(b"\0"), _home())
    except _Failed as failed:
        assert 11 <= failed.code <= 99
        return
    for record in records:
        assert decode(encode(record)) == record
        _letter(record)


def qmail_queue_message(data: bytes) -> None:
    """A message of qmail-queue: pick-up takes what it makes of one that it takes."""
    size, message = Choices(data).octet() % 40, data[1:]
    try:
        with patch.object(program_of_qmail, "standard_input", lambda: cut(message, size)):
            leave(_home(), [Record("", (Recipient("ann"),))], lambda: _message(_home()))
    except Refusal as refusal:
        assert refusal.status == os.EX_DATAERR, refusal
        return
    finally:
        dropped = _dropped()
    _pick_up(*dropped)


def sendmail_bs(data: bytes) -> None:
    """-bs: what it answers with 250, pick-up takes."""
    session = _Quiet(ENVIRON, _home())
    for piece in cut(data, 50):
        session.core.receive(piece)
        while not isinstance(event := session.core.next_event(), Closed):
            if event is Wait.NEED_DATA:
                break
            if not isinstance(event, Wait):
                session.handle(event)
            session.core.outgoing()
    for octets in _dropped():
        _pick_up(octets)


class _Quiet(_Session):
    """With nobody to hear it."""

    def say(self, octets: bytes) -> None:
        """Nothing."""


def _home() -> Home:
    root = scratch("instance")
    (root / "drop" / "incoming").mkdir(parents=True, exist_ok=True)
    return Home(DropPaths.of(str(root)), SITE)


def _dropped() -> list[bytes]:
    """All files, which are removed."""
    found = []
    with os.scandir(_home().paths.incoming) as entries:
        for each in entries:
            with open(each.path, "rb") as file:
                found.append(file.read())
            os.unlink(each.path)
            assert SPOOLED.fullmatch(each.name), "an unfinished file is left"
    return found


def _pick_up(octets: bytes) -> Letter:
    """As ``read_letter`` does it."""
    head = decode_head(octets[:HEAD_SIZE])
    assert head.file_size == len(octets)
    content = octets[HEAD_SIZE + head.envelope :]
    assert b"\r" not in content
    assert not content or content.endswith(b"\n")
    assert head.content <= SITE.databytes
    spool = Spool("/nonexistent", 1 << 20, MAX_HEADER)
    spool.take(content, content.count(b"\n"))
    letter = _letter(decode(octets[HEAD_SIZE : HEAD_SIZE + head.envelope]))
    assert not spool.header_too_large
    assert spool.finish(b"").facts.received <= SITE.max_received
    return letter


def _letter(record: Record) -> Letter:
    envelope = _envelope(record, "id", 1_700_000_000.0, eight_bit=False)
    content = Spool("/nonexistent", 1, 1).finish(b"")
    return Letter(envelope, content, _targets(record, envelope, lambda address: address))


_SMTPUTF8 = re.compile(rb"\0U[^\0]+\0")
"""Said with any value, of which one is written."""


def drop_record(data: bytes) -> None:
    """A dropped file is the message that it means, or BadRecord; it is written as it was read."""
    with contextlib.suppress(BadRecord, NewerRecord):
        assert encode_head(decode_head(data)) == data
    try:
        record = decode(data)
    except BadRecord:
        return
    assert record.recipients
    assert encode(record) == _SMTPUTF8.sub(b"\0U1\0", data, count=1)
    with contextlib.suppress(BadRecord):
        letter = _letter(record)
        assert len(encode_xtext(letter.envelope.envid)) <= MAX_ENVID
        assert len(letter.targets) == len(record.recipients)


def drop_record_out(data: bytes) -> None:
    """What is written into a drop record is read from it."""
    parts = [part.decode("utf-8", "replace") for part in data.split(b"\0")]
    threes = cast(
        "Iterator[tuple[str, str, str]]", zip(*[iter([*parts[1:], "", ""])] * 3, strict=False)
    )
    recipients = tuple(Recipient(*three) for three in threes)
    if recipients:
        record = Record(
            parts[0], recipients, parts[-1], smtputf8=bool(parts[-1]), no_addresses=bool(parts[0])
        )
        assert decode(encode(record)) == record


def checkpassword_input(data: bytes) -> None:
    """Descriptor 3 and the command line: a login and a password, or an end with a status."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with patch.object(program, "DESCRIPTOR", reading):
        try:
            login, password = program.read_credentials()
        except Ending as ending:
            assert ending.status in (1, 2, 111)
            if ending.status == 1:
                assert len(data) > MAX_CREDENTIALS
            os.close(reading) if _is_open(reading) else None
        else:
            assert data.startswith(f"{login}\0{password}\0".encode("utf-8", "surrogateescape"))
    with contextlib.suppress(Ending):
        words = text_of(data.replace(b"\0", b"")).split("\n")
        assert parse_checkpassword(["checkpassword", *words], {}).program


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


MESSAGE = b"From: ann\nTo: Bob <bob>, carl@d.e\nBcc: x@y.z\nSubject: x\n\nbody\r\n.\nmore\n"
RECORDS = (
    b"Sann@example.com\0RFULL\0Venvid\0Tbob@example.net\0NSUCCESS,DELAY\0Orfc822;bob\0Tx\0",
    b'S\0T"a b"@c.d\0NNEVER\0',
    b"Slist-@example.com-@[]\0Tann@example.net\0",
    b"Sann@example.com\0U1\0Tbob@example.net\0",
)
ENVELOPES = (
    b"Fann@example.com\0Tbob@example.net\0Tcarl", b"F\0Ta", b"F#@[]\0Tx@y",
    b"Flist-@example.com-@[]\0Tann@example.net", b"Fann\0Ta b@c.d",
)  # fmt: skip
SMTP = b"EHLO c\r\nMAIL FROM:<ann>\r\nRCPT TO:<bob> NOTIFY=NEVER ORCPT=utf-8;\\x{E9}\r\nDATA\r\n"
WORDS = (
    b"\0", b"\n", b"-t", b"-f", b"-F", b"-N", b"-R", b"-V", b"-i", b"--", b"ann@example.com", b"<>",
    b"To: ", b"Bcc:", b"Received:\n", b"From x\n", b"\n.\n", b"\r", b"\r\n", b"-@[]", b"\xc3\xa9",
    b"\xff", b"S", b"T", b"N", b"O", b"R", b"V", b"U", b"F", b"@", b'"', b"x" * 60, b"y: 1\n" * 10,
)  # fmt: skip

TARGETS = (
    Target(
        sendmail,
        [
            b"-t\0\0" + MESSAGE,
            b"-i\n-fann@example.com\nbob\ncarl@d.e\0\5" + MESSAGE,
            b"-oi\n-F\nA B\n-Nsuccess,delay\n-Rhdrs\n-Vid\n--\nx@y\0\0From x\n\nbody",
            b"-f<>\nx\0\3\n",
        ],
        WORDS,
        longest=700,
    ),
    Target(sendmail_bs, [SMTP + MESSAGE.replace(b"\n", b"\r\n") + b".\r\n"], WORDS, longest=700),
    Target(qmail_queue, ENVELOPES, WORDS, longest=300),
    Target(qmail_queue_message, [b"\5" + MESSAGE, b"\0no field\n\rx"], WORDS, longest=700),
    Target(drop_record, (*RECORDS, b"restante-drop 1 00000012 000000000034\n"), WORDS),
    Target(drop_record_out, RECORDS, WORDS),
    Target(
        checkpassword_input,
        [b"ann\0secret\0Y123\0", b"--dir\n/x\n--\nprog", b"a\0b"],
        (b"\0", b"--control=", b"-C", b"\n", b"\xff", b"x" * 300),
        longest=700,
    ),
)
