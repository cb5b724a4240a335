"""Bounces, read back by Python's own parser, field by field."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage, Message
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address, AddressSyntaxError, ReversePath
from restante.config.tree import Queue
from restante.dsn import MAX_HEADER, WHOLE_MESSAGE, BounceReporter
from restante.envelope import Content, Envelope, HeaderFacts, memory_content
from restante.queue import (
    Action,
    LastAnswer,
    Notice,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Submission,
    Target,
    Undeliverable,
)
from restante.status import Reply

ACCEPTED = 1_800_000_000.0
NOW = ACCEPTED + 3600
SENDER = Address("ann", "example.org")
NO_USER = Reply(550, "1.1", "no such user")
BODY = b"From: ann@example.org\nSubject: hello\n\nHello.\n"
SETTINGS = Queue(bouncehost="example.com")


def recipient(address: str, *trail: str) -> QueuedRecipient:
    return QueuedRecipient(1, Target(address), RecipientState.WAITING, 0, NOW, None, trail)


def failed_with(given_up: QueuedRecipient, reply: Reply) -> Notice:
    return Notice(replace(given_up, last=LastAnswer(reply, "", None, NOW)), Action.FAILED)


def message(
    sender: ReversePath = SENDER,
    content: Content | None = None,
    *,
    accepted_for: str = "iain@example.com",
    smtputf8: bool = False,
) -> QueuedMessage:
    envelope = Envelope("id1", sender, (Address.parse(accepted_for),), ACCEPTED, smtputf8=smtputf8)
    return QueuedMessage(
        envelope, content or memory_content(b"Received: from there\n", BODY), (), again=False
    )


def report(
    failed: QueuedMessage, *failures: Notice, settings: Queue = SETTINGS
) -> Submission | Undeliverable:
    given = failures or (failed_with(recipient("iain@example.com"), NO_USER),)
    return BounceReporter(settings, "mx.example.com").report(failed, given, NOW, "id2")


def submitted(failed: QueuedMessage, *failures: Notice) -> Submission:
    made = report(failed, *failures)
    assert isinstance(made, Submission)
    return made


def parsed(made: Submission) -> EmailMessage:
    """The report, as it goes over the wire."""
    wire = made.content.read().replace(b"\n", b"\r\n")
    read = email.message_from_bytes(wire, policy=email.policy.SMTPUTF8)
    assert isinstance(read, EmailMessage)
    return read


def parts(made: Submission) -> tuple[Message, list[Message], Message]:
    """The human part, the blocks of the machine's part, and what is returned."""
    human, machine, returned = parsed(made).iter_parts()
    blocks = machine.get_payload()
    assert isinstance(blocks, list)
    return human, [block for block in blocks if isinstance(block, Message)], returned


def returned_octets(made: Submission) -> bytes:
    """What follows the last part's own header."""
    last = made.content.read().split(b"\n--=0=id2")[3]
    return last.partition(b"\n\n")[2]


def test_the_envelope_is_that_of_a_notification() -> None:
    made = submitted(message())
    assert made.envelope == Envelope("id2", NULL_REVERSE_PATH, (SENDER,), NOW)
    assert made.targets == (Target("ann@example.org"),)
    assert isinstance(made.content.body, bytes)
    assert b"\r" not in made.content.body
    assert made.content.body_lines == made.content.body.count(b"\n")


def test_the_header_names_the_mail_system() -> None:
    read = parsed(submitted(message()))
    assert read["From"] == "Mail Delivery System <MAILER-DAEMON@example.com>"
    assert read["To"] == "ann@example.org"
    assert read["Auto-Submitted"] == "auto-replied"
    assert read["Message-ID"] == "<id2.report@mx.example.com>"
    assert read["Date"].datetime.timestamp() == NOW
    assert read["MIME-Version"] == "1.0"
    assert read["Subject"]
    assert read.get_content_type() == "multipart/report"
    assert read.get_param("report-type") == "delivery-status"
    assert not read.defects


