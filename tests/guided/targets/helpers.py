"""What workers, helpers and the supervisor say to each other: each takes the others for hostile."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import cast

from restante.config.tree import Settings
from restante.directory import MAX_ID as MAX_UID
from restante.helper import messages
from restante.helper.failures import read_failure
from restante.helper.messages import Owner
from restante.helper.wire import HEAD, MAX_FRAME, BadFrame, Frame, Parser, Reader, Writer, head
from restante.service.office import (
    MAX_ID,
    MAX_NAME,
    BadRequest,
    Kind,
    Office,
    Request,
    read_request,
)
from restante.service.steward import Steward, _Errand
from restante.service.user import ServerUser
from restante.service.watch import Watch
from tests.guided.target import Choices, Target, cut

OWNER = Owner(1000, 1001)
TOTAL = 17
SETTINGS = Settings("/srv/mail")
MAIL = SETTINGS.mail
NOBODY = ServerUser("nobody", 65534, 65534, ())
KINDS: tuple[Kind, ...] = ("helper", "home")
Read = Callable[[Reader], object]
READERS: tuple[Read, ...] = (
    messages.read_message,
    lambda fields: messages.read_deliveries(fields, OWNER),
    lambda fields: messages.read_mbox(fields, OWNER),
    lambda fields: messages.read_program(fields, OWNER),
    messages.read_outcomes,
    messages.read_ran,
    lambda fields: messages.read_open(fields, OWNER),
    lambda fields: messages.read_indexes(fields, TOTAL),
    messages.read_dot_qmail,
    read_failure,
)


def helper_frames(data: bytes) -> None:
    """Frames: bounded, and the same however they are cut; what is none ends the connection."""
    size, octets = Choices(data).octet() % 40 + 1, data[1:]
    frames = _frames([octets])
    assert _frames(cut(octets, size)) == frames
    whole = [each for each in frames if isinstance(each, Frame)]
    written = b"".join(head(each.number, each.kind, [each.body]) + each.body for each in whole)
    assert octets.startswith(written)
    rest = octets[len(written) :]
    is_begun = len(rest) < HEAD.size or len(rest) < HEAD.size + HEAD.unpack_from(rest)[0]
    assert is_begun or whole != frames


def _frames(pieces: object) -> list[Frame | str]:
    parser, found = Parser(), list[Frame | str]()
    for piece in pieces:  # type: ignore[attr-defined]
        try:
            for frame in parser.feed(piece):
                assert len(frame.body) <= MAX_FRAME
                assert frame.descriptor == -1
                found.append(frame)
        except BadFrame:
            return [*found, "bad"]
    return found


def helper_fields(data: bytes) -> None:
    """What a frame says lies within its limits, or is a BadFrame."""
    choices = Choices(data)
    try:
        choices.one_of(READERS)(Reader(choices.rest))
    except BadFrame:
        return


def helper_again(data: bytes) -> None:
    """What was read and is written again is the same to whoever reads it."""
    choices = Choices(data)
    read, write = choices.one_of(PAIRS)
    fields = Reader(choices.rest)
    try:
        found = read(fields)
    except BadFrame:
        return
    out = Writer()
    write(out, found)
    assert read(Reader(out.octets())) == found


PAIRS: tuple[tuple[Read, Callable[..., None]], ...] = (
    (lambda fields: messages.read_deliveries(fields, OWNER), messages.write_deliveries),
    (lambda fields: messages.read_mbox(fields, OWNER), messages.write_mbox),
    (lambda fields: messages.read_program(fields, OWNER), messages.write_program),
    (messages.read_dot_qmail, messages.write_dot_qmail),
    (
        lambda fields: messages.read_indexes(fields, TOTAL),
        lambda out, found: messages.write_indexes(out, found, TOTAL),
    ),
)


def helper_outcomes(data: bytes) -> None:
    """What became of deliveries, in words for people: the same from the second time on."""
    choices = Choices(data)
    read, write = choices.one_of(TOLD)
    found: object = None
    octets = choices.rest
    for again in range(3):
        try:
            known, found = found, read(Reader(octets))
        except BadFrame:
            assert not again
            return
        assert again < 2 or found == known
        out = Writer()
        write(out, found)
        octets = out.octets()


TOLD: tuple[tuple[Read, Callable[..., None]], ...] = (
    (messages.read_outcomes, messages.write_outcomes),
    (messages.read_ran, messages.write_ran),
)


def helper_blocks(data: bytes) -> None:
    """Listings and pieces of messages: bounded, whole, and the same when they are written again."""
    try:
        listed = messages.read_listed(data)
    except BadFrame:
        pass
    else:
        assert len(listed) <= messages.LISTED
        assert b"".join(part for part, _ in messages.listing(listed)) == data
    try:
        version, last = messages.read_opened(data)
        assert len(version) <= messages.MAX_VERSION
        assert len(last) <= messages.LISTED
    except BadFrame:
        pass
    try:
        pieces = messages.read_pieces(data)
    except BadFrame:
        return
    assert len(pieces.block) + sum(map(len, pieces.ahead.values())) <= len(data)
    assert messages.read_pieces(b"".join(messages.write_pieces(pieces))) == pieces


def office_request(data: bytes) -> None:
    """What a worker asks of the supervisor, which is root: a request within its limits, or none."""
    try:
        request = read_request(data)
    except BadRequest:
        return
    assert 0 <= request.id <= MAX_ID
    assert 0 < len(request.name) <= MAX_NAME
    request.name.encode()
    assert "\0" not in request.name
    json.dumps({"id": request.id, request.kind: request.name})


def registrar_answer(data: bytes) -> None:
    """What the registrar tells the supervisor, which is root: rights that may be had, or none."""
    steward = Steward(SETTINGS, NOBODY, cast("Watch", None), lambda: None)
    ours, its = socket.socketpair()
    with ours, its:
        office = Office(0, frozenset(), ours, lambda _office, _request: None)
        for number, kind in enumerate(KINDS):
            errand = _Errand(office, Request(number, kind, "iain@example.com"), 1.0)
            steward._errands[number] = errand
        steward._take_answer(data)
        for errand in steward._errands.values():
            if errand.account is not None:
                assert MAIL.minimum_uid <= errand.account.uid <= MAX_UID
                assert MAIL.minimum_gid <= errand.account.gid <= MAX_UID
                assert errand.request.kind == "helper" or errand.account.home


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(4) + text


ACCOUNT = b"\0\0\0\3\0\0\0\5ann/home"
ADDRESS = b"\0\0\0\1" + _text(b"a@b")
MBOX = _text(b"/home/mbox") + ACCOUNT + ADDRESS
OUTCOMES = b"\0\0\0\3\0" + _text(b"there") + b"\1\0\0\1\xc3" + _text(b"3.0") * 3
OUTCOMES += b"\2\0\0\2\x26" + _text(b"1.1") * 3
DELIVERIES = b"\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0\1\0\0\0\2\0\0\0\1/mann/hx"
MESSAGE = bytes(8) + bytes(7) + b"\4" + bytes(8) + bytes(4) + bytes(4) + b"\0\0\0\2"
MESSAGE += b"\0\0\0\1\0\0\0\3" + b"ia@bT\n"
INDEXES = b"\0\0\0\x11\0\0\0\3\x03\0\1"
DOT_QMAIL = b"\1" + _text(b"/h/.qmail") + _text(b"") + b"\0\1\0\0\0\1" + _text(b"./Maildir/")
LISTED = b"\0\0\0\2" + bytes(7) + b"\1" + bytes(7) + b"\2" + b"uid1\nuid2"
PIECES = b"\1\0\0\0\1\0\0\0\3\0\0\0\5\0\0\0\2abcde"
WORDS = (
    b"\0", b"\1", b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3", b"\xff" * 4, bytes(8), b"\n", b"a@b", b"/",
    _text(b"x"), b"4.0", b"\xff",
)  # fmt: skip
FRAME = b"\0\0\0\3\0\0\0\1\1\0abc"

TARGETS = (
    Target(helper_frames, [b"\3" + FRAME * 3, b"\0" + FRAME[:5], b"\1\xff" + FRAME], WORDS),
    Target(
        helper_fields,
        [
            b"\0" + MESSAGE,
            b"\1" + DELIVERIES,
            b"\2" + MBOX,
            b"\3" + _text(b"cmd") + ACCOUNT + ADDRESS + _text(b"x") * 4,
            b"\4" + OUTCOMES,
            b"\5" + OUTCOMES[4:14] + b"\1",
            b"\6" + ACCOUNT + _text(b"v"),
            b"\7" + INDEXES,
            b"\x08" + DOT_QMAIL,
            b"\x09\1" + _text(b"why"),
        ],
        WORDS,
    ),
    Target(
        helper_again,
        [
            b"\0" + DELIVERIES,
            b"\1" + MBOX,
            b"\2" + _text(b"cmd") + ACCOUNT + ADDRESS + _text(b"x") * 4,
            b"\3" + DOT_QMAIL,
            b"\4" + INDEXES,
        ],
        WORDS,
    ),
    Target(helper_outcomes, [b"\0" + OUTCOMES, b"\1" + OUTCOMES[4:14] + b"\1"], WORDS),
    Target(helper_blocks, [LISTED, _text(b"v") + LISTED, PIECES], WORDS),
    Target(
        office_request,
        [
            b'{"id": 7, "helper": "iain@example.com"}',
            b'{"id":8,"file":"/x.pem"}',
            b'{"id":1,"home":"\\ud800"}',
        ],
        (b'"id":', b'"system":', b"[", b"{", b"1e9", b"true", b"\\u0000", b"\\ud800", b"NaN"),
    ),
    Target(
        registrar_answer,
        [
            b'{"id": 0, "uid": 1000, "gid": 1000, "home": "/home/ann"}',
            b'{"id": 1, "uid": 1000, "gid": 1000, "home": "/h"}',
            b'{"id": 1, "error": "there is no such account"}',
        ],
        (
            b'"uid":',
            b'"gid":',
            b'"home":',
            b"-1",
            b"4294967295",
            b"0",
            b"true",
            b"[",
            b"1e3",
            b"null",
        ),
    ),
)
