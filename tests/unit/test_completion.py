"""Headers made complete, and what they say of where a message goes."""

from __future__ import annotations

import time
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.completion import (
    Author,
    HeaderError,
    Hosts,
    destinations,
    format_date,
    format_mailbox,
    made_whole,
    missing_fields,
    names_somebody,
    split_header,
    without_private,
)

HOSTS = Hosts("mx.example.com", "example.com", "plus.example")
AUTHOR = Author("ann", "example.com", "Ann")
AT = 1_700_000_000.0


def missing(header: bytes) -> bytes:
    return missing_fields(split_header(header)[0], AUTHOR, AT, "id@example.com")


@pytest.mark.parametrize(
    ("message", "names", "rest"),
    [
        (b"", [], b""),
        (b"\nbody\n", [], b"\nbody\n"),
        (b"hello\nworld\n", [], b"hello\nworld\n"),
        (b"A: 1\nb : 2\n 3\n\t4\n\nbody\n", [b"a", b"b"], b"\nbody\n"),
        (b"A: 1\nhello\n", [b"a"], b"hello\n"),
        (b" A: 1\n", [], b" A: 1\n"),
        (b"A:\n\n", [b"a"], b"\n"),
        (b"From ann Mon\nA: 1\n", [], b"From ann Mon\nA: 1\n"),
        (b"A\xff: 1\n", [], b"A\xff: 1\n"),
    ],
)
def test_where_a_header_ends(message: bytes, names: list[bytes], rest: bytes) -> None:
    fields, end = split_header(message)
    assert [field.name for field in fields] == names
    assert message[end:] == rest
    assert b"".join(field.raw for field in fields) == message[:end]


@given(st.lists(st.sampled_from([b"A", b":", b" ", b"\n", b"x", b"\t", b"\xff"]), max_size=40))
def test_a_header_is_its_fields(pieces: list[bytes]) -> None:
    message = b"".join(pieces)
    fields, end = split_header(message)
    assert b"".join(field.raw for field in fields) == message[:end]
    assert all(field.raw.endswith(b"\n") for field in fields)


def test_a_bare_message_gets_what_rfc_5322_asks_for() -> None:
    added = missing(b"Subject: hello\n")
    parsed = message_from_bytes(added + b"\n", policy=policy.default)
    assert parsed["Date"].datetime.timestamp() == AT
    assert parsed["From"] == "Ann <ann@example.com>"
    assert parsed["Message-ID"] == "<id@example.com>"


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"Date: x\nFrom: y\nMessage-Id: z\n", []),
        (b"DATE: x\nmessage-id:z\n", ["From"]),
        (b"From: y\nDate: x\n", ["Message-ID"]),
        (b"Resent-To: iain\n", ["Resent-Date", "Resent-From", "Resent-Message-ID"]),
        (b"Resent-To: iain\nResent-Date: x\nResent-From: y\n", ["Resent-Message-ID"]),
    ],
)
def test_only_what_is_missing_is_added(header: bytes, names: list[str]) -> None:
    added = missing(header).decode()
    assert [line.partition(":")[0] for line in added.splitlines()] == names


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata"])
def test_dates_are_local_time_with_its_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for at in range(0, 2_000_000_000, 39_999_983):
            assert parsedate_to_datetime(format_date(at)).timestamp() == at
    finally:
        monkeypatch.undo()
        time.tzset()


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60)


@given(NAMES)
def test_any_name_can_be_read_again(name: str) -> None:
    field = b"From: " + format_mailbox(Author("ann", "example.com", name)).encode() + b"\n\n"
    assert field.isascii()
    assert all(len(line) <= 998 for line in field.splitlines())
    written, address = parseaddr(message_from_bytes(field)["From"])
    assert address == "ann@example.com"
    assert str(make_header(decode_header(written))) == name


@pytest.mark.parametrize(
    ("author", "written"),
    [
        (Author("a b", "müller.example", "Ann"), 'Ann <"a b"@xn--mller-kva.example>'),
        (Author("é", "müller.example"), "é@müller.example"),
    ],
)
def test_an_author_needs_no_smtputf8_for_the_domain_alone(author: Author, written: str) -> None:
    assert format_mailbox(author) == written


def test_a_name_cannot_add_a_field() -> None:
    written = format_mailbox(Author("ann", "example.com", "Ann\nBcc: iain@example.com\r\x1b"))
    assert written == '"AnnBcc: iain@example.com" <ann@example.com>'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"To: ann\n", b"To: ann@mx.example.com\n"),
        (b"To: ann@host\n", b"To: ann@host.example.com\n"),
        (b"To: ann@host+\n", b"To: ann@host.plus.example\n"),
        (b"To: ann@a.b+\n", b"To: ann@a.b.plus.example\n"),
        (b"To: root@LocalHost\n", b"To: root@mx.example.com\n"),
        (b"To: ann@[192.0.2.1]\n", b"To: ann@[192.0.2.1]\n"),
        (b"To: ann@elsewhere.example\n", b"To: ann@elsewhere.example\n"),
        (
            b'cc : "Ann, at home" (x) <ann>,\n\tBob <bob@host> (y)\n',
            b'cc : "Ann, at home" (x) <ann@mx.example.com>,\n\tBob <bob@host.example.com> (y)\n',
        ),
        (
            b"To: ann (a) @ (b) host (c)\n",
            b"To: ann (a) @ (b) host.example.com (c)\n",
        ),
        (b"Bcc: friends: ann, bob;\n", b"Bcc: friends: ann@mx.example.com, bob@mx.example.com;\n"),
        (b"From: \xff <ann>\n", b"From: \xff <ann@mx.example.com>\n"),
        (b"To: a b c\n", b"To: a b c\n"),
        (b"Subject: ann\n", b"Subject: ann\n"),
        (b"Resent-To: ann\n", b"Resent-To: ann@mx.example.com\n"),
    ],
)
def test_addresses_are_made_whole_and_nothing_else_is_touched(before: bytes, after: bytes) -> None:
    (field,), _ = split_header(before)
    whole = made_whole(field, HOSTS)
    assert whole.raw == after
    assert whole.name == field.name
    assert made_whole(whole, HOSTS) == whole


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"To: a\nCc: b\nBcc: c\nFrom: d\n", ["a", "b", "c"]),
        (b"To: a\nTo: b\n", ["a", "b"]),
        (b"To: a\nCc: b\nResent-Cc: c\nResent-Bcc: d\n", ["c", "d"]),
        (b"To: a\nResent-From: me\n", []),
        (b"Subject: x\n", []),
    ],
)
def test_to_whom_a_header_sends(header: bytes, expected: list[str]) -> None:
    found = destinations(split_header(header)[0])
    assert [mailbox.local for mailbox in found] == expected


def test_a_field_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(HeaderError, match=r"^the Bcc field cannot be understood: .*'<x>'"):
        destinations(split_header(b"To: ok\nBCC: Ann <ann> <x>\n")[0])


def test_blind_copies_stay_blind() -> None:
    header = b"Bcc: a\nTo: b\nRESENT-BCC: c\nReturn-Path: <d>\nContent-Length: 5\nSubject: e\n"
    kept = without_private(split_header(header)[0])
    assert b"".join(field.raw for field in kept) == b"To: b\nSubject: e\n"


@pytest.mark.parametrize(
    ("header", "names"),
    [(b"To: a\n", True), (b"Resent-Cc: a\n", True), (b"Bcc: a\n", False), (b"From: a\n", False)],
)
def test_whether_anybody_is_named(header: bytes, names: bool) -> None:
    assert names_somebody(split_header(header)[0]) is names
