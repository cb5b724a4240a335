"""Headers of messages: what is read of them, added to them and told of them."""

from __future__ import annotations

import time
from email.parser import BytesHeaderParser
from email.policy import SMTP

from restante.completion import (
    Author,
    Field,
    HeaderError,
    Hosts,
    MailboxSyntaxError,
    destinations,
    format_mailbox,
    made_whole,
    missing_fields,
    names_somebody,
    parse_mailboxes,
    split_header,
    without_private,
)
from restante.envelope import Origin, received_field, received_from
from restante.spool import Spool, header_facts
from tests.guided.target import Choices, Target, cut, text_of

HOSTS = Hosts("mx.example.com", "example.com", "plus.example")
AT = 1_700_000_000.0
MAX_HEADER = 300


def header(data: bytes) -> None:
    """A header is its fields; completed, it has what RFC 5322 demands, and is complete."""
    message = data.replace(b"\r", b"")
    fields, end = split_header(message)
    assert b"".join(field.raw for field in fields) == message[:end]
    assert split_header(message[:end]) == (fields, end)
    author = Author("ann", "example.com", "Ann")
    missing = missing_fields(fields, author, AT, "id@example.com")
    complete, length = split_header(missing + message[:end])
    assert length == len(missing) + end
    assert missing_fields(complete, author, AT, "id@example.com") == b""
    kept = without_private(complete)
    assert not {field.name for field in kept} & {b"bcc", b"return-path"}
    names_somebody(kept)
    try:
        destinations(fields)
    except HeaderError as error:
        assert str(error).isprintable()
    for field in fields:
        whole = made_whole(field, HOSTS)
        assert whole.name == field.name
        assert split_header(whole.raw) == ([whole], len(whole.raw))
        assert made_whole(whole, HOSTS) == whole


def mailboxes(data: bytes) -> None:
    """An address list: where its domains stand in it, or why it is none; whole, it is the same."""
    text = text_of(data)
    try:
        found = parse_mailboxes(text)
    except MailboxSyntaxError as error:
        assert str(error).isprintable()
        return
    place = 0
    for each in found:
        assert each.local
        assert place <= each.domain_start <= each.end <= len(text)
        assert bool(each.domain) == (each.domain_start < each.end)
        place = each.end
    raw = b"To:" + data.replace(b"\n", b" ") + b"\n"
    field = Field(b"to", raw)
    whole = parse_mailboxes(made_whole(field, HOSTS).text)
    before = parse_mailboxes(field.text)
    assert [each.local for each in whole] == [each.local for each in before]
    assert [each.domain for each in whole] == [HOSTS.whole(each.domain) for each in before]


def author_name(data: bytes) -> None:
    """Whatever somebody is called, From is made of it as one field with one address."""
    made = format_mailbox(Author("ann", "example.com", text_of(data)))
    raw = f"From: {made}\n".encode()
    fields, end = split_header(raw)
    assert (len(fields), end) == (1, len(raw))
    assert max(map(len, raw.split(b"\n"))) < 998 or len(data) > 400
    (mailbox,) = parse_mailboxes(fields[0].text)
    assert (mailbox.local, mailbox.domain) == ("ann", "example.com")


def header_loops(data: bytes) -> None:
    """Received and Delivered-To are found wherever a parser of mail finds them."""
    message = data.replace(b"\r", b"").replace(b"\0", b"")
    fields, end = split_header(message)
    facts = header_facts(message[:end])
    assert facts.received == sum(field.name == b"received" for field in fields)
    assert len(facts.delivered_to) <= sum(field.name == b"delivered-to" for field in fields)
    for field in fields:
        if field.name == b"delivered-to":
            text = field.raw.partition(b":")[2].replace(b"\n", b"").decode("utf-8", "replace")
            assert _fold(text.strip()) in facts.delivered_to


def _fold(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


def spooled(data: bytes) -> None:
    """A message that is received in any pieces: all of it, its lines, its header and its facts."""
    choices = Choices(data)
    size, message = choices.octet() % 40, choices.rest.replace(b"\r", b"")
    spool = Spool("/nonexistent", 1 << 20, MAX_HEADER)
    for piece in cut(message, size):
        assert not spool.take(piece, piece.count(b"\n"))
    content = spool.finish(b"")
    assert content.read() == message
    assert (content.size, content.lines) == (len(message), message.count(b"\n"))
    text = b"\n" + message
    there, blank, _ = text.partition(b"\n\n")
    head = (there + b"\n" if blank else text)[1:]
    assert spool.header_too_large == (len(head) > MAX_HEADER)
    if not spool.header_too_large:
        assert spool.header == head
        assert content.facts == header_facts(head)


def received(data: bytes) -> None:
    """A Received field is one field in its form, of which is read who the client was."""
    choices = Choices(data)
    helo = "".join(chr(0x21 + octet % 94) for octet in choices.take(30)) or "x"
    address = choices.one_of(("192.0.2.1", "2001:db8::1", "fe80::1"))
    field = received_field(Origin(helo, address, "ESMTP"), "mx.example", "id", (), AT)
    fields, end = split_header(field)
    assert (len(fields), end) == (1, len(field))
    name, _, rest = received_from(field).partition(" ")
    assert rest == f"({address})"
    assert len(name) == len(helo)
    assert all(written in {said, "?"} for said, written in zip(helo, name, strict=True))
    assert (field.count(b";"), field.count(b"(")) == (1, 1)
    assert BytesHeaderParser(policy=SMTP).parsebytes(field)["received"]
    received_from(choices.rest)
    time.gmtime(AT)


HEADERS = (
    b"From: ann\nTo: Bob <bob>, list: carl@d.e, \"x y\"@z;\nSubject: x\n\nbody\n",
    b"Received: from x\n\tby y\nDelivered-To: Ann@example.com\nReceived:z\n\n",
    b"Resent-To: a@b (comment (nested))\nBcc: @route,@r2:c@[192.0.2.1]\nDate : x\n y\n\n",
    b"\nno header\n", b"no header\n", b"A: 1", b"delivered-to :\n\tann@example.com\n b\n\n",
)  # fmt: skip
WORDS = (
    b"\n", b"\n ", b"\n\t", b": ", b"From:", b"To:", b"Bcc:", b"Resent-To:", b"Received:",
    b"Delivered-To:", b"Date:", b"Message-ID:", b"<", b">", b"@", b",", b";", b"(", b")", b'"',
    b"\\", b"[", b"]", b".", b"\xc3\xa9", b"\xff", b"\0", b"localhost", b"+",
)  # fmt: skip
LISTS = (
    b"ann", b"Ann <ann@example.com>, bob@c+", b'"a \\" b"@c.d', b"g: a@b, c@d;, e",
    b"a@[192.0.2.1]",
    b"<@r,@s:a@b>", b"a (c(d)e) @ b . c", b"a.b..c@d", b"a@b [c] <a@b>; d @ e <f>",
)  # fmt: skip

TARGETS = (
    Target(header, HEADERS, WORDS, longest=400),
    Target(mailboxes, LISTS, WORDS, longest=300),
    Target(author_name, [b"Ann", b'A "B"', b"\xc3\xa9" * 40, b"=?x?="], WORDS, longest=300),
    Target(header_loops, HEADERS, WORDS, longest=400),
    Target(spooled, [b"\3" + each for each in HEADERS], WORDS, longest=500),
    Target(received, [b"\5a.b.c\1Received: from x ([1.2.3.4])"], WORDS, longest=200),
)