def test_the_machine_readable_part_has_every_field() -> None:
    made = submitted(message())
    assert [part.get_content_type() for part in parsed(made).iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    _, (about_message, about_recipient), _ = parts(made)
    assert about_message["Reporting-MTA"] == "dns; mx.example.com"
    arrival = email.utils.parsedate_to_datetime(about_message["Arrival-Date"])
    assert arrival.timestamp() == ACCEPTED
    assert about_recipient.items() == [
        ("Final-Recipient", "rfc822; iain@example.com"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
    ]


def test_the_human_part_says_what_happened_to_whom() -> None:
    human, _, _ = parts(submitted(message()))
    text = str(human.get_payload())
    assert "mx.example.com" in text
    assert "<ann@example.org>" in text
    assert "<iain@example.com>\r\n    550 5.1.1 no such user\r\n" in text


def test_those_who_failed_together_share_a_report() -> None:
    full = Reply(552, "2.2", "the mailbox is full\nreally")
    made = submitted(
        message(),
        failed_with(recipient("iain@example.com"), NO_USER),
        failed_with(recipient("ann@elsewhere.org", "all@example.com", "some@example.com"), full),
    )
    human, (_, first, second), _ = parts(made)
    assert first["Final-Recipient"] == "rfc822; iain@example.com"
    assert first["Original-Recipient"] is None
    assert second["Original-Recipient"] == "rfc822; all@example.com"
    assert second["Final-Recipient"] == "rfc822; ann@elsewhere.org"
    assert second["Status"] == "5.2.2"
    assert second["Diagnostic-Code"] == "smtp; 552 5.2.2 the mailbox is full / really"
    assert "reached by way of <all@example.com>" in str(human.get_payload())


def test_a_reply_without_enhanced_status_is_a_general_failure() -> None:
    made = submitted(message(), failed_with(recipient("iain@x"), Reply(554, "", "no")))
    _, (_, about), _ = parts(made)
    assert about["Status"] == "5.0.0"
    assert about["Diagnostic-Code"] == "smtp; 554 no"


def test_a_small_message_comes_back_whole_and_untouched() -> None:
    odd = b"Subject: \xff\n broken\nno colon here\n\n\x00 8-bit \xfc\n--=x\n"
    made = submitted(message(content=memory_content(b"Received: x\n", odd)))
    assert made.envelope.eight_bit
    assert returned_octets(made) == b"Received: x\n" + odd
    assert parts(made)[2]["Content-Transfer-Encoding"] == "8bit"


def test_of_a_large_message_comes_back_the_header(tmp_path: Path) -> None:
    body = BODY + b"x" * WHOLE_MESSAGE
    spool = tmp_path / "spool"
    spool.write_bytes(body)
    for kept in (body, str(spool)):
        content = Content(b"Received: x\n", kept, len(body), body.count(b"\n"), HeaderFacts())
        made = submitted(message(content=content))
        assert parts(made)[2].get_content_type() == "text/rfc822-headers"
        assert returned_octets(made) == b"Received: x\n" + BODY.partition(b"\n\n")[0] + b"\n"


@pytest.mark.parametrize(
    ("body", "comes_back"),
    [
        (b"\n" + b"x" * 99_999, b"Received: x\n"),
        (b"A: b\n" * 20_000, None),
        (b"A" * 99_999, None),
    ],
)
def test_no_header_is_too_odd(body: bytes, comes_back: bytes | None) -> None:
    trace = b"Received: x\n"
    octets = returned_octets(submitted(message(content=memory_content(trace, body))))
    assert (trace + body).startswith(octets)
    assert len(octets) <= MAX_HEADER
    assert comes_back in (None, octets)


def test_a_body_that_cannot_be_read_does_not_stop_its_bounce(tmp_path: Path) -> None:
    gone = Content(b"Received: x\n", str(tmp_path / "gone"), 99, 1, HeaderFacts())
    assert returned_octets(submitted(message(content=gone))) == b"Received: x\n"


def test_the_boundary_is_in_no_part() -> None:
    spoof = memory_content(b"", b"A: b\n\n--=0=id2--\n--=1=id2\n")
    made = submitted(message(content=spoof))
    assert parsed(made).get_boundary() == "=2=id2"
    assert len(list(parsed(made).iter_parts())) == 3


def test_utf8_addresses_are_written_in_ascii_where_ascii_is_asked_for() -> None:
    sender = Address("дмитрий", "пример.рф")
    made = submitted(
        message(sender, smtputf8=True), failed_with(recipient("a+b=c\\dü@x.org"), NO_USER)
    )
    assert made.envelope.smtputf8
    assert parsed(made)["To"] == "дмитрий@пример.рф"
    _, (_, about), returned = parts(made)
    assert about["Final-Recipient"] == (r'utf-8; "a\x{2B}b\x{3D}c\x{5C}\x{5C}d\x{FC}"@x.org')
    assert returned.get_content_type() == "message/global"


def test_a_bounce_of_a_bounce_is_dropped_unless_somebody_wants_it() -> None:
    assert isinstance(report(message(NULL_REVERSE_PATH)), Undeliverable)
    postmaster = Queue(doublebounceto="Postmaster@example.com")
    made = report(message(NULL_REVERSE_PATH), settings=postmaster)
    assert isinstance(made, Submission)
    assert made.envelope.recipients == (Address("Postmaster", "example.com"),)
    assert made.envelope.reverse_path == NULL_REVERSE_PATH
    third = message(NULL_REVERSE_PATH, accepted_for="postmaster@example.com")
    assert isinstance(report(third, settings=postmaster), Undeliverable)


def test_bouncefrom_and_its_default_host() -> None:
    made = BounceReporter(Queue(bouncefrom="bounces"), "mx.example.com").report(
        message(), [failed_with(recipient("iain@x"), NO_USER)], NOW, "id2"
    )
    assert isinstance(made, Submission)
    assert parsed(made)["From"] == "Mail Delivery System <bounces@mx.example.com>"


def test_a_doublebounceto_that_is_no_address_is_refused() -> None:
    with pytest.raises(AddressSyntaxError):
        BounceReporter(Queue(doublebounceto="no address"), "mx.example.com")


@given(
    text=st.text(max_size=2000),
    address=st.text(min_size=1, max_size=40),
    body=st.binary(max_size=300),
    local=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
)
def test_nothing_in_the_mail_can_break_its_bounce(
    text: str, address: str, body: bytes, local: str
) -> None:
    """Invariant: any reply, address and body give three parts, and lines that SMTP can carry."""
    made = submitted(
        message(Address(local, "example.org"), memory_content(b"", body)),
        failed_with(recipient(address), Reply(550, "1.1", text)),
    )
    human, machine, returned = made.content.read().split(b"\n--=0=id2")[1:4]
    assert machine.isascii()
    assert returned.endswith(body)
    for part in (human, machine):
        assert max(len(line) for line in part.split(b"\n")) <= 998
    blocks = machine.partition(b"\n\n")[2].rstrip(b"\n").split(b"\n\n")
    assert [line.split(b":")[0] for line in blocks[1].split(b"\n")] == [
        b"Final-Recipient",
        b"Action",
        b"Status",
        b"Diagnostic-Code",
    ]
