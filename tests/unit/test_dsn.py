"""Reports, read back by Python's own parser, field by field."""

from __future__ import annotations

from binascii import a2b_qp
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address, AddressSyntaxError, ReversePath
from restante.config.tree import MAX_WAIT, Queue
from restante.dsn.original import MAX_HEADER, WHOLE_IF_ASKED, WHOLE_MESSAGE
from restante.dsn.reporter import DsnReporter
from restante.envelope import (
    NO_DSN,
    Content,
    Envelope,
    HeaderFacts,
    Notify,
    Origin,
    RecipientDsn,
    memory_content,
    received_field,
)
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
from restante.status import Peer, Reply
from tests.support.report import ReadReport, read_report

ACCEPTED = 1_800_000_000.0
TRIED = ACCEPTED + 1800
NOW = ACCEPTED + 3600
SENDER = Address("ann", "example.org")
IAIN = Address("iain", "example.com")
NO_USER = Reply(550, "1.1", "no such user")
BUSY = Reply(451, "4.5", "come back later")
OK = Reply(250, "1.5", "ok")
BODY = b"From: ann@example.org\nSubject: hello\nMessage-ID: <m1@example.org>\n\nHello.\n"
TRACE = received_field(Origin("c.example", "192.0.2.1", "ESMTP"), "mx.x", "id1", (IAIN,), ACCEPTED)
SETTINGS = Queue(bouncehost="example.com", queuelifetime=7 * 86400)
PEER = Peer("mail.example.net", "192.0.2.25", "RCPT TO:<iain@example.com>")


def notice(
    address: str = "iain@example.com",
    reply: Reply = NO_USER,
    action: Action = Action.FAILED,
    *trail: str,
    peer: Peer | None = None,
    dsn: RecipientDsn = NO_DSN,
    put_off: bool = False,
) -> Notice:
    last = LastAnswer(reply, "for operators only", peer, TRIED, put_off)
    target = Target(address, dsn=dsn)
    recipient = QueuedRecipient(1, target, RecipientState.WAITING, 3, ACCEPTED, NOW, last, trail)
    return Notice(recipient, action)


FAILED = notice()
DELAYED = notice(reply=BUSY, action=Action.DELAYED, peer=PEER)
DELIVERED = notice(reply=OK, action=Action.DELIVERED)
RELAYED = notice(reply=OK, action=Action.RELAYED, peer=PEER)
EXPANDED = notice("sales@example.com", OK, Action.EXPANDED)


def message(
    sender: ReversePath = SENDER, content: Content | None = None, *, accepted_for: Address = IAIN
) -> QueuedMessage:
    envelope = Envelope("id1", sender, (accepted_for,), ACCEPTED)
    return QueuedMessage(envelope, content or memory_content(TRACE, BODY), (), again=False)


def asking(queued: QueuedMessage, **fields: object) -> QueuedMessage:
    """The message with other fields of its envelope."""
    return replace(queued, envelope=replace(queued.envelope, **fields))  # type: ignore[arg-type]


def report(
    about: QueuedMessage, *notices: Notice, settings: Queue = SETTINGS
) -> Submission | Undeliverable:
    reporter = DsnReporter(settings, "mx.example.com")
    return reporter.report(about, notices or (FAILED,), NOW, "id2")


def submitted(about: QueuedMessage, *notices: Notice) -> Submission:
    made = report(about, *notices)
    assert isinstance(made, Submission)
    return made


def read(about: QueuedMessage, *notices: Notice) -> ReadReport:
    return read_report(submitted(about, *notices).content.read())


def words(text: str) -> str:
    """The text, wherever its lines were broken."""
    return " ".join(text.split())


# The report as a message


def test_the_envelope_is_that_of_a_report() -> None:
    made = submitted(message())
    assert made.envelope == Envelope("id2", NULL_REVERSE_PATH, (SENDER,), NOW)
    assert made.targets == (Target("ann@example.org", dsn=RecipientDsn(Notify.NEVER)),)
    assert isinstance(made.content.body, bytes)
    assert b"\r" not in made.content.body
    assert made.content.body_lines == made.content.body.count(b"\n")


