"""What is written for a helper is what is read of it, and whatever is asked is answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address, fold
from restante.directory import Account, DotQmail, NoSystemFiles
from restante.envelope import Content, Envelope, HeaderFacts
from restante.helper import messages
from restante.helper.failures import read_failure
from restante.helper.messages import Owner, Pieces
from restante.helper.serving import Serving, Tools
from restante.helper.wire import (
    HEAD,
    BadFrame,
    Kind,
    Parser,
    Reader,
    Writer,
    head,
)
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.mda.writer import BatchWriter
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure
from restante.store import Messages
from restante.store.maildir import MaildirStore

OWNER = Owner(1000, 1001)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(
    st.characters(exclude_categories=["Cs", "C", "Z"], exclude_characters="/"), max_size=20
)
accounts = st.builds(Account, texts, st.just(OWNER.uid), st.just(OWNER.gid), texts)
addresses = st.lists(texts, min_size=1, max_size=4).map(tuple)
deliveries = st.lists(st.builds(Delivery, texts, accounts, addresses), max_size=5)
mboxes = st.builds(MboxDelivery, texts, accounts, addresses)
programs = st.builds(ProgramDelivery, texts, accounts, addresses, texts, texts, texts, texts)
senders = st.just(NULL_REVERSE_PATH) | st.builds(
    Address, names.filter(bool), st.just("example.net")
)
envelopes = st.builds(
    Envelope, names, senders, st.just(()), st.floats(0, 2e11), by_list=st.booleans()
)
bodies = st.binary(max_size=100)
topics = st.sampled_from(["", "1.1", "7.999"])
lines = st.lists(names, max_size=3).map("\n".join)
replies = st.builds(Reply, st.sampled_from([450, 499]), topics, lines)
refusals = st.builds(Reply, st.sampled_from([500, 554]), topics, lines)
outcomes: st.SearchStrategy[Outcome] = (
    st.builds(Delivered, texts)
    | st.builds(TemporaryFailure, replies, texts)
    | st.builds(PermanentFailure, refusals, texts)
)
listed = st.tuples(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=70).map(
        str.encode
    ),
    st.integers(0, 2**40),
)
PIECES = st.sampled_from(
    [b"\0", b"\1", b"\0\0\0\1", b"\0\0\0\5abcde", b"\xff" * 4, b"\0" * 8, b"x"]
)
rubbish = st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=200)


def written(write: Callable[[Writer], None]) -> Reader:
    out = Writer()
    write(out)
    return Reader(out.octets())


@given(envelopes, bodies, bodies, deliveries)
def test_messages(envelope: Envelope, trace: bytes, body: bytes, those: list[Delivery]) -> None:
    loops = frozenset(fold(each.delivered_to[0]) for each in those[:1])
    facts = HeaderFacts(3, loops | {"not for any of them"})
    content = Content(trace, body, len(body), body.count(b"\n"), facts)

    def write(out: Writer) -> None:
        messages.write_message(out, envelope, content, those)
        messages.write_deliveries(out, those)

    fields = written(write)
    message = messages.read_message(fields)
    assert message.envelope == envelope
    assert message.content(body) == Content(
        trace, body, len(body), body.count(b"\n"), HeaderFacts(3, loops)
    )
    assert messages.read_deliveries(fields, OWNER) == those
    fields.end()


@given(mboxes, programs)
def test_mboxes_and_programs(mbox: MboxDelivery, program: ProgramDelivery) -> None:
    fields = written(lambda out: messages.write_mbox(out, mbox))
    assert messages.read_mbox(fields, OWNER) == mbox
    fields = written(lambda out: messages.write_program(out, program))
    assert messages.read_program(fields, OWNER) == program


@given(st.lists(outcomes, max_size=5).map(tuple), st.booleans())
def test_outcomes(those: tuple[Outcome, ...], is_last: bool) -> None:
    assert messages.read_outcomes(written(lambda out: messages.write_outcomes(out, those))) == those
    for each in those:
        out = Writer()
        messages.write_ran(out, Ran(each, is_last))
        assert messages.read_ran(Reader(out.octets())) == Ran(each, is_last)


@given(texts)
def test_no_reply_breaks_a_dialog(text: str) -> None:
    out = Writer()
    messages.write_outcome(out, TemporaryFailure(Reply(450, "", text)))
    read = messages.read_outcome(Reader(out.octets()))
    assert isinstance(read, TemporaryFailure)
    assert len(read.reply.text) == len(text)
    assert not {"\r", "\0"} & set(read.reply.text)


def delivered(out: Writer) -> None:
    out.small(0)
    out.text("\udcff", 100)


def put_off(out: Writer, text: str = "\udcff", detail: str = "") -> None:
    out.small(1)
    out.count(450)
    for each in ("2.0", text, detail):
        out.text(each, 100)


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (delivered, messages.read_outcome),
        (put_off, messages.read_outcome),
        (lambda out: put_off(out, "full", "\udcff"), messages.read_outcome),
        (delivered, read_failure),
    ],
)
def test_what_is_told_is_text(
    write: Callable[[Writer], None], read: Callable[[Reader], object]
) -> None:
    """Replies and the queue take nothing else, and a helper is its user's, perhaps."""
    with pytest.raises(BadFrame):
        read(written(write))


