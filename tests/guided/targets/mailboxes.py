"""What lies in mailboxes and homes: names of files, mboxes, .qmail files, what programs write."""

from __future__ import annotations

import os
import re
from itertools import pairwise

from restante.address import Address
from restante.directory import Account, BadFile
from restante.directory.dotqmail import MAX_LINES, file_names, read_dot_qmail
from restante.envelope import Envelope, memory_content
from restante.mda import Delivery, ProgramDelivery
from restante.mda.ending import judge
from restante.mda.environment import environment
from restante.mda.mboxrd import BLANK_LINE, Letter, from_line, quoted
from restante.mda.names import delivery_name
from restante.mda.program import Ended
from restante.mda.remains import look_for
from restante.routing.instructions import BadInstruction, parse_instructions
from restante.status import Delivered, PermanentFailure, TemporaryFailure
from restante.store import names, sizes
from restante.store.columns import Column
from restante.store.places import Places, apart, rows
from tests.guided.scratch import emptied, scratch
from tests.guided.target import Choices, Target, cut, text_of
from tests.support.deliveries import TRACE, envelope

BODY = b"Subject: hello\n\nFrom me\n>From you\n\nlast line\n"
LETTER = Letter(envelope(), memory_content(TRACE, BODY), ("iain@example.com",))
OURS = b"".join(LETTER.pieces())
OTHERS = b"From x@y Tue Nov 14 22:13:20 2023\nSubject: other\n\nmail\n\n"
_TO_QUOTE = re.compile(rb"(>*From )")


def mbox_quoting(data: bytes) -> None:
    """Whatever is quoted for an mbox is what it was when the quotes are taken away."""
    size, text = Choices(data).octet() % 40, data[1:]
    written = b"".join(quoted(cut(text, size)))
    lines = written.split(b"\n")
    assert not any(line.startswith(b"From ") for line in lines)
    read = [line.removeprefix(b">") if _TO_QUOTE.match(line) else line for line in lines]
    assert b"\n".join(read) == text


def mbox_remains(data: bytes) -> None:
    """What an attempt has left in an mbox: nothing but its own octets is ever given up."""
    descriptor = os.memfd_create("mbox")
    try:
        os.write(descriptor, data)
        remains = look_for(descriptor, len(data), LETTER)
    finally:
        os.close(descriptor)
    if remains.is_whole:
        assert OURS.partition(BLANK_LINE)[2] in data
    if remains.torn_at is not None:
        given_up = data[remains.torn_at :]
        assert len(given_up) <= len(OURS)
        assert all(octet in (0, ours) for octet, ours in zip(given_up, OURS, strict=False))


def mbox_sender(data: bytes) -> None:
    """The first line of a message in an mbox is one line of three parts, whoever has sent it."""
    line = from_line(Address.from_stored(text_of(data)), 1_700_000_000.0)
    assert line.startswith(b"From ")
    assert line.count(b"\n") == 1
    assert len(line.split()) == 7


def maildir_names(data: bytes) -> None:
    """Names of files, a thousand at a time: all of them are told what each one by itself says."""
    found = [each.replace("/", "") for each in data.decode("latin-1").split("\0")]
    found = [each[:255] for each in found if each and not each.startswith(".")]
    if not found:
        return
    bases = list(map(names.base, found))
    told, are_plain = names.wire_sizes(bases)
    assert told == list(map(names.wire_size, bases))
    assert not are_plain or (None not in told and names.are_of_our_time(bases))
    for size in told:
        assert size is None or 0 <= size <= sizes.MAX_SIZE
    ordered = [bases[index] for index in names.order_of_arrival(bases)]
    assert sorted(ordered) == sorted(bases)
    if names.are_of_our_time(bases):
        seconds = [each.partition(".")[0] for each in ordered]
        assert all(one <= other for one, other in pairwise(seconds))
    for base in bases:
        for copy in (0, 1):
            assert names.are_uids([names.uid(base, copy)])
    assert names.are_uids(bases) == all(names.are_uids([base]) for base in bases)
    for folder in ("new", "cur"):
        _check_places(folder, found)