def test_the_header_is_that_of_an_automatic_reply() -> None:
    header = read(message()).header
    assert header["From"] == "Mail Delivery System <MAILER-DAEMON@example.com>"
    assert header["To"] == "ann@example.org"
    assert header["Auto-Submitted"] == "auto-replied"
    assert header["Message-ID"] == "<id2.report@mx.example.com>"
    assert header["In-Reply-To"] == "<m1@example.org>"
    assert header["References"] == "<m1@example.org>"
    assert header["Date"].datetime.timestamp() == NOW
    assert header["MIME-Version"] == "1.0"


def test_a_host_beyond_ascii_needs_no_smtputf8_for_its_reports() -> None:
    made = report(message(), settings=replace(SETTINGS, bouncehost="bücher.example"))
    assert isinstance(made, Submission)
    header = read_report(made.content.read()).header
    assert header["From"] == "Mail Delivery System <MAILER-DAEMON@xn--bcher-kva.example>"
    assert not made.envelope.smtputf8


@pytest.mark.parametrize(
    ("field", "known"),
    [
        (b"message-ID:\n <a.b@c>", "<a.b@c>"),
        (b"Message-ID: <a@b> (comment)", None),
        (b"Message-ID: a@b", None),
        (b"Message-ID: <a b@c>", None),
        (b"Message-ID: <a@b>\rX: y", None),
        (b"Message-ID: <\xc3\xa9@b>", None),
        (b"Message-ID: <" + b"a" * 200 + b"@b>", None),
        (b"Message-ID: <" + b"@" * 30_000 + b">", None),
        (b"X: y\n Message-ID: <a@b>", None),
        (b"X: y\n\nMessage-ID: <a@b>", None),
    ],
)
def test_only_a_sane_message_id_is_replied_to(field: bytes, known: str | None) -> None:
    header = read(message(content=memory_content(b"", field + b"\n\nHello.\n"))).header
    assert header["In-Reply-To"] == known
    assert header["References"] == known


@pytest.mark.parametrize(
    ("notices", "subject"),
    [
        ((FAILED,), "Your message could not be delivered"),
        ((DELAYED,), "Your message is delayed"),
        ((DELIVERED,), "Your message was delivered"),
        ((RELAYED,), "Your message was passed on"),
        ((EXPANDED,), "Your message was passed on to a group"),
        ((DELIVERED, EXPANDED, DELAYED, FAILED), "Your message could not be delivered"),
        ((EXPANDED, DELIVERED, DELAYED), "Your message is delayed"),
        ((DELIVERED, RELAYED), "Your message was passed on"),
    ],
)
def test_the_subject_tells_the_worst(notices: tuple[Notice, ...], subject: str) -> None:
    assert read(message(), *notices).header["Subject"] == subject


# What programs read


def test_fields_of_a_message_that_nothing_more_is_known_of() -> None:
    made = read(message(content=memory_content(b"", BODY)))
    assert made.message.keys() == ["Reporting-MTA", "Arrival-Date"]
    assert made.message["Reporting-MTA"] == "dns; mx.example.com"
    assert parsedate_to_datetime(made.message["Arrival-Date"]).timestamp() == ACCEPTED


def test_fields_of_a_message_with_an_envelope_id() -> None:
    made = read(asking(message(), envid="QQ+314 159=x"))
    assert made.message.keys() == [
        "Original-Envelope-Id",
        "Reporting-MTA",
        "Received-From-MTA",
        "Arrival-Date",
    ]
    assert made.message["Original-Envelope-Id"] == "QQ+314 159=x"
    assert made.message["Received-From-MTA"] == "dns; c.example (192.0.2.1)"