@given(st.lists(listed, max_size=10), st.integers(1, 250))
def test_listings(those: list[tuple[bytes, int]], times: int) -> None:
    many = those * times
    parts = list(messages.listing(Messages([uid for uid, _ in many], [size for _, size in many])))
    assert [is_last for _, is_last in parts] == [*[False] * (len(parts) - 1), True]
    read = [messages.read_listed(octets) for octets, _ in parts]
    assert [pair for each in read for pair in zip(each.uids, each.sizes, strict=True)] == many
    version, last = messages.read_opened(messages.opened(b"version") + parts[-1][0])
    assert (version, last) == (b"version", read[-1])


@given(st.binary(max_size=50), st.booleans(), st.dictionaries(st.integers(0, 2**31 - 1), bodies))
def test_pieces(block: bytes, more: bool, ahead: dict[int, bytes]) -> None:
    pieces = Pieces(block, more, ahead)
    if len(ahead) <= messages.MAX_AHEAD:
        assert messages.read_pieces(b"".join(messages.write_pieces(pieces))) == pieces


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n)))))
def test_indexes(drawn: tuple[int, set[int]]) -> None:
    total, indexes = drawn[0] + 1, drawn[1]
    fields = written(lambda out: messages.write_indexes(out, indexes, total))
    assert messages.read_indexes(fields, total) == sorted(indexes)


@given(st.none() | st.builds(DotQmail, texts, st.lists(texts, max_size=9).map(tuple), texts))
def test_dot_qmail(found: DotQmail | None) -> None:
    fields = written(lambda out: messages.write_dot_qmail(out, found))
    assert messages.read_dot_qmail(fields) == found


@given(st.lists(st.integers(0, 2), max_size=4), st.integers(0, 3))
def test_descriptors_are_never_lost(named: list[int], sent: int) -> None:
    """Each ends with the frame that names it, or is left for whoever ends the connection."""
    descriptors = [os.dup(0) for _ in range(sent)]
    parser = Parser()
    found: list[int] = []
    stream = b"".join(HEAD.pack(0, 1, 1, count) for count in named)
    with contextlib.suppress(BadFrame):
        for frame in parser.feed(stream, descriptors):
            found.append(frame.descriptor)  # noqa: PERF401 - what came before a BadFrame counts
    kept = [each for each in found if each >= 0] + parser.take_descriptors()
    for each in descriptors:
        os.close(each)
    assert len(kept) == len(set(kept))
    assert set(kept) == set(descriptors)


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), rubbish), max_size=5))
def test_any_requests(requests: list[tuple[Kind, bytes]]) -> None:
    """A helper answers each but CLOSE, or ends the connection; it never does neither."""
    asyncio.run(_send_all(requests))


async def _send_all(requests: list[tuple[Kind, bytes]]) -> None:
    ours, its = socket.socketpair()
    ours.setblocking(False)
    changed = asyncio.Event()
    writer = BatchWriter("mx.example.com", 1, 1)
    tools = Tools(writer, MaildirStore(), NoSystemFiles())
    serving = Serving(its, Owner(1, 1), tools, lambda _serving: changed.set())
    loop = asyncio.get_running_loop()
    stream = b"".join(
        head(number, kind, [body]) + body for number, (kind, body) in enumerate(requests, start=1)
    )
    await loop.sock_sendall(ours, stream)
    parser, answered = Parser(), set[int]()
    asked = sum(kind is not Kind.CLOSE for kind, _ in requests)
    while len(answered) < asked and (octets := await loop.sock_recv(ours, 100_000)):
        answered |= {frame.number for frame in parser.feed(octets) if frame.kind != Kind.WORKING}
    assert len(answered) == asked or not serving.is_open
    ours.close()
    while serving.is_open or not serving.is_unused:
        changed.clear()
        await changed.wait()
    await writer.close()
