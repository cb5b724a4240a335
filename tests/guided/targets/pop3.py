"""POP3, what a client may send: whole sessions, and what goes back of messages."""

from __future__ import annotations

import re
from itertools import islice

from restante.protocol.pop3.events import (
    Closed,
    Login,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.lines import LineBuffer, TooLong
from restante.protocol.pop3.listing import Listing
from restante.protocol.pop3.message import TopCut, WireEncoder, whole
from restante.protocol.pop3.profile import Limits, Profile
from restante.protocol.pop3.server import FLUSH_AT, MAX_RESPONSE_LINE, Pop3Server
from restante.protocol.sasl import MECHANISMS, ScramBegun, ScramDone, ScramProof
from restante.store.columns import Column
from tests.guided.target import Choices, Target, cut
from tests.support.pop3_dialog import Columns, Message, columns

MESSAGES = [
    Message("1700000001.a,S=8,W=12", b"A: 1\n\n.x\n\ny"),
    Message("2", b""),
    Message("3", b"A: 1\r\n\r\n.\r\nno end\r"),
    Message("4", b"A: 1\nB: 2\n\n" + b".\n" * 20),
]
LIMITS = Limits(max_command_line=64, max_auth_line=200, max_errors=10)
SECRET = "secret"
LARGEST_RESPONSE = 4096
"""Octets in any response about MESSAGES."""
FIRST_LINE = re.compile(rb"(?:\+OK|-ERR)(?: [^\x00-\x1f\x7f]*)?|\+ [!-~]*")


class _Session:
    """A core and its driver."""

    def __init__(self, profile: Profile, *, in_pieces: bool) -> None:
        """``in_pieces``: how messages are sent, by the long way or the short one."""
        self.core = Pop3Server(profile)
        self.said = self.core.greet()
        self.deleted: tuple[int, ...] | None = None
        self.closed: Closed | None = None
        self._in_pieces = in_pieces

    def hear(self, octets: bytes) -> None:
        self.core.receive(octets)
        self._work()
        assert self.closed or len(self.core._lines.octets) <= LIMITS.max_auth_line

    def end(self) -> None:
        self.core.receive_eof()
        self._work()
        assert self.closed is not None

    def _work(self) -> None:
        while self.closed is None:
            event = self.core.next_event()
            said = self.core.outgoing()
            assert len(said) < FLUSH_AT + LARGEST_RESPONSE
            self.said += said
            match event:
                case Need.DATA:
                    return
                case Closed():
                    self.closed = event
                case Need.ANSWER:
                    raise AssertionError("every event has been answered")
                case Need.FLUSH:
                    pass
                case _:
                    self._answer(event)
        self.said += self.core.outgoing()

    def _answer(self, event: object) -> None:
        match event:
            case Login(_, password, _) if password != SECRET:
                self.core.login_refused(ResponseCode.AUTH, "refused\r\n+OK")
            case Login() | ScramDone():
                self.core.login_accepted(columns(MESSAGES))
            case ScramBegun():
                self.core.scram_salt(b"salt", 4096)
            case ScramProof():
                self.core.scram_signature(b"signature")
            case Retrieve(index):
                self._send(MESSAGES[index].content, index)
            case StartTls():
                self.core.tls_started()
            case Update(deleted):
                self.deleted = deleted
                self.core.updated(bool(len(deleted) % 2))

    def _send(self, content: bytes, index: int) -> None:
        if index == 1:
            self.core.message_unavailable("gone")
        elif not self._in_pieces:
            self.core.send_message(content)
        else:
            for piece in cut(content, 3):
                if not self.core.send_message_chunk(piece):
                    break
            self.core.end_message()


def pop3_session(data: bytes) -> None:
    """A session: whole lines, bounds, an end, the same however octets and messages are cut."""
    choices = Choices(data)
    profile = choices.one_of(PROFILES)
    size, traffic = choices.octet() % 40 + 1, choices.rest
    one = _session(profile, [traffic], in_pieces=False)
    if b"STLS" in traffic.upper():
        return  # what comes with it in one piece came in clear text, and is refused
    if b"SCRAM" in traffic.upper():
        return  # no two nonces are alike
    other = _session(profile, cut(traffic, size), in_pieces=True)
    assert other.said == one.said
    assert (other.deleted, other.closed) == (one.deleted, one.closed)


def _session(profile: Profile, pieces: object, *, in_pieces: bool) -> _Session:
    session = _Session(profile, in_pieces=in_pieces)
    for piece in pieces:  # type: ignore[attr-defined]
        session.hear(piece)
    session.end()
    assert session.said.endswith(b"\r\n")
    for line in session.said.split(b"\r\n"):
        assert b"\n" not in line
        if FIRST_LINE.fullmatch(line):
            assert len(line) + 2 <= max(MAX_RESPONSE_LINE, LIMITS.max_auth_line)
    return session


def pop3_message(data: bytes) -> None:
    """A message on its way out: two ways agree, dots are stuffed, TOP cuts where it says."""
    choices = Choices(data)
    size, top, content = choices.octet() % 40, choices.octet() % 8, choices.rest
    encoder = WireEncoder()
    wire = b"".join(map(encoder.feed, cut(content, size))) + encoder.finish()
    assert b"".join(whole(content)) == wire == _stuffed(content)
    cutting = TopCut(top)
    passed = b""
    for piece in cut(content, size):
        passed += cutting.feed(piece)
    assert passed == _top(content, top)


def _stuffed(content: bytes) -> bytes:
    """Line by line (RFC 1939 §3)."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if not lines[-1]:
        del lines[-1]
    stuffed = (b"." + line if line.startswith(b".") else line for line in lines)
    return b"".join(line + b"\r\n" for line in stuffed) + b".\r\n"


def _top(content: bytes, count: int) -> bytes:
    """Line by line (RFC 1939 §7, TOP)."""
    lines = iter(content.splitlines(keepends=True) if b"\r" not in content else _lines(content))
    passed = []
    for line in lines:
        passed.append(line)
        if line in (b"\n", b"\r\n"):
            passed += islice(lines, count)
            break
    return b"".join(passed)


def _lines(content: bytes) -> list[bytes]:
    """Parted at LF alone."""
    parts = content.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]


def pop3_lines(data: bytes) -> None:
    """Lines: none is kept beyond its limit, and the same ones are found however they are cut."""
    choices = Choices(data)
    size, limit, octets = choices.octet() % 40 + 1, choices.octet() % 30 + 2, choices.rest
    lines = _taken(cut(octets, size), limit)
    expected = [
        TooLong.LINE if len(line) + 1 > limit else line.removesuffix(b"\r")
        for line in octets.split(b"\n")[:-1]
    ]
    assert lines == expected


def _taken(pieces: object, limit: int) -> list[bytes | TooLong]:
    buffer, found = LineBuffer(), list[bytes | TooLong]()
    for piece in pieces:  # type: ignore[attr-defined]
        buffer.feed(piece)
        while (line := buffer.take(limit)) is not None:
            found.append(line)
        assert len(buffer.octets) < limit
    return found


def pop3_listing(data: bytes) -> None:
    """LIST and UIDL: the lines of all that is not marked, numbered as they were."""
    choices = Choices(data)
    number = choices.octet() * (8 if choices.octet() & 1 else 1)
    marked = sorted({octet % number for octet in choices.rest}) if number else []
    uids = [b"%d-%d" % (n, n * 7919) for n in range(number)]
    sizes = [n * 31 for n in range(number)]
    listing = Listing(_Listed(Column(uids), sizes))
    for index in marked:
        if listing.has(index):
            listing.mark(index)
    left = [n for n in range(number) if n not in marked]
    assert b"".join(listing.sizes()) == b"".join(b"%d %d\r\n" % (n + 1, sizes[n]) for n in left)
    assert b"".join(listing.uids()) == b"".join(b"%d %b\r\n" % (n + 1, uids[n]) for n in left)
    assert (listing.count, listing.octets) == (len(left), sum(sizes[n] for n in left))
    assert list(listing.deleted) == marked
    listing.unmark_all()
    assert (listing.count, listing.octets) == (number, sum(sizes))


class _Listed(Columns):
    """With the uids in a column."""

    uids: Column  # type: ignore[assignment]

    def __init__(self, uids: Column, sizes: list[int]) -> None:
        object.__setattr__(self, "uids", uids)
        object.__setattr__(self, "sizes", sizes)


PROFILES = (
    Profile("pop.example.com", LIMITS, plaintext_logins=True),
    Profile("pop.example.com", LIMITS, stls=True, plaintext_logins=True, mechanisms=MECHANISMS),
    Profile("pop.example.com", LIMITS, stls=True),
)
LOGIN = b"USER iain\r\nPASS secret\r\n"
SESSIONS = (
    LOGIN + b"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 4 3\r\nDELE 1\r\nRSET\r\nDELE 2\r\nQUIT\r\n",
    b"AUTH PLAIN AGlhaW4Ac2VjcmV0\r\nLIST 1\r\nUIDL 2\r\nRETR 2\r\nRETR 3\r\nTOP 1 0\r\nNOOP\r\n",
    b"CAPA\r\nAUTH LOGIN\r\naWFpbg==\r\nc2VjcmV0\r\nCAPA\r\nUTF8\r\nLIST 9\r\n",
    b"USER iain\r\nPASS wrong\r\nAUTH PLAIN\r\n*\r\nUTF8\r\nSTLS\r\n",
    b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9bm9uY2U=\r\n*\r\n",
    b"USER ia\xc3\xaan\r\nPASS a b \r\n",
)
WORDS = (
    b"USER ", b"PASS secret\r\n", b"AUTH ", b"PLAIN ", b"LOGIN", b"UTF8\r\n", b"CAPA\r\n",
    b"STLS\r\n", b"QUIT\r\n", b"LIST", b"UIDL", b"STAT\r\n", b"RETR ", b"TOP ", b"DELE ",
    b"RSET\r\n", b"NOOP\r\n", b" 1", b" 2", b" 3", b" 4", b" 99999999999", b"AGlhaW4Ac2VjcmV0\r\n",
    b"=", b"*\r\n", b"\r\n", b"\r", b"\n", b"\0", b"\xff", LOGIN, b"SCRAM-SHA-256 ",
)  # fmt: skip
CONTENTS = (
    b"\0\0A: 1\n\n.x\n", b"\1\1A: 1\r\n\r\n.\r\nx", b"\2\2\n\n\n", b"\1\3A\n\r\nb\r\r\n", b"\3\0\r",
)  # fmt: skip

TARGETS = (
    Target(pop3_session, [b"\0\3" + each for each in SESSIONS] + [b"\1\0" + SESSIONS[4]], WORDS),
    Target(pop3_message, CONTENTS, (b"\n", b"\r\n", b"\n.", b"\n\n", b"\r", b"."), longest=200),
    Target(pop3_lines, [b"\0\5" + each for each in SESSIONS], (b"\r\n", b"\n", b"x" * 30)),
    Target(pop3_listing, [b"\5\0\1\2", b"\xff\1\0\5\7", b"\0"], longest=20),
)