def test_fields_of_a_failure_here() -> None:
    made = read(message())
    assert made.status_type == "message/delivery-status"
    *fields, tried, log = made.recipient.items()
    assert fields == [
        ("Final-Recipient", "rfc822; iain@example.com"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
    ]
    assert tried[0] == "Last-Attempt-Date"
    assert parsedate_to_datetime(tried[1]).timestamp() == TRIED
    assert log == ("Final-Log-Id", "id1")


def test_fields_of_a_failure_elsewhere() -> None:
    said = Reply(550, "7.1", "we do not like you\nsee https://example.net/why")
    about = notice(reply=said, peer=PEER, dsn=RecipientDsn(None, "rfc822;Iain+tag@Example.COM"))
    made = read(message(), about)
    assert made.recipient.keys() == [
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Final-Log-Id",
    ]
    assert made.recipient["Original-Recipient"] == "rfc822; Iain+tag@Example.COM"
    assert made.recipient["Remote-MTA"] == "dns; mail.example.net (192.0.2.25)"
    assert made.recipient["Diagnostic-Code"] == (
        "smtp; 550-5.7.1 we do not like you 550 5.7.1 see https://example.net/why"
    )
    octets = submitted(message(), about).content.read()
    assert b"smtp; 550-5.7.1 we do not like you\n 550 5.7.1 see https://example" in octets


def test_fields_of_a_delay() -> None:
    made = read(message(), DELAYED)
    assert made.recipient["Action"] == "delayed"
    assert made.recipient["Status"] == "4.4.5"
    until = parsedate_to_datetime(made.recipient["Will-Retry-Until"])
    assert until.timestamp() == ACCEPTED + 7 * 86400


def test_until_when_it_is_tried_goes_by_the_recipients_own_time() -> None:
    spared = replace(DELAYED, recipient=replace(DELAYED.recipient, born=ACCEPTED + 86400))
    made = read(message(), DELAYED, spared)
    first, second = (parsedate_to_datetime(r["Will-Retry-Until"]) for r in made.recipients)
    assert second.timestamp() == first.timestamp() + 86400
    assert "tried until Sat, 23 Jan 2027" in words(made.text), "the last of them"


def test_a_time_that_is_over_is_not_told() -> None:
    spared = replace(DELAYED, recipient=replace(DELAYED.recipient, born=TRIED - 7 * 86400))
    made = read(message(), spared, DELAYED)
    first, second = made.recipients
    assert first["Will-Retry-Until"] is None
    assert second["Will-Retry-Until"] is not None
    assert "tried until Fri, 22 Jan 2027" in words(made.text)
    assert "it is tried for some time yet. If it" in words(read(message(), spared).text)


@pytest.mark.parametrize("about", [DELIVERED, EXPANDED, RELAYED])
def test_fields_of_a_success(about: Notice) -> None:
    made = read(message(), about)
    assert made.recipient["Action"] == about.action.value
    assert made.recipient["Status"] == "2.1.5"
    assert ("Remote-MTA" in made.recipient) == (about is RELAYED)
    assert "Diagnostic-Code" not in made.recipient
    assert "Will-Retry-Until" not in made.recipient


def test_no_original_recipient_is_made_up_where_an_alias_led_elsewhere() -> None:
    made = read(message(), notice("ann@elsewhere.org", NO_USER, Action.FAILED, "all@example.com"))
    assert made.recipient["Original-Recipient"] is None
    assert made.recipient["Final-Recipient"] == "rfc822; ann@elsewhere.org"


@pytest.mark.parametrize(
    ("action", "reply", "status"),
    [
        (Action.FAILED, Reply(554, "", "no"), "5.0.0"),
        (Action.FAILED, BUSY, "4.4.5"),
        (Action.FAILED, Reply(421, "", "later"), "4.0.0"),
        (Action.FAILED, Reply(550, "1.1.1", "odd"), "5.0.0"),
        (Action.FAILED, Reply(550, "1111.1", "odd"), "5.0.0"),
        (Action.DELAYED, Reply(451, "", "later"), "4.0.0"),
        (Action.DELAYED, NO_USER, "4.0.0"),
        (Action.DELIVERED, Reply(250, "", "ok"), "2.0.0"),
    ],
)
def test_the_class_of_a_status_fits_the_action(action: Action, reply: Reply, status: str) -> None:
    assert read(message(), notice(reply=reply, action=action)).recipient["Status"] == status


@pytest.mark.parametrize("action", [Action.FAILED, Action.DELAYED])
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(554, "7.1", "blocked"), "4.7.1"),
        (Reply(535, "", "who is that?"), "4.0.0"),
        (Reply(554, "1111.1", "odd"), "4.0.0"),
        (BUSY, "4.4.5"),
    ],
)
def test_the_status_of_what_was_put_off_is_temporary(
    action: Action, reply: Reply, status: str
) -> None:
    made = read(message(), notice(reply=reply, action=action, put_off=True))
    assert made.recipient["Status"] == status
    assert made.recipient["Diagnostic-Code"].startswith(f"smtp; {reply.code} ")


