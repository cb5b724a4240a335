"""Addresses: what is one, what is none, and how each is written and compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import (
    MAX_DOMAIN,
    MAX_LOCAL_PART,
    NULL_REVERSE_PATH,
    Address,
    AddressSyntaxError,
    check_domain,
    dash_prefixes,
    fold,
    shown,
    split_subaddress,
)
from restante.address_syntax import split_mailbox

ADDRESSES = [
    ("iain@example.com", "iain", "example.com"),
    ("Iain@Example.COM", "Iain", "example.com"),
    ("a.b+c@x.y", "a.b+c", "x.y"),
    ('"a b"@x.y', "a b", "x.y"),
    ('"iain"@example.com', "iain", "example.com"),
    (r'"a\"b\\c"@x.y', r"a\"b\c".replace(r"\"", '"'), "x.y"),
    ('"a@b"@x.y', "a@b", "x.y"),
    ("!#$%&'*+-/=?^_`{|}~@x.y", "!#$%&'*+-/=?^_`{|}~", "x.y"),
    ("jürgen@müller.example", "jürgen", "müller.example"),
    ("postmaster", "postmaster", ""),
    ("user@[127.0.0.1]", "user", "[127.0.0.1]"),
    ("user@[IPv6:::1]", "user", "[ipv6:::1]"),
    ("user@host_1.x", "user", "host_1.x"),
    ("x" * MAX_LOCAL_PART + "@x.y", "x" * MAX_LOCAL_PART, "x.y"),
    (f"a@{'ж' * 36}.y", "a", f"{'ж' * 36}.y"),
]

MALFORMED = [
    "",
    "@",
    "@x.y",
    "a@",
    "a..b@x.y",
    ".a@x.y",
    "a.@x.y",
    "a b@x.y",
    "a@b@x.y",
    '"a"b@x.y',
    '""@x.y',
    '"a@x.y',
    "a@x..y",
    "a@.x",
    "a@x.",
    "a@-x.y",
    "a@x-.y",
    "a@x y",
    "a@[]",
    "a@[1.2.3.4",
    "a@[b@x.y]",
    '"a@x.y"',
    "a\nb@x.y",
    "a\0@x.y",
    "a\u00a0b@x.y",
    "<a@x.y>",
    "a,b@x.y",
    "a@x/y",
    "x" * (MAX_LOCAL_PART + 1) + "@x.y",
    "é" * (MAX_LOCAL_PART // 2 + 1) + "@x.y",
    "a@" + "x" * 64 + ".y",
    "a@" + "ж" * 64 + ".y",
    "a@" + ".".join(["x" * 50] * 6),
]


@pytest.mark.parametrize(("text", "local", "domain"), ADDRESSES)
def test_parts(text: str, local: str, domain: str) -> None:
    address = Address.parse(text)
    assert (address.local, address.domain) == (local, domain)


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed(text: str) -> None:
    with pytest.raises(AddressSyntaxError):
        Address.parse(text)


@pytest.mark.parametrize("text", [text for text, _, _ in ADDRESSES])
def test_what_is_written_is_read_back(text: str) -> None:
    address = Address.parse(text)
    assert Address.parse(address.to_mailbox()) == address
    assert Address.from_stored(str(address)) == address
    assert address.to_path() == f"<{address.to_mailbox()}>"


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text_is_an_address_or_malformed(local: str, domain: str) -> None:
    """Never another exception; and an address survives being written and read."""
    try:
        address = Address.parse(f"{local}@{domain}")
    except AddressSyntaxError:
        return
    assert Address.parse(address.to_mailbox()) == address
    assert Address.from_stored(str(address)) == address, "what is queued is what was accepted"
    assert len(address.local.encode()) <= MAX_LOCAL_PART
    assert len(address.domain.encode()) <= MAX_DOMAIN
    assert str(address).isprintable()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30))
def test_any_printable_local_part_can_be_quoted(local: str) -> None:
    address = Address(local, "x.y")
    assert Address.parse(address.to_mailbox()) == address


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("ann@example.com", "ann@example.com"),
        ("a b@example.com", '"a b"@example.com'),
        ("a@b@example.com", '"a@b"@example.com'),
        ("postmaster", "postmaster"),
        ("", ""),
        ("list-owner-@example.com-@[]", "list-owner-@example.com-@[]"),
    ],
)
def test_what_is_stored_is_shown_as_it_is_written(stored: str, written: str) -> None:
    assert shown(stored) == written


def test_folding_touches_ascii_only() -> None:
    assert fold("IaIn") == "iain"
    assert fold("JÜRGEN@İ.COM") == "jÜrgen@İ.com"
    assert Address.parse("Iain@X.Y").folded == "iain@x.y"


def test_the_null_reverse_path_is_no_address() -> None:
    assert NULL_REVERSE_PATH.to_path() == "<>"
    assert str(NULL_REVERSE_PATH) == ""
    assert not isinstance(NULL_REVERSE_PATH, Address)


def test_domains() -> None:
    assert check_domain("Example.COM") == "example.com"
    with pytest.raises(AddressSyntaxError):
        check_domain("exam ple.com")


@pytest.mark.parametrize("text", ["\u05eb", "a\u202eb.example", "a\u2028.example"])
def test_no_domain_holds_what_no_address_may(text: str) -> None:
    with pytest.raises(AddressSyntaxError, match="domain holds a character that is not printable"):
        check_domain(text)


def test_dash_prefixes_are_longest_first() -> None:
    assert list(dash_prefixes("a-b-c")) == [("a-b-c", ""), ("a-b", "c"), ("a", "b-c")]
    assert list(dash_prefixes("-a")) == [("-a", "")]
    assert list(dash_prefixes("a-")) == [("a-", ""), ("a", "")]


def test_subaddresses() -> None:
    assert split_subaddress("iain+a+b", "+") == ("iain", "a+b")
    assert split_subaddress("iain+", "+") == ("iain", "")
    assert split_subaddress("+a", "+") is None
    assert split_subaddress("iain", "+") is None
    assert split_subaddress("iain+a", "") is None


def test_ascii() -> None:
    assert Address.parse("a@x.y").is_ascii
    assert not Address.parse("ä@x.y").is_ascii
    assert not Address.parse("a@ä.y").is_ascii


@given(st.from_regex(r"[a-zA-Z0-9.@+\-_!\" ]{1,140}", fullmatch=True))
def test_plain_mailboxes_are_read_as_any_other(text: str) -> None:
    """A short cut takes most of them; the grammar says what they are."""
    try:
        local, domain = split_mailbox(text)
    except AddressSyntaxError:
        with pytest.raises(AddressSyntaxError):
            Address.parse(text)
    else:
        assert Address.parse(text) == Address(local, fold(domain))
