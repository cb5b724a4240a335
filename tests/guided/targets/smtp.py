"""SMTP, what a client may send: whole sessions, command lines, contents."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import count

from restante.address import MAX_LOCAL_PART, NULL_REVERSE_PATH, Address, fold
from restante.address_syntax import split_mailbox
from restante.envelope import NO_DSN
from restante.protocol.sasl import MAX_LINE, MECHANISMS
from restante.protocol.smtp import dsn
from restante.protocol.smtp.body import (
    END_OF_DATA,
    ChunkDecoder,
    ContentText,
    DataDecoder,
    Fault,
)
from restante.protocol.smtp.grammar import (
    Refused,
    parse_bdat,
    parse_command,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from restante.protocol.smtp.profile import Extension, Limits, Profile
from restante.status import Reply
from tests.guided.target import Choices, Target, cut
from tests.support.smtp_core import HOST, Record, ScriptedDriver

LIMITS = Limits(
    max_command_line=512,
    max_text_line=100,
    databytes=200,
    max_recipients=3,
    max_errors=10,
)
OPEN = Profile(HOST, limits=LIMITS)
PLAIN = Profile(
    HOST, limits=LIMITS, extensions=tuple(Extension), plaintext_auth=True, requires_auth=True
)
SCRAM = Profile(
    HOST, limits=LIMITS, extensions=tuple(Extension), plaintext_auth=True, mechanisms=MECHANISMS
)
ANSWERS = (
    Reply(250, "0.0", "ok"),
    Reply(550, "1.1", "no"),
    Reply(451, "3.0", "later"),
    Reply(421, "3.2", "bye"),
)
REPLY_LINE = re.compile(r"[245][0-9][0-9][ -][ -~]*|3[35]4[ -][ -~]*")

OPENING = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
PLAIN_LOGIN = b"EHLO c\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n"
SCRAM_LOGIN = b"EHLO c\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9bm9uY2U=\r\n"
SESSIONS = (
    OPENING + b"DATA\r\nA: 1\r\n\r\n..x\r\n.\r\nQUIT\r\n",
    OPENING + b"BDAT 5\r\nx\r\ny\r\nBDAT 4 LAST\r\n\r\nz\nNOOP\r\nRSET\r\nVRFY x\r\nHELP\r\n",
    OPENING + b"RCPT TO:<postmaster>\r\nRCPT TO:<\xc3\xa9@d.example>\r\nRSET\r\nDATA\r\n",
    b"HELO c\r\nMAIL FROM:<> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n",
    (
        b"EHLO c\r\nMAIL FROM:<\xc3\xa9@b.example> SMTPUTF8 RET=HDRS ENVID=a+20b\r\n"
        b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\\x{E9}@d\r\nDATA\r\n.\r\n"
    ),
    PLAIN_LOGIN + OPENING + b"DATA\r\nx\r\n.\r\n",
    b"EHLO c\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\nMAIL FROM:<a@b.example> AUTH=<>\r\n",
    SCRAM_LOGIN + b"*\r\nSTARTTLS\r\n",
    b"EHLO c\r\nSTARTTLS\r\n" + SCRAM_LOGIN,
    b"GET / HTTP/1.1\r\n",
    b"QUIT\r\n" + b"NOOP\r\n" * 200,
)
WORDS = (
    b"EHLO c\r\n", b"HELO c\r\n", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>\r\n", b" SIZE=10",
    b" BODY=8BITMIME", b" SMTPUTF8", b"RCPT TO:<c@d.example>\r\n", b"RCPT TO:<", b"DATA\r\n",
    b"\r\n.\r\n", b"\n.\n", b"\r\n", b"\r", b"\n", b".", b"BDAT 5\r\n", b"BDAT 5 LAST\r\n",
    b"BDAT 0 LAST\r\n", b"RSET\r\n", b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"AGFubgBzZWNyZXQ=\r\n",
    b"STARTTLS\r\n", b"YW5u\r\n", b"*\r\n", b"NOOP\r\n", b"VRFY ", b"HELP\r\n", b"QUIT\r\n",
    b" RET=HDRS", b" ENVID=", b" NOTIFY=NEVER", b" ORCPT=rfc822;", b" ORCPT=utf-8;", b" AUTH=<>",
    b"\\x{E9}", b"+20", b"\xc3\xa9", b'"', b"\\", b"<", b">", b"@", b":", b"@a,@b:", b"[127.0.0.1]",
)  # fmt: skip


def smtp_session(data: bytes) -> None:
    """A session: whole reply lines, bounded buffers, an end, and the same however it is cut."""
    choices = Choices(data)
    profile, pattern, size = choices.one_of((OPEN, PLAIN)), choices.octet(), choices.octet() % 40
    whole = _converse(profile, pattern, choices.rest, 0)
    if profile is not OPEN and b"STARTTLS" in choices.rest.upper():
        return  # what comes with it in one piece came in clear text, and is refused
    pieces = _converse(profile, pattern, choices.rest, size + 1)
    assert pieces.output == whole.output
    assert _events(pieces) == _events(whole)
    assert pieces.bodies == whole.bodies


def smtp_scram_session(data: bytes) -> None:
    """A session with SCRAM, of which no two are alike: whole reply lines, bounds and an end."""
    choices = Choices(data)
    _converse(SCRAM, choices.octet(), choices.rest, choices.octet() % 40)


def _converse(profile: Profile, pattern: int, traffic: bytes, size: int) -> Record:
    driver = ScriptedDriver(profile, _answers(pattern))
    for piece in cut(traffic, size):
        driver.feed(piece)
        assert len(driver.core._input) <= profile.longest_line <= MAX_LINE
    record = driver.finish()
    assert all(map(REPLY_LINE.fullmatch, record.lines))
    assert record.output.endswith(b"\r\n")
    assert all(len(body) <= LIMITS.databytes for body in record.bodies)
    return record


def _events(record: Record) -> list[str]:
    """Without the recipients before an end by this side: it may look ahead, or not."""
    *events, closed = record.events
    if closed not in {"Closed lost", "Closed quit"}:
        while events and events[-1].startswith("Rcpt "):
            events.pop()
    return [*events, closed]


def _answers(pattern: int) -> Iterator[Reply]:
    """By two bits each, again and again."""
    return (ANSWERS[pattern >> 2 * (number % 4) & 3] for number in count())


def smtp_command(data: bytes) -> None:
    """A command line: a verb and what it means, or a reply; addresses by both ways."""
    try:
        verb, argument = parse_command(data + b"\r\n")
    except Refused as refused:
        assert REPLY_LINE.fullmatch(refused.reply.encode().decode()[:-2])
        return
    for smtputf8 in (False, True):
        _obey(verb.value, argument, smtputf8=smtputf8)


def _obey(verb: str, argument: str, *, smtputf8: bool) -> None:
    try:
        if verb in {"HELO", "EHLO"}:
            assert parse_hello(argument).isascii()
        elif verb == "BDAT":
            assert parse_bdat(argument).size >= 0
        elif verb == "MAIL":
            path, parameters = parse_mail(argument)
            assert len(parameters.envid) <= dsn.MAX_ENVID
            if parameters.envid:
                assert dsn.parse_envid(dsn.encode_xtext(parameters.envid)) == parameters.envid
            if isinstance(path, Address):
                _check_address(path, smtputf8=parameters.smtputf8)
            else:
                assert path is NULL_REVERSE_PATH
        elif verb == "RCPT":
            rcpt = parse_rcpt(argument, smtputf8=smtputf8)
            _check_address(rcpt.address, smtputf8=smtputf8)
            assert rcpt.dsn is NO_DSN or rcpt.dsn != NO_DSN
    except Refused as refused:
        assert REPLY_LINE.fullmatch(refused.reply.encode().decode()[:-2])


def _check_address(address: Address, *, smtputf8: bool) -> None:
    assert smtputf8 or address.is_ascii
    assert len(address.local.encode()) <= MAX_LOCAL_PART
    mailbox = address.to_mailbox()
    local, domain = split_mailbox(mailbox)
    assert Address(local, fold(domain)) == Address.parse(mailbox) == address
    assert Address.from_stored(str(address)) == address


def smtp_dsn_parameters(data: bytes) -> None:
    """ENVID, ORCPT, NOTIFY and RET: what is taken is passed on in the form that it is taken in."""
    choices = Choices(data)
    smtputf8 = bool(choices.octet() & 1)
    value = choices.rest.decode("utf-8", "replace")
    try:
        envid = dsn.parse_envid(value)
        assert dsn.parse_envid(dsn.encode_xtext(envid)) == envid
    except dsn.DsnSyntaxError:
        pass
    try:
        orcpt = dsn.parse_orcpt(value, smtputf8=smtputf8)
        passed_on = dsn.encode_orcpt(orcpt)
        assert passed_on.isascii()
        assert len(passed_on) <= dsn.MAX_ORCPT
        assert dsn.parse_orcpt(passed_on, smtputf8=False) == orcpt
    except dsn.DsnSyntaxError:
        pass
    for parse in (dsn.parse_notify, dsn.parse_ret):
        with contextlib.suppress(dsn.DsnSyntaxError):
            parse(value)


def smtp_data(data: bytes) -> None:
    """What follows DATA: the text, the first fault and the end, as line after line has it."""
    size, wire = Choices(data).octet() % 40, data[1:]
    decoder = DataDecoder(ContentText(LIMITS.databytes, LIMITS.max_text_line))
    text, lines, block = b"", 0, b""
    used = 0
    for piece in cut(wire, size):
        block += piece
        given, start = decoder.feed(block, 0)
        text += given
        lines += decoder.text.lines if given else 0
        used, block = used + start, block[start:]
        if decoder.done:
            break
        assert len(block) < len(END_OF_DATA)
    content, end = _content_of(wire)
    assert decoder.done == (end is not None)
    if end is None:
        return
    assert used == end
    fault = _fault_of(content)
    assert decoder.text.fault is fault
    if fault is None:
        assert text == content.replace(b"\r\n", b"\n")
        assert lines == text.count(b"\n")


def _content_of(wire: bytes) -> tuple[bytes, int | None]:
    """The content without stuffed dots, and where its end ends (RFC 5321 §4.5.2)."""
    at = (b"\r\n" + wire).find(END_OF_DATA)
    if at < 0:
        return b"", None
    lines = wire[:at].split(b"\r\n")
    return b"\r\n".join(line.removeprefix(b".") for line in lines), at + len(END_OF_DATA) - 2


def _fault_of(content: bytes) -> Fault | None:
    lines = content.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line for line in lines):
        return Fault.BARE_LINE_END
    if len(content) > LIMITS.databytes:
        return Fault.TOO_BIG
    too_long = any(len(line) + len(b"\r\n") > LIMITS.max_text_line for line in lines)
    return Fault.LONG_LINE if too_long else None


def smtp_chunks(data: bytes) -> None:
    """What BDAT brings: one text and one fault however it is cut; nothing is unstuffed."""
    size, wire = Choices(data).octet() % 40, data[1:]
    decoder = ChunkDecoder(ContentText(LIMITS.databytes, LIMITS.max_text_line))
    text = b"".join([decoder.feed(piece) for piece in cut(wire, size)]) + decoder.finish()
    fault = _fault_of(wire)
    assert decoder.text.fault is fault
    if fault is None:
        ended = wire if not wire or wire.endswith(b"\r\n") else wire + b"\r\n"
        assert text == ended.replace(b"\r\n", b"\n")


CONTENTS = (
    b"\0.\r\n",
    b"\0A: 1\r\n\r\n..x\r\n.\r\nNOOP\r\n",
    b"\3..\r\n.\r\n",
    b"\1a\r\n.b\r\n\r\n.\r\n",
    b"\2a\nb\r\n.\r\n",
    b"\5" + b"x" * 98 + b"\r\n" + b"y" * 97 + b"\r\n.\r\n",
)
CONTENT_WORDS = (b"\r\n.\r\n", b"\r\n", b"\r\n.", b".", b"..", b"\n.\n", b"\r.\r", b"x" * 60)
ADDRESSES = (b"<a@b.example>", b'<"a b\\"c"@b.example>', b"<a@[192.0.2.1]>", b"<postmaster>")

TARGETS = (
    Target(
        smtp_session,
        [bytes([number, 0, number]) + each for number, each in enumerate(SESSIONS)],
        WORDS,
    ),
    Target(smtp_scram_session, [b"\0\0" + each for each in SESSIONS], WORDS),
    Target(
        smtp_command,
        [line for session in SESSIONS for line in session.split(b"\r\n") if line]
        + [b"RCPT TO:" + address for address in ADDRESSES]
        + [b"MAIL FROM:@a,@b:<x@y.example>"],
        WORDS,
        longest=600,
    ),
    Target(
        smtp_dsn_parameters,
        [
            b"\0a+20b", b"\0rfc822;a+40b.example", b"\1utf-8;\xc3\xa9@b", b"\0utf-8;\\x{E9}@b",
            b"\0SUCCESS,FAILURE,DELAY", b"\0NEVER", b"\0HDRS",
        ],
        WORDS,
        longest=600,
    ),
    Target(smtp_data, CONTENTS, CONTENT_WORDS, longest=400),
    Target(smtp_chunks, CONTENTS, CONTENT_WORDS, longest=400),
)  # fmt: skip