def test_a_recipient_that_was_never_tried_has_no_answer() -> None:
    never = replace(FAILED, recipient=replace(FAILED.recipient, last=None))
    made = read(message(), never)
    assert made.recipient["Status"] == "5.0.0"
    assert "Diagnostic-Code" not in made.recipient
    assert "Last-Attempt-Date" not in made.recipient


def test_what_operators_are_told_stays_with_them() -> None:
    octets = submitted(message(), FAILED, DELAYED, RELAYED, DELIVERED).content.read()
    assert b"operators" not in octets


def test_those_whose_fates_are_known_together_share_a_report() -> None:
    made = read(message(), FAILED, DELIVERED, DELAYED)
    actions = [block["Action"] for block in made.recipients]
    assert actions == ["failed", "delivered", "delayed"]


def test_a_report_names_the_end_of_the_longest_lifetime() -> None:
    made = report(message(), DELAYED, settings=Queue(queuelifetime=MAX_WAIT))
    assert isinstance(made, Submission)
    until = parsedate_to_datetime(read_report(made.content.read()).recipient["Will-Retry-Until"])
    assert until.timestamp() == int(ACCEPTED) + MAX_WAIT


# Addresses beyond ASCII


def test_beyond_ascii_addresses_are_embedded_for_a_sender_of_ascii() -> None:
    about = notice("a+b=c\\dü@x.org", dsn=RecipientDsn(None, "utf-8;ü+x@y"))
    made = read(asking(message(), smtputf8=True), about)
    assert made.status_type == "message/delivery-status"
    assert made.recipient["Final-Recipient"] == (
        r'utf-8; "a\x{2B}b\x{3D}c\x{5C}\x{5C}d\x{FC}"@x.org'
    )
    assert made.recipient["Original-Recipient"] == r"utf-8; \x{FC}\x{2B}x@y"
    assert made.returned_type == "message/global"
    assert not submitted(asking(message(), smtputf8=True), about).envelope.smtputf8


def test_beyond_ascii_addresses_stand_for_themselves_for_a_sender_beyond_ascii() -> None:
    sender = Address("дмитрий", "пример.рф")
    about = asking(message(sender), smtputf8=True, ret="HDRS")
    said = Reply(550, "1.1", "кто это?")
    about_recipient = notice("ü+x@y.org", said, peer=PEER, dsn=RecipientDsn(None, "utf-8;ю x=y@z"))
    made = read(about, about_recipient)
    assert submitted(about, about_recipient).envelope.smtputf8
    assert made.header["To"] == "дмитрий@пример.рф"
    assert made.status_type == "message/global-delivery-status"
    assert made.recipient["Final-Recipient"] == r"utf-8; ü\x{2B}x@y.org"
    assert made.recipient["Original-Recipient"] == r"utf-8; ю\x{20}x\x{3D}y@z"
    assert made.recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 кто это?"
    assert made.returned_type == "message/global-headers"


def test_a_report_for_a_sender_whose_domain_alone_is_beyond_ascii_needs_no_smtputf8() -> None:
    about = asking(message(Address("ann", "bücher.example")), smtputf8=True)
    made = submitted(about)
    assert not made.envelope.smtputf8
    assert [each.address for each in made.targets] == ["ann@bücher.example"]
    assert read(about).header["To"] == "ann@xn--bcher-kva.example"
    assert read(about).status_type == "message/delivery-status"


# What people read


