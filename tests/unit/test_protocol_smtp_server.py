"""What golden dialogs cannot show: batches, bounds and the driver's side of the core."""

from __future__ import annotations

import pytest

from restante.protocol.smtp.events import (
    Authenticate,
    Closed,
    CloseReason,
    MailRefused,
    StartTls,
    Wait,
)
from restante.protocol.smtp.profile import OUT_OF_ORDER, Extension, Limits, Profile, State
from restante.protocol.smtp.replies import PARAMETER_UNKNOWN
from restante.protocol.smtp.server import MAX_UNSENT, SmtpServer
from restante.status import Reply
from tests.support.smtp_core import HOST, run_core

ENVELOPE = b"EHLO c\r\nMAIL FROM:<a@a.example>\r\n"


def recipients(count: int) -> bytes:
    """So many RCPT commands."""
    return b"".join(b"RCPT TO:<u%d@b.example>\r\n" % number for number in range(count))


def test_pipelined_recipients_come_in_one_batch() -> None:
    record = run_core([ENVELOPE + recipients(200) + b"DATA\r\nx\r\n.\r\n"])
    assert record.most_at_once == 200
    assert record.bodies == [b"x\n"]


def test_a_batch_is_no_larger_than_the_recipients_allowed() -> None:
    record = run_core([ENVELOPE + recipients(50)], Limits(max_recipients=10))
    assert record.most_at_once == 10
    assert sum(line.startswith("452 4.5.3") for line in record.lines) == 40


def test_refused_recipients_leave_room_for_others() -> None:
    answers = [Reply(250, "0.0", "ok")] + [Reply(451, "3.0", "no"), Reply(250, "1.5", "ok")] * 4
    record = run_core([ENVELOPE + recipients(8)], Limits(max_recipients=4), answers)
    assert [line[:3] for line in record.lines[-8:]] == ["451", "250"] * 4


def test_too_many_recipients_are_told_of_once_a_message() -> None:
    """They are no errors, so nothing else bounds what an operator reads of them."""
    message = ENVELOPE[8:] + recipients(50) + b"RSET\r\n"
    record = run_core([b"EHLO c\r\n" + message * 2], Limits(max_recipients=10))
    refused = [event for event in record.events if event.startswith("RcptRefused")]
    assert refused == ["RcptRefused u10@b.example 452 4.5.3"] * 2


def test_refusals_are_told_of_no_more_often_than_errors_are_allowed() -> None:
    record = run_core([ENVELOPE + recipients(2) + b"RCPT TO:<bad\r\n" * 500], Limits(max_errors=5))
    refused = [event for event in record.events if event.startswith("RcptRefused")]
    assert refused == ["RcptRefused TO:<bad 501 5.5.2"] * 6


def test_a_path_that_is_none_is_told_of_in_brief() -> None:
    record = run_core([b"EHLO c\r\nMAIL FROM:<" + b"x" * 3000 + b"\r\n"])
    assert record.events[0] == f"MailRefused {'FROM:<' + 'x' * 250} 501 5.5.2"


def test_paths_that_are_no_text_are_told_of() -> None:
    record = run_core(
        [
            b"EHLO c\r\nMAIL FROM:<m\xfcller@a.example>\r\nRCPT TO:<\xf6@b.example>\r\n",
            ENVELOPE[8:],
            b"RCPT TO:<j\xf6rg@b.example>\r\nRCPT TO:<a@b.example\n",
        ]
    )
    assert [event for event in record.events if "Refused" in event] == [
        "MailRefused m\N{REPLACEMENT CHARACTER}ller@a.example 500 5.5.2",
        "RcptRefused j\N{REPLACEMENT CHARACTER}rg@b.example 500 5.5.2",
        "RcptRefused TO:<a@b.example 500 5.5.2",
    ]


def test_commands_out_of_order_are_not_told_of() -> None:
    record = run_core([b"MAIL FROM:<>\r\nEHLO c\r\nRCPT TO:<b@b.example>\r\n"])
    assert record.events == ["Closed lost"]


@pytest.mark.parametrize("content", [b"DATA\r\n", b"BDAT 1 LAST\r\nx"])
def test_content_for_recipients_put_off_is_put_off(content: bytes) -> None:
    """A database that is away must not look like a permanent failure to a client that pipelines."""
    ok, unknown = Reply(250, "0.0", "ok"), Reply(550, "1.1", "no")
    record = run_core(
        [ENVELOPE + recipients(2) + content], answers=[ok, unknown, Reply(451, "3.0", "later")]
    )
    assert [line[:9] for line in record.lines[-2:]] == ["451 4.3.0", "451 4.5.1"]
    record = run_core([ENVELOPE + recipients(2) + content], answers=[ok, unknown, unknown])
    assert record.lines[-1].startswith("554 5.5.1")


def test_errors_end_a_session_even_in_a_batch() -> None:
    answers = [Reply(250, "0.0", "ok")] + [Reply(550, "1.1", "no")] * 30
    record = run_core([ENVELOPE + recipients(30)], Limits(max_errors=5), answers)
    assert [line[:3] for line in record.lines[-6:]] == ["550"] * 5 + ["421"]
    assert record.events[-1] == "Closed too many errors"


