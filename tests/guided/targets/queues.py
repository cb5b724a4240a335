"""What is kept of a message that waits, what senders are told of it, and what the log is told."""

from __future__ import annotations

import json
import re
import sqlite3
from functools import cache

from restante.address import NULL_REVERSE_PATH, Address
from restante.config.tree import Queue
from restante.dsn.reporter import DsnReporter
from restante.envelope import Envelope, HeaderFacts, Notify, RecipientDsn, memory_content
from restante.logsetup import as_json, logfmt
from restante.queue import (
    Action,
    LastAnswer,
    Notice,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Submission,
    answers,
)
from restante.queue import (
    Target as Copy,
)
from restante.queue.rows import Arrival, all_recipients, insert_messages, load_message
from restante.queue.schema import TABLES
from restante.status import Peer, Reply
from tests.guided.target import Choices, Target, text_of
from tests.support.report import LONGEST_LINE, read_report

AT = 1_700_000_000.0
SETTINGS = Queue(bouncehost="example.com", doublebounceto="postmaster@example.com")
REPORTER = DsnReporter(SETTINGS, "mx.example.com")


def queue_rows(data: bytes) -> None:
    """A message and its recipients are the same when they come from the queue again."""
    choices = Choices(data)
    sender, recipient = _address(choices), _address(choices)
    if sender is None or recipient is None:
        return
    dsn = RecipientDsn(Notify(choices.octet() % 8), _text(choices.take(20)))
    envelope = Envelope(
        "id", sender, (recipient,), AT, eight_bit=True, smtputf8=True, envid=_text(choices.take(9))
    )
    facts = HeaderFacts(3, frozenset({str(recipient)}))
    content = memory_content(b"Received: x\n", choices.take(30), facts)
    lines = "\n".join(map(str, text_of(choices.rest).split("\n")))
    lines = lines.encode("utf-8", "replace").decode()
    copies = (
        Copy(str(recipient), dsn=dsn),
        Copy(str(recipient), lines, via=(str(recipient),), account="ann", reverse_path=str(sender)),
    )
    connection = _queue()
    connection.execute("BEGIN")
    try:
        arrival = Arrival(Submission(envelope, content, copies), content.read()[12:])
        inserted = insert_messages(connection, [arrival], 1)
        assert load_message(connection, "id", "") == (envelope, content)
        assert inserted[0].recipients == all_recipients(connection, "id")
    finally:
        connection.execute("ROLLBACK")


@cache
def _queue() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    return connection


def _address(choices: Choices) -> Address | None:
    try:
        return Address.parse(choices.take(40).decode("utf-8", "replace"))
    except ValueError:
        return None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def last_answer(data: bytes) -> None:
    """What another host said is kept, as much of it as is."""
    choices = Choices(data)
    peer = Peer(_text(choices.take(20)), "192.0.2.1", text_of(choices.take(20)))
    text = text_of(choices.rest)
    last = LastAnswer(Reply(554, "7.1", text), text, peer, AT, put_off=True)
    column = answers.encode(last)
    column.encode()
    again = answers.decode(column)
    assert again is not None
    assert answers.encode(again) == column
    assert again.is_temporary
    assert len(again.reply.text) <= answers.MAX_REPLY_TEXT


def report(data: bytes) -> None:
    """A report is one, whatever the message, an address and another host's words hold."""
    choices = Choices(data)
    action = choices.one_of(tuple(Action))
    null, utf8, ret = choices.octet() % 8 == 7, choices.octet() & 1, choices.octet() % 3
    address, host = _address(choices), _text(choices.take(30))
    said, body = _text(choices.take(80)), choices.rest.replace(b"\r", b"")
    if address is None:
        return
    if null:
        action = Action.FAILED
    sender = NULL_REVERSE_PATH if null else Address("\xe9" if utf8 else "ann", "example.org")
    envelope = Envelope(
        "id1",
        sender,
        (address,),
        AT,
        smtputf8=bool(utf8),
        ret=("", "FULL", "HDRS")[ret],
        envid="e 1",
    )
    message = QueuedMessage(envelope, memory_content(b"Received: x\n", body), (), again=False)
    code = {Action.FAILED: 550, Action.DELAYED: 450}.get(action, 250)
    last = LastAnswer(Reply(code, "1.1", said), said, Peer(host, "192.0.2.1", said[:20]), AT)
    dsn = RecipientDsn(Notify.FAILURE, f"utf-8;{address!s}" if utf8 else "rfc822;x@y")
    copy = Copy(str(address), dsn=dsn)
    recipient = QueuedRecipient(1, copy, RecipientState.WAITING, 3, AT, AT, last, (str(address),))
    made = REPORTER.report(message, [Notice(recipient, action)], AT + 60, "id2")
    assert isinstance(made, Submission)
    octets = made.content.read()
    read = read_report(octets)
    assert read.recipient["Action"] == action
    assert all(len(line) <= LONGEST_LINE for line in octets.split(b"\n"))
    assert read.returned in b"Received: x\n" + body + b"\n"


def log_line(data: bytes) -> None:
    """An event is one line of printable ASCII or of UTF-8, of which its fields are read again."""
    choices = Choices(data)
    values = [text_of(part) for part in choices.rest.split(b"\0")]
    fields = {f"key{number}": value for number, value in enumerate(values)}
    line = logfmt("now", "info", "event", dict(fields))
    assert line.isprintable()
    line.encode()
    pairs = _PAIR.findall(line)
    assert [key for key, _ in pairs] == ["ts", "level", "event", *fields]
    for (_, value), told in zip(pairs[3:], values, strict=True):
        assert _unescaped(value) == told
    read = json.loads(as_json("now", "info", "event", dict(fields)))
    assert read == {"ts": "now", "level": "info", "event": "event"} | fields


_PAIR = re.compile(r'(?:^| )([a-z0-9]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)(?=$| )')
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")


def _unescaped(value: str) -> str:
    if not value.startswith('"'):
        return value
    return _ESCAPE.sub(_char, value[1:-1])


def _char(found: re.Match[str]) -> str:
    code = found[1]
    return (
        chr(int(code[1:], 16))
        if len(code) > 1
        else {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)
    )


ADDRESSED = b"\x0fann@example.org\x0fiain@example.com"
WORDS = (
    b"\0", b"\n", b"\r", b"@", b'"', b"\\", b"=", b" ", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8",
    b"\xe2\x80\xae", b"Subject: ", b"=?utf-7?q?", b"=?x?b?", b"?=", b"Message-ID: <a@b>", b"\n\n",
    b"--=0=id2", b"\x1b[1m", b"451 4.3.0 ",
)  # fmt: skip

TARGETS = (
    Target(queue_rows, [ADDRESSED + b"\3\5abcde\2id\4body&a@b\n|cmd"], WORDS, longest=300),
    Target(last_answer, [b"\2mx\4RCPTno such user", b"\0\x00451 4.3.0 not now (x)"], WORDS),
    Target(
        report,
        [
            (
                b"\0\0\0\0\x10iain@example.com\2mx\7no user"
                b"From: x\nSubject: =?utf-8?q?h=C3=A9?=\n\nbody\n"
            ),
            (
                b"\1\0\1\1\x0d\xc3\xa9@example.com\2mx\4busy"
                b"Subject: x\n y\nMessage-ID: <a@b>\n\n\xff\n"
            ),
            b"\2\7\0\2\x03a@b\0\0" + b"no header",
        ],
        WORDS,
        longest=600,
    ),
    Target(
        log_line, [b'\0plain\0with blank\0"=\\', b"\0\x1b\n\xe2\x80\xa8\xff"], WORDS, longest=300
    ),
)