def test_the_text_says_what_happened_to_whom_and_who_said_so() -> None:
    made = read(message(), notice(peer=PEER))
    assert "Subject: hello\n" in made.text
    assert "<ann@example.org>" in made.text
    assert "id1" in made.text
    assert "could NOT be delivered to:\n\n    <iain@example.com>\n" in made.text
    assert "There is no such mailbox." in words(made.text)
    assert (
        "      mail.example.net (192.0.2.25) answered to RCPT TO:<iain@example.com>:\n"
        "        550 5.1.1 no such user\n"
    ) in made.text
    assert "not tried any more" in words(made.text)
    assert max(map(len, made.text.split("\n"))) < 100


def test_the_text_names_the_address_that_the_sender_wrote_first() -> None:
    made = read(message(), notice("ann@elsewhere.org", NO_USER, Action.FAILED, "all@x", "some@x"))
    assert "    <all@x>\n      (which leads to <ann@elsewhere.org>)\n" in made.text
    assert "some@x" not in made.text


def test_the_text_writes_addresses_with_the_quotes_that_they_need() -> None:
    made = read(message(Address("a b", "x.org")), notice("c@d@x", NO_USER, Action.FAILED, "e f@x"))
    assert '<"a b"@x.org>' in made.text
    assert '    <"e f"@x>\n      (which leads to <"c@d"@x>)\n' in made.text


def test_the_text_blames_no_other_system_for_what_this_one_decided() -> None:
    made = read(message(), notice(reply=Reply(554, "0.0", "returned by the operator")))
    assert "This mail system does not deliver the message." in words(made.text)
    assert "receiving system" not in words(made.text)


HANDSHAKE = replace(PEER, command="STARTTLS", silent=True)
LOGIN = replace(PEER, command="AUTH PLAIN")


@pytest.mark.parametrize(
    ("reply", "peer", "said"),
    [
        (Reply(454, "7.5", "the certificate is not accepted"), HANDSHAKE, "as secure as is"),
        (Reply(451, "7.4", "no STARTTLS"), replace(HANDSHAKE, command="EHLO mx"), "lacks what"),
        (Reply(454, "7.0", "TLS not available"), replace(HANDSHAKE, silent=False), "as secure as"),
        (Reply(535, "7.8", "who is that?"), LOGIN, "did not accept the login"),
        (Reply(535, "7.3", "who is that?"), LOGIN, "did not accept the login"),
        (Reply(535, "", "who is that?"), LOGIN, "did not accept the login"),
        (Reply(538, "7.11", "not in clear text"), LOGIN, "as secure as is"),
    ],
)
def test_the_text_takes_no_lack_of_security_for_a_word_on_the_message(
    reply: Reply, peer: Peer, said: str
) -> None:
    text = words(read(message(), notice(reply=reply, peer=peer)).text)
    assert said in text
    assert "unwanted mail" not in text


def test_the_text_says_of_a_connection_that_was_lost_just_that() -> None:
    lost = notice(reply=Reply(451, "4.2", "closed"), peer=replace(LOGIN, silent=True))
    assert "stopped answering" in words(read(message(), lost).text)


@pytest.mark.parametrize("topic", ["7.0", "7.1", "7.26"])
def test_the_text_tells_of_refusals_that_are_for_unwanted_mail(topic: str) -> None:
    refused = notice(reply=Reply(550, topic, "no"), peer=PEER)
    assert "unwanted mail" in words(read(message(), refused).text)


def test_the_text_of_what_was_given_up_says_for_how_long_it_was_tried() -> None:
    given_up = notice(reply=BUSY, peer=replace(PEER, command="connect", silent=True))
    made = read(message(), given_up)
    assert "tried again for 30 minutes, in vain" in words(made.text)
    assert "mx.example.com says of mail.example.net (192.0.2.25):\n" in made.text
    spared = replace(given_up, recipient=replace(given_up.recipient, born=TRIED - 600))
    assert "tried again for 10 minutes, in vain" in words(read(message(), spared).text)