def _check_places(folder: str, found: list[str]) -> None:
    parted, ends = apart(rows(folder, sorted(found)))
    places = Places(Column.of_text(parted), ends)
    assert list(places) == [f"{folder}/{name}".encode("latin-1") for name in sorted(found)]
    assert parted == list(map(names.base, sorted(found)))


def remembered_sizes(data: bytes) -> None:
    """The file of sizes: what is no line of it is ignored, and what is read can be written."""
    directory = emptied("sizes")
    (directory / sizes.CACHE).write_bytes(data)
    maildir = os.fsencode(directory)
    found = sizes.load(maildir)
    assert all(0 <= size <= sizes.MAX_SIZE for size in found.values())
    sizes.save(maildir, found)
    assert sizes.load(maildir) == found


def delivered_name(data: bytes) -> None:
    """The name of a delivery is one that a directory can have, with its sizes; a UID if it can."""
    choices = Choices(data)
    size = choices.octet() << choices.octet() % 24
    host, address = text_of(choices.take(60)), text_of(choices.rest)
    delivery = Delivery("/home/x/Maildir", Account("x", 1, 1, "/"), (address,))
    accepted = Envelope("0123456789abcdefghj", Address("a", "b"), (), 1_700_000_000.0)
    made = delivery_name(accepted, delivery, host, size, size)
    assert made.is_borne_by(made.full)
    assert not set("/:\0\n").intersection(made.full)
    assert made.full.isascii()
    assert names.wire_size(made.full) == size
    assert names.are_uids([made.full])


def columns(data: bytes) -> None:
    """Strings kept together are what they were, by place and in order."""
    strings = data.split(b"\0")
    column = Column(strings[: len(data) % (len(strings) + 1)])
    column.extend(strings[len(data) % (len(strings) + 1) :])
    assert list(column) == strings == [column[place] for place in range(len(column))]


def dot_qmail(data: bytes) -> None:
    """A .qmail file: lines that are the file's, or a BadFile."""
    home = emptied("home")
    file = home / ".qmail"
    file.write_bytes(data)
    file.chmod(0o600)
    try:
        found = read_dot_qmail(Account("ann", os.geteuid(), os.getegid(), str(home)), "")
    except BadFile:
        return
    assert found is not None
    assert len(found.lines) <= MAX_LINES
    assert bool(found.lines) == bool(data)
    if found.lines:
        joined = "\n".join(found.lines).encode("utf-8", "surrogateescape")
        assert joined == data.removesuffix(b"\n")
        try:
            parse_instructions(found.lines, found.path)
        except BadInstruction as error:
            assert str(error).startswith(str(home))


def extension(data: bytes) -> None:
    """The names of .qmail files that an extension may have: the most exact one first, and few.

    The last one is .qmail-default, to which all of the extension is left.
    """
    text = text_of(data)
    named = list(file_names(text))
    assert all(name.startswith(".qmail") for name, _ in named)
    assert all(text.endswith(default) for _, default in named)
    left = [len(default) for _, default in named[1:]]
    assert left == sorted(left)
    assert not text or named[-1] == (".qmail-default", text)
    assert len(named) <= text.count("-") + 3
    home = scratch("default")
    file = home / ".qmail-default"
    file.write_bytes(b"&a@b\n")
    file.chmod(0o600)
    found = read_dot_qmail(Account("ann", os.geteuid(), os.getegid(), str(home)), text)
    assert (found.default if found else "") == text


def program_output(data: bytes) -> None:
    """What a program wrote is told in lines that break nothing, whatever it wrote."""
    choices = Choices(data)
    status = choices.octet() - 64
    ran = judge("cmd", Ended(status, choices.rest, "it took too long" if status == -9 else ""))
    assert "\n" not in ran.outcome.detail
    ran.outcome.detail.encode()
    match ran.outcome:
        case PermanentFailure(reply) | TemporaryFailure(reply):
            assert all(map(str.isprintable, reply.text.split("\n")))
            assert all(len(line) <= 512 for line in reply.encode().split(b"\r\n"))
        case Delivered():
            assert status in (0, 99)


