"""SMTP, what another host may say, and what goes to it."""

from __future__ import annotations

from restante.address import MAX_PATH, Address
from restante.envelope import Notify, RecipientDsn
from restante.protocol.smtp import client_commands as commands
from restante.protocol.smtp.client_content import ChunkEncoder, DataEncoder
from restante.protocol.smtp.client_events import Extensions, OutgoingMessage, OutgoingRecipient
from restante.protocol.smtp.client_reply import (
    MAX_LINE,
    MAX_LINES,
    MAX_REPLY,
    NotAReply,
    ReplyReader,
)
from restante.protocol.smtp.grammar import parse_command, parse_mail, parse_rcpt
from restante.status import Reply
from tests.guided.target import Choices, Target, cut
from tests.support.smtp_core import run_core
from tests.support.smtp_walker import BLOCK, Walker, walk

ACTIONS = ("send", "content", "tls", "PLAIN", "LOGIN", "end")
HELLO = b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
GREETING = b"220 hi\r\n" + HELLO
WORDS = (
    b"220 hi\r\n", b"250 ok\r\n", b"250 2.1.5 ok\r\n", b"251 x\r\n", b"250-mx\r\n", b"250\r\n",
    b"235 in\r\n", b"334 bW9yZQ==\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"450 no\r\n",
    b"452 4.5.3 many\r\n", b"550 5.1.1 no\r\n", b"552 5.3.4 big\r\n", b"503 what\r\n",
    b"550-5.1.1 no\r\n", b"250-SIZE 100\r\n", b"250-AUTH=PLAIN\r\n", b"250-DSN\r\n",
    b"250-SMTPUTF8\r\n", b"250-8BITMIME\r\n", b"\r", b"\n", b"\r\n", b"-", b" ", b"\0", b"\xff",
)  # fmt: skip


def smtp_client(data: bytes) -> None:
    """Another host: bounded buffers, one result a recipient, an end, the same however it is cut."""
    choices = Choices(data)
    actions = [ACTIONS[octet % len(ACTIONS)] for octet in choices.take(8)]
    size = choices.octet() % 40 + 1
    said = [b"220 hi\r\n", *cut(choices.rest, BLOCK)] if choices.octet() & 1 else [choices.rest]
    whole = walk(actions, said, lambda block: [block])
    pieces: Walker = walk(actions, said, lambda block: list(cut(block, size)))
    assert pieces.events == whole.events
    assert pieces.sent == whole.sent


def smtp_reply(data: bytes) -> None:
    """Replies: bounded, fit for a log, the same however they are cut and written again."""
    size, said = Choices(data).octet() % 40 + 1, data[1:]
    whole, pieces = _read([said]), _read(cut(said, size))
    assert whole == pieces
    for reply in whole:
        if not isinstance(reply, Reply):
            assert reply.isprintable()
            continue
        lines = reply.text.split("\n")
        assert len(lines) <= MAX_LINES
        assert all(map(str.isprintable, lines))
        assert len(reply.text) <= MAX_REPLY
        if reply.code // 100 in (2, 4, 5):
            (again,) = _read([reply.encode()])
            assert isinstance(again, Reply)
            assert again.code == reply.code
        extensions = commands.parse_extensions(reply.text)
        assert extensions.size is None or extensions.size >= 0


def _read(pieces: object) -> list[Reply | str]:
    reader, found = ReplyReader(), list[Reply | str]()
    for piece in pieces:  # type: ignore[attr-defined]
        reader.feed(piece)
        try:
            while (reply := reader.next_reply()) is not None:
                found.append(reply)
        except NotAReply as error:
            return [*found, str(error)]
        assert len(reader._block) <= MAX_LINE
    return found


def smtp_content_out(data: bytes) -> None:
    """A content that is sent arrives as it was, but for CRs, whichever way it is sent."""
    size, content = Choices(data).octet() % 40, data[1:]
    stuffed, chunks = DataEncoder(), ChunkEncoder()
    dotted = b"".join(map(stuffed.feed, cut(content, size))) + stuffed.finish()
    counted = b"".join(map(chunks.feed, cut(content, size))) + chunks.finish()
    text = content.replace(b"\r", b"")
    arrived = text if not text or text.endswith(b"\n") else text + b"\n"
    opening = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    assert run_core([opening + b"DATA\r\n" + dotted]).bodies == [arrived]
    assert run_core([opening + counted]).bodies == [arrived]


def smtp_envelope_out(data: bytes) -> None:
    """MAIL and RCPT that are sent mean to a server what they were to mean."""
    choices = Choices(data)
    offered = Extensions(
        extended=True, size=0, eight_bit=True, smtputf8=True, dsn=bool(choices.octet() & 1)
    )
    notify = Notify(choices.octet() % 8)
    envid, orcpt = choices.take(20), choices.take(20)
    try:
        address = Address.parse(choices.rest.decode("utf-8", "replace"))
    except ValueError:
        return
    if set('"<>').intersection(address.domain):
        return  # in a literal of a kind that does not exist, which a server need not read
    if len(address.to_path().encode()) > MAX_PATH:
        return  # a server need not take it
    dsn = RecipientDsn(notify, f"utf-8;{_printable(orcpt)}" if orcpt else "")
    message = OutgoingMessage(
        address, (OutgoingRecipient(address, dsn),), 7, eight_bit=True, envid=_ascii(envid)
    )
    mail = commands.mail(message, offered, smtputf8=True)
    rcpt = commands.rcpt(0, message.recipients[0], offered)
    sender, parameters = parse_mail(parse_command(mail.wire)[1])
    recipient = parse_rcpt(parse_command(rcpt.wire)[1], smtputf8=True)
    assert sender == recipient.address == address
    assert (parameters.size, parameters.eight_bit, parameters.smtputf8) == (7, True, True)
    if offered.dsn:
        assert parameters.envid == message.envid
        assert recipient.dsn == dsn


def _ascii(octets: bytes) -> str:
    return "".join(chr(0x20 + octet % 95) for octet in octets)


def _printable(octets: bytes) -> str:
    text = octets.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)


ANSWERS = (
    GREETING
    + b"250 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n451 later\r\n354 go\r\n250 2.0.0 ok\r\n221 x\r\n",
    GREETING + b"334 \r\n334 \r\n235 2.7.0 in\r\n250 ok\r\n452 4.5.3 many\r\n503 what\r\n",
    b"554 no\r\n",
    b"220-hi\r\n220 hi\r\n500 what\r\n250 mx\r\n250 ok\r\n250 ok\r\n421 4.3.2 bye\r\n",
)
TARGETS = (
    Target(smtp_client, [b"\4\0\1\2\5\3\1" + each for each in ANSWERS], WORDS, longest=1000),
    Target(smtp_reply, [b"\3" + each for each in (*ANSWERS, *WORDS)], WORDS),
    Target(
        smtp_content_out,
        [b"\0", b"\1.\n..\n.\n", b"\2A: 1\n\nx", b"\5a\r\n.\r\nb", b"\0\n.\r\n\xff"],
        (b".", b"\n.\n", b"\n", b"\r", b"\r\n.\r\n", b"x" * 50),
        longest=400,
    ),
    Target(
        smtp_envelope_out,
        [b"\1\3\3a b\4\xc3\xa9@ba@b.example", b'\1\0\0\0"a b"@b.example', b"\0\0\0\0a@[192.0.2.1]"],
        (b"@b.example", b'"', b"\\", b"\xc3\xa9", b" ", b"+", b"=", b";"),
        longest=200,
    ),
)