def test_an_accepted_message_forgives_the_errors_before_it() -> None:
    message = b"MAIL FROM:<>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx\r\n.\r\n"
    record = run_core([b"EHLO c\r\n" + (b"FOO\r\n" * 2 + message) * 5], Limits(max_errors=2))
    assert len(record.bodies) == 5


def test_an_accepted_message_is_never_answered_with_421() -> None:
    chunk = b"MAIL FROM:<>\r\nRCPT TO:<b@b.example>\r\nFOO\r\nBDAT 1 LAST\r\nx"
    record = run_core([b"EHLO c\r\n" + chunk], Limits(max_errors=1))
    assert record.lines[-1].startswith("250")


def test_replies_to_a_flood_of_commands_are_bounded() -> None:
    core = SmtpServer(Profile(HOST))
    core.receive(b"EHLO c\r\n" * 20_000)
    most = rounds = 0
    while core.next_event() is Wait.NEED_SEND:
        most = max(most, len(core.outgoing()))
        rounds += 1
    assert rounds > 10
    assert most < MAX_UNSENT + 1024


def test_after_the_end_nothing_happens() -> None:
    core = SmtpServer(Profile(HOST))
    core.receive(b"QUIT\r\nNOOP\r\n")
    closed = Closed(CloseReason.QUIT)
    assert [core.next_event(), core.next_event()] == [closed, closed]
    assert core.outgoing() == b"221 2.0.0 Bye\r\n"
    core.reply(Reply(250, "0.0", "late"))
    core.close(Reply(421, "4.2", "late"))
    assert core.outgoing() == b""


def test_the_driver_can_end_the_session() -> None:
    core = SmtpServer(Profile(HOST))
    core.close(Reply(421, "4.2", "Timeout"))
    assert core.next_event() == Closed(CloseReason.REFUSED)
    assert core.outgoing() == b"421 4.4.2 Timeout\r\n"


def test_what_is_not_offered_is_not_done() -> None:
    core = SmtpServer(Profile(HOST, extensions=(Extension.PIPELINING,)))
    core.receive(ENVELOPE[:8] + b"BDAT 1 LAST\r\nMAIL FROM:<> SMTPUTF8\r\nMAIL FROM:<> SIZE=1\r\n")
    assert [core.next_event(), core.next_event()] == [
        MailRefused("", PARAMETER_UNKNOWN),
        MailRefused("", PARAMETER_UNKNOWN),
    ]
    assert core.next_event() is Wait.NEED_DATA
    assert core.outgoing().decode().splitlines() == [
        f"250-{HOST}",
        "250-PIPELINING",
        "250 HELP",
        "502 5.5.1 Command not implemented",
        "555 5.5.4 Unsupported parameter",
        "555 5.5.4 Unsupported parameter",
    ]


def test_greeting_text() -> None:
    assert SmtpServer(Profile(HOST, "hello")).greet() == b"220 mx.example hello\r\n"


@pytest.mark.parametrize("orders", OUT_OF_ORDER.values())
def test_every_refusal_for_order_is_a_503(orders: dict[State, Reply]) -> None:
    assert {(reply.code, reply.enhanced) for reply in orders.values()} == {(503, "5.5.1")}


TLS = Profile(HOST, extensions=tuple(Extension))


def test_commands_behind_starttls_are_never_obeyed() -> None:
    """CVE-2011-0411: they came in clear text, and anybody on the way may have written them."""
    core = SmtpServer(TLS)
    core.receive(b"EHLO c\r\n")
    assert core.next_event() is Wait.NEED_DATA
    core.outgoing()
    core.receive(b"STARTTLS\r\nEHLO evil\r\n")
    assert core.next_event() == Closed(CloseReason.OUT_OF_SYNC)
    assert core.outgoing().startswith(b"503 5.5.1 Nothing may follow STARTTLS")


@pytest.mark.parametrize("injected", [b"EHLO evil\r\nMAIL FROM:<>\r\n", b"x" * 20_000, b"E"])
def test_octets_from_before_the_handshake_are_forgotten(injected: bytes) -> None:
    core = SmtpServer(TLS)
    core.receive(b"EHLO c\r\nSTARTTLS\r\n")
    assert core.next_event() == StartTls()
    core.receive(injected)
    assert core.next_event() is Wait.NEED_REPLY
    core.outgoing()
    core.tls_started()
    assert core.next_event() is Wait.NEED_DATA
    core.receive(b"NOOP\r\n")
    assert core.next_event() is Wait.NEED_DATA
    assert core.outgoing() == b"250 2.0.0 Ok\r\n"


def test_a_password_is_not_printed() -> None:
    assert "secret" not in repr(Authenticate("iain", "secret", "PLAIN"))


def test_only_auth_may_have_a_longer_line_than_other_commands() -> None:
    profile = Profile(HOST, extensions=(Extension.AUTH,), plaintext_auth=True)
    limit = profile.limits.max_command_line
    for command, told in ((b"NOOP", b"500 5.5.2 Line too long"), (b"AUTH PLAIN", b"501 5.5.2 ")):
        core = SmtpServer(profile)
        core.receive(b"EHLO c\r\n" + command.ljust(limit - 1, b" ") + b"x\r\n")
        assert core.next_event() is Wait.NEED_DATA
        assert core.outgoing().splitlines()[-1].startswith(told)
