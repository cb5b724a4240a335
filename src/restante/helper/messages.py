"""What frames say: every request and every answer, to octets and back.

Whatever ``read_...`` returns lies within the limits here; anything else raises BadFrame.
The owner's uid and gid are in no request: a helper has only its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from restante.address import NULL_REVERSE_PATH, Address, fold
from restante.directory import Account, DotQmail
from restante.directory.dotqmail import MAX_LINES, MAX_SIZE
from restante.envelope import Content, Envelope, HeaderFacts
from restante.helper.wire import BadFrame, Reader, Writer, counts
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.records import record
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure
from restante.store import Messages

MAX_DELIVERIES = 500
"""Maildirs in one request; a message for more is several requests."""
MAX_INLINE = 256 * 1024
"""Octets of a body that goes through the connection; a larger one goes as an open file."""
MAX_BODY = 2**40
"""Octets of a body, as of any message (``store.sizes.MAX_SIZE``)."""
MAX_TRACE = 256 * 1024
"""Octets of trace fields that this host adds."""
MAX_PATH = 4096
"""Octets of a path (Linux's PATH_MAX)."""
MAX_NAME = 1024
"""Octets of an extension, an address."""
MAX_ADDRESSES = 101
"""Addresses by which one copy came: the hops of a message are bounded likewise."""
MAX_COMMAND = 64 * 1024
"""Octets of a command (``alias_username`` is a TEXT at most)."""
MAX_TEXT = 8 * 1024
"""Octets of a text for people; a longer one is cut."""
MAX_TOLD = 64 * 1024
"""Octets of what an outcome says, its reply and its detail each: a command may have had its say."""
ALL_TOLD = 2 * 1024 * 1024
"""Octets of what all outcomes of an answer say."""
MAX_DROP = 2**31 - 1
"""Messages in a maildrop."""
MAX_MESSAGES = 5_000_000
"""Messages in a maildrop that a worker keeps a listing of."""
LISTED = 1000
"""Messages in one part of a listing."""
MAX_VERSION = 64
"""Octets by which a listing is recognised (``MaildirDrop.version``)."""
MAX_AHEAD = 64
"""Messages that are read ahead."""

LAST_MOMENT = 253_402_300_800.0
"""The end of the year 9999, in seconds since the epoch."""

_MESSAGE = struct.Struct("!dQQIII?")
"""When it was accepted; octets and lines of the body; Received fields; loops; octets of trace;
whether it comes from a list's owner."""
_NUMBER = struct.Struct("!I")
_UIDS = re.compile(rb"[\x21-\x7e]{1,70}(?:\n[\x21-\x7e]{1,70})*")
"""Lines of unique-ids (RFC 1939 §7)."""
_BITS = range(8)


# Deliveries


class Owner(NamedTuple):
    """Whose helper reads: accounts in its requests have these ids, whatever anybody says.

    A tuple, as each session looks its helper up by it.
    """

    uid: int
    gid: int


def write_message(
    out: Writer,
    envelope: Envelope,
    content: Content,
    deliveries: Sequence[Delivery | MboxDelivery | ProgramDelivery],
) -> None:
    """What delivery must know of a message: of the Delivered-To fields, those that are loops."""
    known = content.facts.delivered_to
    loops = sorted(known & _finals_of(deliveries)) if known else ()
    out.packed(
        _MESSAGE,
        envelope.received_at,
        content.body_size,
        content.body_lines,
        content.facts.received,
        len(loops),
        len(content.trace),
        envelope.by_list,
    )
    out.texts((envelope.queue_id, str(envelope.reverse_path), *loops), MAX_NAME)
    out.bare(content.trace, MAX_TRACE)


def _finals_of(deliveries: Iterable[Delivery | MboxDelivery | ProgramDelivery]) -> set[str]:
    """The addresses whose Delivered-To would be a loop."""
    return {fold(each.delivered_to[0]) for each in deliveries}


@record
class Message:
    """A message whose body is yet to come."""

    envelope: Envelope
    trace: bytes
    facts: HeaderFacts
    body_size: int
    body_lines: int

    def content(self, body: bytes | int) -> Content:
        """The content, now that its body is here: all octets, or an open file."""
        if isinstance(body, bytes) and len(body) != self.body_size:
            raise BadFrame(f"a body of {len(body)} octets that should have {self.body_size}")
        return Content(self.trace, body, self.body_size, self.body_lines, self.facts)

    def without_body(self) -> Content:
        """What says how large the content is, for those who need no more."""
        return Content(self.trace, b"", self.body_size, self.body_lines, self.facts)


def read_message(fields: Reader) -> Message:
    """See ``write_message``."""
    received_at, size, lines, received, loops, trace, by_list = fields.unpacked(_MESSAGE)
    if not 0 <= received_at < LAST_MOMENT:
        raise BadFrame(f"{received_at} is no time")
    if size > MAX_BODY or lines > size or loops > MAX_DELIVERIES or trace > MAX_TRACE:
        raise BadFrame("a message beyond its limits")
    queue_id, reverse_path, *found = fields.texts(2 + loops, MAX_NAME)
    if not queue_id.isprintable() or "/" in queue_id:
        raise BadFrame(f"{queue_id!r} cannot be a part of a file's name")
    sender = Address.from_stored(reverse_path) if reverse_path else NULL_REVERSE_PATH
    return Message(
        Envelope(queue_id, sender, (), received_at, by_list=by_list),
        fields.take(trace),
        HeaderFacts(received, frozenset(found)),
        size,
        lines,
    )


def write_deliveries(out: Writer, deliveries: Sequence[Delivery]) -> None:
    """Maildirs and whose they are."""
    out.count(len(deliveries))
    out.packed(counts(len(deliveries)), *[len(each.delivered_to) for each in deliveries])
    texts: list[str] = []
    for each in deliveries:
        texts += (each.maildir, each.account.name, each.account.home, *each.delivered_to)
    out.texts(texts, MAX_PATH)


def read_deliveries(fields: Reader, owner: Owner) -> list[Delivery]:
    """See ``write_deliveries``."""
    addresses = fields.unpacked(counts(fields.count(MAX_DELIVERIES)))
    if addresses and not 0 < min(addresses) <= max(addresses) <= MAX_ADDRESSES:
        raise BadFrame("a copy with too many addresses, or none")
    texts = iter(fields.texts(3 * len(addresses) + sum(addresses), MAX_PATH))
    found: list[Delivery] = []
    for number in addresses:
        maildir, name, home = islice(texts, 3)
        account = Account(name, owner.uid, owner.gid, home)
        found.append(Delivery(maildir, account, tuple(islice(texts, number))))
    return found


def write_mbox(out: Writer, mbox: MboxDelivery) -> None:
    """An mbox and whose it is."""
    out.text(mbox.path, MAX_PATH)
    write_account(out, mbox.account)
    _write_addresses(out, mbox.delivered_to)


def read_mbox(fields: Reader, owner: Owner) -> MboxDelivery:
    """See ``write_mbox``."""
    return MboxDelivery(fields.text(MAX_PATH), read_account(fields, owner), _read_addresses(fields))


def write_program(out: Writer, program: ProgramDelivery) -> None:
    """A program and whose it is."""
    out.text(program.command, MAX_COMMAND)
    write_account(out, program.account)
    _write_addresses(out, program.delivered_to)
    for value in (program.user, program.extension, program.default, program.new_sender):
        out.text(value, MAX_NAME)


def read_program(fields: Reader, owner: Owner) -> ProgramDelivery:
    """See ``write_program``."""
    return ProgramDelivery(
        fields.text(MAX_COMMAND),
        read_account(fields, owner),
        _read_addresses(fields),
        fields.text(MAX_NAME),
        fields.text(MAX_NAME),
        fields.text(MAX_NAME),
        fields.text(MAX_NAME),
    )


def write_account(out: Writer, account: Account) -> None:
    """Name and home, all that a helper is told of an account."""
    out.texts((account.name, account.home), MAX_PATH)


def read_account(fields: Reader, owner: Owner) -> Account:
    """See ``write_account``."""
    name, home = fields.texts(2, MAX_PATH)
    return Account(name, owner.uid, owner.gid, home)


def _write_addresses(out: Writer, addresses: Sequence[str]) -> None:
    out.count(len(addresses))
    for each in addresses:
        out.text(each, MAX_NAME)


def _read_addresses(fields: Reader) -> tuple[str, ...]:
    found = tuple(fields.text(MAX_NAME) for _ in range(fields.count(MAX_ADDRESSES)))
    if not found:
        raise BadFrame("a copy without its address")
    return found


# Outcomes

_TOPIC = re.compile(r"(?:[0-9]{1,3}\.[0-9]{1,3})?")
_NOT_FOR_PEERS = re.compile(r"[\0-\x08\x0b-\x1f\x7f]")
"""In a reply, which goes to an SMTP peer and into reports; the helper is its user's, perhaps."""
_DELIVERED, _TEMPORARY, _PERMANENT = range(3)


def write_outcomes(out: Writer, outcomes: Sequence[Outcome]) -> None:
    """One for each delivery."""
    out.count(len(outcomes))
    limit = min(MAX_TOLD, ALL_TOLD // (2 * max(len(outcomes), 1)))
    for each in outcomes:
        write_outcome(out, each, limit)


def read_outcomes(fields: Reader) -> tuple[Outcome, ...]:
    """See ``write_outcomes``."""
    return tuple([read_outcome(fields) for _ in range(fields.count(MAX_DELIVERIES))])


def write_outcome(out: Writer, outcome: Outcome, limit: int = MAX_TOLD) -> None:
    """What became of one copy; texts of more than ``limit`` octets are cut."""
    if isinstance(outcome, Delivered):
        out.small(_DELIVERED)
    else:
        out.small(_TEMPORARY if isinstance(outcome, TemporaryFailure) else _PERMANENT)
        out.count(outcome.reply.code)
        out.cut(outcome.reply.topic, MAX_NAME)
        out.cut(_NOT_FOR_PEERS.sub("?", outcome.reply.text), limit)
    out.cut(outcome.detail, limit)


def read_outcome(fields: Reader) -> Outcome:
    """See ``write_outcome``: the class of a failure and of its reply agree."""
    kind = fields.small()
    if kind == _DELIVERED:
        return Delivered(fields.told(MAX_TOLD))
    code, topic, text = fields.count(599), fields.told(MAX_NAME), fields.told(MAX_TOLD)
    if not _TOPIC.fullmatch(topic) or _NOT_FOR_PEERS.search(text):
        raise BadFrame("a reply that would break the dialog")
    reply = Reply(code, topic, text)
    detail = fields.told(MAX_TOLD)
    if kind == _TEMPORARY and code // 100 == 4:
        return TemporaryFailure(reply, detail)
    if kind == _PERMANENT and code // 100 == 5:
        return PermanentFailure(reply, detail)
    raise BadFrame(f"an outcome of kind {kind} with {code}")


def write_ran(out: Writer, ran: Ran) -> None:
    """How a program ended."""
    write_outcome(out, ran.outcome)
    out.flag(ran.is_last)


def read_ran(fields: Reader) -> Ran:
    """See ``write_ran``."""
    return Ran(read_outcome(fields), fields.flag())


# Maildrops


def write_open(account: Account, version: bytes) -> bytes:
    """Whose maildrop, and what the worker recognises the listing by that it has; empty: none."""
    out = Writer()
    write_account(out, account)
    out.blob(version, MAX_VERSION)
    return out.octets()


def read_open(fields: Reader, owner: Owner) -> tuple[Account, bytes]:
    """See ``write_open``."""
    account = read_account(fields, owner)
    version = fields.blob(MAX_VERSION)
    fields.end()
    return account, version


def drop_number(number: int) -> bytes:
    """Which of the maildrops that are open; requests about one begin so."""
    return _NUMBER.pack(number)


def opened(version: bytes) -> bytes:
    """What goes before the last part of a listing: what it will be recognised by."""
    out = Writer()
    out.blob(version, MAX_VERSION)
    return out.octets()


def read_opened(octets: bytes) -> tuple[bytes, Messages]:
    """See ``opened``; the part follows."""
    fields = Reader(octets)
    return fields.blob(MAX_VERSION), read_listed(fields.rest())


def listing(messages: Messages) -> Iterator[tuple[bytes, bool]]:
    """A listing in parts, each with whether it is the last; an empty one has one part.

    A part is how many messages it has, their sizes, and their unique-ids in lines.
    """
    uids = iter(messages.uids)
    for first in range(0, max(len(messages), 1), LISTED):
        part = messages.sizes[first : first + LISTED]
        sizes = struct.pack(f"!I{len(part)}Q", len(part), *part)
        yield sizes + b"\n".join(islice(uids, LISTED)), first + LISTED >= len(messages)


def read_listed(octets: bytes) -> Messages:
    """One part of a listing."""
    fields = Reader(octets)
    number = fields.count(LISTED)
    sizes = fields.unpacked(struct.Struct(f"!{number}Q"))
    lines = fields.rest()
    if number == 0 and not lines:
        return Messages()
    if not _UIDS.fullmatch(lines):
        raise BadFrame("a listing of what is no unique-id")
    uids = lines.split(b"\n")
    if len(uids) != number or max(sizes) > MAX_BODY:
        raise BadFrame("a listing with too few sizes, or too large ones")
    return Messages(uids, sizes)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The beginning of one message, and small messages after it."""

    block: bytes
    more: bool
    """The message goes on; MORE brings its next block."""
    ahead: dict[int, bytes]


def write_pieces(pieces: Pieces) -> list[bytes]:
    """As buffers, so that no octet of a message is copied for it."""
    out = Writer()
    out.flag(pieces.more)
    out.count(len(pieces.ahead))
    out.count(len(pieces.block))
    for index, content in pieces.ahead.items():
        out.count(index)
        out.count(len(content))
    return [out.octets(), pieces.block, *pieces.ahead.values()]


def read_pieces(octets: bytes) -> Pieces:
    """See ``write_pieces``."""
    fields = Reader(octets)
    more = fields.flag()
    number = fields.count(MAX_AHEAD)
    limit = len(octets)
    first = fields.count(limit)
    ahead = [(fields.count(MAX_DROP), fields.count(limit)) for _ in range(number)]
    block = fields.take(first)
    found = {index: fields.take(length) for index, length in ahead}
    fields.end()
    return Pieces(block, more, found)


def write_indexes(out: Writer, indexes: Iterable[int], total: int) -> None:
    """Which of ``total`` messages: a bit for each."""
    bits = bytearray(total // 8 + 1)
    for index in indexes:
        bits[index // 8] |= 1 << index % 8
    out.count(total)
    out.blob(bytes(bits), len(bits))


def read_indexes(fields: Reader, total: int) -> list[int]:
    """See ``write_indexes``; none of them reaches ``total``."""
    if fields.count(MAX_DROP) != total:
        raise BadFrame("a maildrop of another size")
    bits = fields.blob(total // 8 + 1)
    if len(bits) != total // 8 + 1:
        raise BadFrame("not a bit for each message")
    found = [
        place * 8 + bit
        for place, octet in enumerate(bits)
        if octet
        for bit in _BITS
        if octet >> bit & 1
    ]
    if found and found[-1] >= total:
        raise BadFrame("a message beyond the last one")
    return found


# Files


def write_dot_qmail(out: Writer, found: DotQmail | None) -> None:
    """A .qmail file, or none."""
    out.flag(found is not None)
    if found is None:
        return
    out.text(found.path, MAX_PATH)
    out.text(found.default, MAX_NAME)
    out.flag(found.has_owner)
    out.flag(found.has_owner_default)
    out.count(len(found.lines))
    for line in found.lines:
        out.text(line, MAX_SIZE)


def read_dot_qmail(fields: Reader) -> DotQmail | None:
    """See ``write_dot_qmail``."""
    if not fields.flag():
        return None
    path, default = fields.text(MAX_PATH), fields.text(MAX_NAME)
    has_owner, has_owner_default = fields.flag(), fields.flag()
    lines = tuple(fields.text(MAX_SIZE) for _ in range(fields.count(MAX_LINES)))
    return DotQmail(path, lines, default, has_owner, has_owner_default)
