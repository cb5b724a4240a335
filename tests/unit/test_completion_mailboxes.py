"""Addresses in header fields, as people and programs write them."""

from __future__ import annotations

from email.utils import formataddr, getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.completion.mailboxes import MailboxSyntaxError, parse_mailboxes

UNDERSTOOD = {
    "ann@example.com": ["ann@example.com"],
    "ann": ["ann"],
    " ann@example.com ,\n iain@example.com\n": ["ann@example.com", "iain@example.com"],
    "Ann <ann@example.com>": ["ann@example.com"],
    '"Ann, at home" <ann@example.com>, root': ["ann@example.com", "root"],
    "Ann Q. Public <ann@example.com>": ["ann@example.com"],
    "<ann@example.com>": ["ann@example.com"],
    "<>": [],
    "Mail Delivery <>": [],
    ",,ann,,": ["ann"],
    "": [],
    "\n": [],
    "undisclosed-recipients:;": [],
    "undisclosed-recipients:": [],
    "friends: ann@a.example, Bob <b@b.example>;, c@c.example": [
        "ann@a.example",
        "b@b.example",
        "c@c.example",
    ],
    "a: b; c: d;": ["b", "d"],
    "ann@example.com (Ann (at \\) home))": ["ann@example.com"],
    "(one) ann (two) @ (three) example . (four)\n com (five)": ["ann@example.com"],
    '"ann q"@example.com': ["ann q@example.com"],
    r'"a\"b\\c"@example.com': ['a"b\\c@example.com'],
    '"ann"."q"@example.com': ["ann.q@example.com"],
    '"a\n b"@example.com': ["a b@example.com"],
    "ann@[192.0.2.1]": ["ann@[192.0.2.1]"],
    "ann@[IPv6:2001:db8::1]": ["ann@[IPv6:2001:db8::1]"],
    "<@relay.example,@other.example:ann@example.com>": ["ann@example.com"],
    "=?utf-8?q?=C3=A9?= <e@example.com>": ["e@example.com"],
    "é@exämple.com": ["é@exämple.com"],
    "docomo..user.@example.jp": ["docomo..user.@example.jp"],
    "ann@host+": ["ann@host+"],
    "|/bin/program": ["|/bin/program"],
    "Ann<ann@example.com>": ["ann@example.com"],
    "ann@x.example <ann@example.com>": ["ann@example.com"],
    "'ann@example.com' <ann@example.com>, bob": ["ann@example.com", "bob"],
    "Support [Shop] <shop@example.com>": ["shop@example.com"],
    "Ann @ Work <ann@example.com>": ["ann@example.com"],
    "@ann <ann@example.com>": ["ann@example.com"],
    "list: Ann @ Work <ann@example.com>;": ["ann@example.com"],
    "ann@example.com; bob;": ["ann@example.com", "bob"],
    "Ann <ann@example.com>; Bob <bob@example.com>": ["ann@example.com", "bob@example.com"],
    "a:;;": [],
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_understood(text: str) -> None:
    found = parse_mailboxes(text)
    written = [f"{box.local}@{box.domain}" if box.domain else box.local for box in found]
    assert written == UNDERSTOOD[text]


@pytest.mark.parametrize(
    "text",
    [
        "ann iain",
        "ann@example.com iain@example.com",
        "Ann <ann@example.com> Smith",
        "Ann <ann@example.com",
        "Ann <ann@example.com>>",
        "<ann@example.com, iain@example.com>",
        "Ann <iain bob>",
        "ann@",
        "@example.com",
        "ann@@example.com",
        '""@example.com',
        "ann@exa mple.com",
        "ann@.",
        ".",
        '"ann',
        "ann (never ends",
        "ann)",
        "ann@[192.0.2.1",
        "ann@[a]b",
        "[ann]",
        "ann@example.com Ann, bob <bob@example.com>",
        "a@b: c;",
        "a: b: c;",
        ":ann;",
        "<<ann>>",
        "<@relay.example ann@example.com>",
        "<@relay.example>",
        "ann\0@example.com",
        "ann\\",
        "a\x7fb",
    ],
)
def test_not_understood(text: str) -> None:
    with pytest.raises(MailboxSyntaxError):
        parse_mailboxes(text)


def test_a_complaint_shows_where_and_is_printable() -> None:
    with pytest.raises(MailboxSyntaxError) as raised:
        parse_mailboxes("ann, Bob \x1b[2J <b")
    assert str(raised.value).isascii()
    assert str(raised.value).isprintable()
    assert "x1b" in str(raised.value)


atext = st.sampled_from("abcXYZ019!#$%&'*+-/=?^_`{|}~é")
dotted = st.lists(st.text(atext, min_size=1, max_size=8), min_size=1, max_size=3).map(".".join)
labels = st.text(st.sampled_from("abcxyz019-"), min_size=1, max_size=8)
domains = st.lists(labels, min_size=2, max_size=4).map(".".join)
names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20)
pairs = st.tuples(names, st.builds("{}@{}".format, dotted, domains))


@given(st.lists(pairs, max_size=6), st.sampled_from([", ", ",\n ", ","]))
def test_as_python_reads_its_own_writing(people: list[tuple[str, str]], comma: str) -> None:
    text = comma.join(formataddr(pair) for pair in people if pair[1].isascii())
    found = [f"{box.local}@{box.domain}" for box in parse_mailboxes(text)]
    assert found == [address for _, address in getaddresses([text]) if text]
    assert found == [address for _, address in people if address.isascii()]


WORDS = st.sampled_from(
    [
        *'@.<>,;:"\\()[] \0\udcffé',
        *("ann", "example", "com", "\n ", '"q s"', "(c)", "[1.2.3.4]"),
    ]
)


@given(st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_understood_or_refused_and_spans_lie_in_it(text: str) -> None:
    try:
        found = parse_mailboxes(text)
    except MailboxSyntaxError:
        return
    done = 0
    for box in found:
        assert box.local
        assert done <= box.domain_start <= box.end <= len(text)
        assert bool(box.domain) == (box.domain_start < box.end)
        done = box.end


@pytest.mark.parametrize(
    "piece", ["(", ",", '"', "a.", "a,", "<", "a:", "(a)", "[", "a@b,", "\\", "a@", "[a]", ";"]
)
def test_a_long_run_of_anything_is_read_in_one_pass(piece: str) -> None:
    """A second pass for each piece would take hours."""
    text = piece * (256 * 1024)
    try:
        parse_mailboxes(text)
    except MailboxSyntaxError:
        return
    assert piece in {",", "a,", "a.", "(a)", "a@b,", ";"}
