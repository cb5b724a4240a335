"""What is said of a message to a host that can do less than the sender said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Content, memory_content
from restante.protocol.smtp.client_events import Extensions, OutgoingMessage
from restante.relay import Parcel, Recipient
from restante.relay.outgoing import bearing, outgoing
from tests.support.contents import spooled_content
from tests.support.queued import envelope

ALL = Extensions(extended=True, eight_bit=True, smtputf8=True)
NOTHING = Extensions()
PLAIN = b"Subject: hello\n\nHello.\n"


def said(
    extensions: Extensions,
    body: bytes = PLAIN,
    *,
    eight_bit: bool = False,
    smtputf8: bool = False,
    sender: ReversePath = NULL_REVERSE_PATH,
    recipient: str = "ann@example.net",
    trace: bytes = b"",
) -> OutgoingMessage:
    content = memory_content(trace, body)
    sent = replace(envelope(sender=sender), eight_bit=eight_bit, smtputf8=smtputf8)
    recipients = (Recipient(Address.from_stored(recipient)),)
    return outgoing(Parcel(sent, content, recipients), extensions)


def test_the_size_counts_line_ends_twice() -> None:
    assert said(ALL, trace=b"A: b\n").size == len("A: b\r\nSubject: hello\r\n\r\nHello.\r\n")


@pytest.mark.parametrize(
    ("extensions", "body", "declared", "eight_bit"),
    [
        (ALL, PLAIN, True, True),
        (ALL, PLAIN, False, False),
        (ALL, b"\n\xff\n", False, True),
        (NOTHING, PLAIN, True, False),
        (NOTHING, b"\n\xff\n", True, True),
        (NOTHING, b"\n\xff\n", False, True),
    ],
)
def test_eight_bit_content(
    extensions: Extensions, body: bytes, declared: bool, eight_bit: bool
) -> None:
    assert said(extensions, body, eight_bit=declared).eight_bit is eight_bit


@pytest.mark.parametrize(
    ("extensions", "trace", "body", "needed"),
    [
        (ALL, b"", PLAIN, True),
        (NOTHING, b"", PLAIN, False),
        (NOTHING, b"", "Subject: h\xe9llo\n\n".encode(), True),
        (NOTHING, "Received: for <\xfc@x>\n".encode(), PLAIN, True),
        (NOTHING, b"", "Subject: hello\n\nh\xe9llo\n".encode(), False),
        (NOTHING, b"A: b\n", "\nh\xe9llo\n".encode(), False),
        (NOTHING, b"", "no header \xe9 at all".encode(), True),
    ],
)
def test_headers_in_utf8(extensions: Extensions, trace: bytes, body: bytes, needed: bool) -> None:
    assert said(extensions, body, smtputf8=True, trace=trace).smtputf8 is needed


def test_a_message_without_smtputf8_has_no_utf8_header() -> None:
    assert not said(NOTHING, "Subject: h\xe9llo\n\n".encode()).smtputf8


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("jürgen@bücher.example", "jürgen@bücher.example"),
        ("ann@\u0378.example", "ann@\u0378.example"),
        ("Ann@example.net", "Ann@example.net"),
    ],
)
def test_a_domain_is_told_in_ascii_where_that_helps(address: str, told: str) -> None:
    message = said(NOTHING, recipient=address, sender=Address.from_stored(address))
    assert str(message.recipients[0].address) == told
    assert str(message.reverse_path) == told


ALIASES = ("list@example.com", "list@müller.example", "é@müller.example")


@pytest.mark.parametrize(
    ("extensions", "smtputf8", "all_of_them"),
    [(ALL, True, True), (ALL, False, False), (NOTHING, True, False)],
)
def test_a_copy_bears_the_aliases_that_a_host_can_take(
    extensions: Extensions, smtputf8: bool, all_of_them: bool
) -> None:
    """The message may be ASCII but for them, and then goes to a host that does not know SMTPUTF8.

    One that comes back by way of another host ends, and does not multiply.
    """
    sent = replace(envelope(), smtputf8=smtputf8)
    parcel = Parcel(sent, memory_content(b"Received: x\n", PLAIN), (), ALIASES)
    fields = ["list@example.com", "list@xn--mller-kva.example", "é@müller.example"]
    borne = "".join(f"Delivered-To: {each}\n" for each in fields[: 3 if all_of_them else 2])
    content = bearing(parcel, extensions)
    assert content.trace == f"{borne}Received: x\n".encode()
    assert outgoing(replace(parcel, content=content), extensions).smtputf8 is all_of_them


def test_a_content_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(PLAIN + b"x\n" * 300_000 + b"\xe9\n")
    content: Content = spooled_content(b"", str(path), 300_004, memory_content(b"", b"").facts)
    sent = replace(envelope(), smtputf8=True)
    message = outgoing(Parcel(sent, content, ()), NOTHING)
    assert message.eight_bit
    assert not message.smtputf8