def test_the_text_says_so_too_of_a_host_that_greeted_with_a_refusal_all_the_time() -> None:
    blocked, peer = Reply(554, "7.1", "blocked"), replace(PEER, command="greeting")
    text = words(read(message(), notice(reply=blocked, peer=peer, put_off=True)).text)
    assert "tried again for 30 minutes, in vain" in text
    assert "mail.example.net (192.0.2.25) greeted with: 554 5.7.1 blocked" in text
    refused = notice(reply=blocked, peer=PEER)
    assert "in vain" not in words(read(message(), refused).text)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("MAIL FROM:<{where}>", "x (192.0.2.25) answered to MAIL FROM:<{where}>:\n"),
        ("greeting", "x (192.0.2.25) greeted with:\n"),
        ("end of data", "x (192.0.2.25) answered to the content of the message:\n"),
    ],
)
def test_the_text_says_what_was_answered(command: str, said: str) -> None:
    about = notice(peer=replace(PEER, host="x", command=command))
    assert f"      {said}        550 5.1.1" in read(message(), about).text


def test_the_text_of_a_delay_says_until_when_it_is_tried() -> None:
    text = words(read(message(), DELAYED).text)
    assert "not been delivered yet" in text
    assert "need not send it again" in text
    assert "tried until Fri, 22 Jan 2027" in text
    assert "you will be told" in text
    silent = notice(reply=BUSY, action=Action.DELAYED, dsn=RecipientDsn(Notify.DELAY))
    assert "you will be told" not in words(read(message(), silent).text)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (DELIVERED, "It was delivered to the mailbox of: <iain@example.com> Whether"),
        (RELAYED, "for: <iain@example.com> (by way of mail.example.net (192.0.2.25)) That system"),
        (EXPANDED, "to all who get the mail for: <sales@example.com> You will not"),
    ],
)
def test_the_text_of_a_success(about: Notice, said: str) -> None:
    text = words(read(message(), about).text)
    assert said in text
    assert "NOT" not in text


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (b"Subject: =?utf-8?Q?gr=C3=BC=C3=9Fe?=\n =?iso-8859-1?Q?_dich?=", "grüße dich"),
        ("Subject: grüße".encode(), "grüße"),
        (b"subject: a\n\tb", "a b"),
        (b"Subject: =?nonsense?B?aGVsbG8=?=", "hello"),
        (b"Subject: =?utf-8?B?a?=", "=?utf-8?B?a?="),
        (b"Subject: =?utf-8?Q?a=0A=0Db=1B[31m?=", "a b [31m"),
        (b"Subject: " + b"x" * 5000, "x" * 200),
    ],
)
def test_the_text_shows_the_subject_as_the_sender_wrote_it(field: bytes, shown: str) -> None:
    made = read(message(content=memory_content(b"", field + b"\nX: y\n\n")))
    assert f"Subject: {shown}\n" in made.text


# What is returned


def test_a_small_message_comes_back_whole_and_untouched() -> None:
    odd = b"Subject: \xff\n broken\nno colon here\n\n\x01 8-bit \xfc\n--=x\n" + b"x" * 998
    made = submitted(message(content=memory_content(TRACE, odd)))
    assert made.envelope.eight_bit
    back = read_report(made.content.read())
    assert back.returned_type == "message/rfc822"
    assert back.returned == TRACE + odd


@pytest.mark.parametrize("odd", [b"\0", b"x" * 999, b"\xfc" * 999, b"x=\t\r" * 500], ids=len)
@pytest.mark.parametrize("utf8", [False, True])
def test_of_what_no_8bit_part_can_hold_the_header_comes_back(odd: bytes, *, utf8: bool) -> None:
    """The same hosts would refuse the report that refused the message."""
    header = b"Subject: \xff =\n broken \n.\nno colon here\n"
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    for head, body in ((header, b"hello\n" + odd + b"\n"), (header + odd + b"\n", b"hello\n")):
        about = message(content=memory_content(TRACE, head + b"\n" + body))
        made = submitted(asking(about, smtputf8=utf8, ret="FULL")).content.read()
        back = read_report(made)
        assert (back.returned_type, back.returned) == (kind, TRACE + head)
        assert odd not in made
        assert "The header of the message is attached" in words(back.text)


def test_a_report_is_8bit_if_its_text_is() -> None:
    content = memory_content(TRACE, b"Subject: =?utf-8?Q?gr=C3=BC=C3=9Fe?=\n\nHello.\n")
    made = submitted(message(content=content))
    assert made.envelope.eight_bit
    assert read_report(made.content.read()).header["Content-Transfer-Encoding"] == "8bit"
    assert read(message()).header["Content-Transfer-Encoding"] == "7bit"