def program_environment(data: bytes) -> None:
    """The variables of a program have no NUL, and those that are a field are one line."""
    choices = Choices(data)
    try:
        sender = Address.parse(choices.take(40).decode("utf-8", "replace"))
        recipient = Address.parse(choices.rest.decode("utf-8", "replace"))
    except ValueError:
        return
    accepted = Envelope("id", sender, (recipient,), 1_700_000_000.0)
    account = Account("ann", 1000, 1000, "/home/ann")
    extension = recipient.local.partition("-")[2]
    program = ProgramDelivery("cmd", account, (str(recipient),), "ann", extension, "x", "")
    variables = environment(accepted, program, "/bin", "/srv/mail")
    for name, value in variables.items():
        assert "\0" not in value
        assert value.count("\n") == (name in {"DTLINE", "RPLINE", "UFLINE"})


NAMES = (
    b"1700000001.a_b.mx,S=8,W=12:2,S\x001700000002.b\0x,W=9,S=7",
    b"1700000001.a,S=8,W=12\x001700000002.b,S=7,W=8",
    b"1.a,W=12,S=8\0odd\n:2,\0with space\0:2,S\0\xe9",
    b"1700000001.a,S=12,W=8\x001700000001.a,S=12,W=8",
)
WORDS = (
    b"\0", b":2,", b",S=", b",W=", b"1700000003.", b"\n", b"\xff", b"99999999999", b"/new", b"/cur",
    b"\xb2", b".", b"S",
)  # fmt: skip
MBOX_WORDS = (
    b"From ", b">From ", b"\n", b"\n\n", b">", OURS, OTHERS, OURS[:60], OURS[-60:], bytes(30),
    b"Status: RO\n",
)  # fmt: skip
QMAIL = (b"&ann@example.com\n./Maildir/\n", b"+list\n# x\n&a@b\n", b"|cmd\n", b"\n\n", b"\xff\n \n")

TARGETS = (
    Target(mbox_quoting, [b"\0" + OTHERS, b"\3From x\n>From y\n>>Fro", b"\1>>>"], MBOX_WORDS),
    Target(
        mbox_remains,
        [OURS, OTHERS + OURS[:-1] + OTHERS, OURS[:30], OTHERS + OURS[:90] + b"\n\n" + OURS[:150]],
        MBOX_WORDS,
        longest=1500,
    ),
    Target(mbox_sender, [b"ann@example.com", b"@", b"a b@c", b"\xc2\xa0@\n"], WORDS, longest=100),
    Target(maildir_names, NAMES, WORDS),
    Target(remembered_sizes, [b"12 uid1\n7 uid2\n", b"x\n1 \n9999999999999 z\n"], WORDS),
    Target(delivered_name, [b"\5\3\x0emx.example.comann@example.com", b"\xff\x17\0"], WORDS),
    Target(columns, [b"a\0b\0\0c", b"\0" * 40], (b"\0",), longest=100),
    Target(dot_qmail, QMAIL, (b"&", b"|", b"./", b"+list", b"\n", b" ", b"\0", b"\xff", b"#")),
    Target(
        extension, [b"a-b-c", b"list-default", b"A.b", b"\xff/-"], (b"-", b".", b"/", b"default")
    ),
    Target(
        program_output, [b"\x40ok", b"\xa4no\nsuch\x1b[1m\xff", b"\x37\x85\xe2\x80\xa8x"], WORDS
    ),
    Target(
        program_environment,
        [b"\x0bann@b.exampleann-list-x@example.com", b'\0"a b"@c'],
        (b"@", b"-", b".", b'"', b"\xc3\xa9", b"\xc2\x85", b"\xe2\x80\xa8"),
        longest=200,
    ),
)