HEADER = TRACE + BODY.partition(b"\n\n")[0] + b"\n"


@pytest.mark.parametrize(
    ("ret", "size", "about", "whole"),
    [
        ("", 10, FAILED, True),
        ("", WHOLE_MESSAGE, FAILED, False),
        ("FULL", WHOLE_MESSAGE, FAILED, True),
        ("FULL", WHOLE_IF_ASKED, FAILED, False),
        ("HDRS", 10, FAILED, False),
        ("FULL", 10, DELAYED, False),
        ("", 10, RELAYED, False),
        ("FULL", 10, DELIVERED, False),
    ],
)
def test_how_much_comes_back(
    tmp_path: Path, ret: str, size: int, about: Notice, *, whole: bool
) -> None:
    body = BODY + b"x\n" * (size // 2)
    spool = tmp_path / "spool"
    spool.write_bytes(body)
    for kept in (body, str(spool)):
        content = Content(TRACE, kept, len(body), body.count(b"\n"), HeaderFacts())
        made = read(asking(message(content=content), ret=ret), about)
        assert made.returned_type == ("message/rfc822" if whole else "text/rfc822-headers")
        assert made.returned == (TRACE + body if whole else HEADER)
        what = "The message" if whole else "The header of the message"
        assert f"{what} is attached" in words(made.text)


def test_a_failure_among_successes_may_bring_all_back() -> None:
    assert read(message(), DELIVERED, FAILED).returned_type == "message/rfc822"


@pytest.mark.parametrize(
    ("body", "comes_back"),
    [
        (b"\n" + b"x" * 99_999, TRACE),
        (b"A: b\n" * 20_000, None),
        (b"A" * 99_999, None),
    ],
)
def test_no_header_is_too_odd(body: bytes, comes_back: bytes | None) -> None:
    octets = read(message(content=memory_content(TRACE, body))).returned
    assert (TRACE + body).startswith(octets)
    assert len(octets) <= MAX_HEADER
    assert comes_back in (None, octets)


def test_a_body_that_cannot_be_read_does_not_stop_its_report(tmp_path: Path) -> None:
    gone = Content(TRACE, str(tmp_path / "gone"), 99, 1, HeaderFacts())
    assert read(message(content=gone)).returned == TRACE


def test_of_a_message_that_has_become_short_the_header_comes_back(tmp_path: Path) -> None:
    body = BODY + b"x\n" * WHOLE_MESSAGE
    spool = tmp_path / "spool"
    spool.write_bytes(body[:-1])
    content = Content(TRACE, str(spool), len(body), body.count(b"\n"), HeaderFacts())
    made = read(asking(message(content=content), ret="FULL"))
    assert (made.returned_type, made.returned) == ("text/rfc822-headers", HEADER)
    assert "In-Reply-To" in made.header


def test_the_boundary_is_in_no_part() -> None:
    spoof = memory_content(b"", b"A: b\n\n--=0=id2--\n--=1=id2\n")
    assert read(message(content=spoof)).header.get_boundary() == "=2=id2"


# To whom


def test_a_bounce_of_a_bounce_is_dropped_unless_somebody_wants_it() -> None:
    assert isinstance(report(message(NULL_REVERSE_PATH)), Undeliverable)
    postmaster = Queue(doublebounceto="Postmaster@example.com")
    made = report(message(NULL_REVERSE_PATH), settings=postmaster)
    assert isinstance(made, Submission)
    assert made.envelope.recipients == (Address("Postmaster", "example.com"),)
    assert made.envelope.reverse_path == NULL_REVERSE_PATH
    back = read_report(made.content.read())
    assert back.header["Subject"] == "A report could not be delivered"
    assert "without a sender's address" in words(back.text)
    third = message(NULL_REVERSE_PATH, accepted_for=Address("postmaster", "example.com"))
    assert isinstance(report(third, settings=postmaster), Undeliverable)


def test_bouncefrom_and_its_default_host() -> None:
    made = report(message(), settings=Queue(bouncefrom="bounces"))
    assert isinstance(made, Submission)
    header = read_report(made.content.read()).header
    assert header["From"] == "Mail Delivery System <bounces@mx.example.com>"


def test_a_doublebounceto_that_is_no_address_is_refused() -> None:
    with pytest.raises(AddressSyntaxError):
        DsnReporter(Queue(doublebounceto="no address"), "mx.example.com")


# Hostile content

EVERYTHING = st.characters(exclude_categories=())
"""Surrogates, too: what a decoder makes of octets that are no UTF-8."""
ANY = st.text(EVERYTHING, max_size=60)


@given(
    reply=st.text(EVERYTHING, max_size=2000),
    topic=ANY,
    address=st.text(EVERYTHING, min_size=1, max_size=40),
    trail=ANY,
    orcpt=ANY,
    peer=st.builds(Peer, ANY, ANY, ANY),
    action=st.sampled_from(Action),
    body=st.binary(max_size=300),
    subject=st.one_of(
        st.binary(max_size=60),
        st.from_regex(rb"(=\?[a-z0-9-]{0,9}\?[QB]\?[!-~]{0,30}\?= ?){1,3}", fullmatch=True),
    ),
    local=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
)
def test_nothing_in_the_mail_can_break_its_report(
    reply: str,
    topic: str,
    address: str,
    trail: str,
    orcpt: str,
    peer: Peer,
    action: Action,
    body: bytes,
    subject: bytes,
    local: str,
) -> None:
    """Invariant: whatever others wrote, three parts, known fields, and lines SMTP can carry."""
    dsn = RecipientDsn(None, f"rfc822;{orcpt}" if orcpt else "")
    about = notice(address, Reply(550, topic, reply), action, trail, peer=peer, dsn=dsn)
    header = b"Subject: " + subject + b"\n"
    queued = message(Address(local, "example.org"), memory_content(b"", header + body))
    made = submitted(queued, about)
    human, machine, returned = made.content.read().split(b"\n--=0=id2")[1:4]
    assert local.isascii() <= machine.isascii()
    fields, _, quoted = returned.partition(b"\n\n")
    if fields.endswith(b"quoted-printable"):
        quoted = a2b_qp(quoted)
    assert (header + body).startswith(quoted.rstrip(b"\n"))
    for part in (human, machine):
        assert max(len(line) for line in part.split(b"\n")) <= 998
    blocks = machine.partition(b"\n\n")[2].rstrip(b"\n").split(b"\n\n")
    lines = [line for line in blocks[1].split(b"\n") if not line.startswith(b" ")]
    names = [line.split(b":")[0] for line in lines]
    assert len(blocks) == 2
    assert names == [
        name
        for name, there in [
            (b"Original-Recipient", bool(orcpt)),
            (b"Final-Recipient", True),
            (b"Action", True),
            (b"Status", True),
            (b"Remote-MTA", bool(peer.host)),
            (b"Diagnostic-Code", action in (Action.FAILED, Action.DELAYED)),
            (b"Last-Attempt-Date", True),
            (b"Final-Log-Id", True),
            (b"Will-Retry-Until", action is Action.DELAYED),
        ]
        if there
    ]


@given(st.text(EVERYTHING, max_size=300), st.text(EVERYTHING, min_size=1, max_size=60))
def test_nobody_speaks_in_the_reports_own_voice(reply: str, address: str) -> None:
    """Invariant: what others wrote never begins a line; ours do not depend on it."""
    about = notice(address, Reply(550, "1.1", reply), Action.FAILED, address, peer=PEER)
    text = submitted(message(), about).content.read().split(b"\n--=0=id2")[1].decode()
    ours = [line for line in text.splitlines() if line[:1] not in ("", " ")]
    plain = submitted(message(), FAILED).content.read().split(b"\n--=0=id2")[1].decode()
    encoding = "Content-Transfer-Encoding: "
    assert [line for line in ours if not line.startswith(encoding)] == [
        line for line in plain.splitlines() if line[:1] not in ("", " ") and encoding not in line
    ]
