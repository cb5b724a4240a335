"""``restante queue show``: all that is known of one message, or the message itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from restante.address import shown
from restante.cli.output import (
    count,
    human_due,
    human_size,
    human_span,
    one_line,
    print_record,
    timestamp,
)
from restante.cli.queues.record import notify_names
from restante.errors import OperatorError, reason_of

if TYPE_CHECKING:
    from restante.envelope import Content
    from restante.queue import LastAnswer, QueuedRecipient
    from restante.queue.reader import LaneAlone, QueueEntry


def print_entry(entry: QueueEntry) -> None:
    """The envelope, then every recipient and how its attempts went."""
    envelope = entry.envelope
    record = {
        "id": envelope.queue_id,
        "sender": f"<{shown(str(envelope.reverse_path))}>",
        "received": _ago(envelope.received_at),
        "size": _size(entry.size),
        "queue": entry.slot,
    }
    if envelope.ret:
        record["ret"] = envelope.ret
    if envelope.envid:
        record["envid"] = envelope.envid
    record["recipients"] = _tally(entry)
    print_record(record, as_json=False)
    for recipient in entry.recipients:
        print()
        for line in _recipient(entry, recipient):
            print(one_line(line))


def print_content(content: Content, *, headers: bool, body: bool) -> None:
    """The message's header, its body, or all of it, as it is; on a terminal nothing it obeys.

    Raises OperatorError when a large body has left the queue, or a part of it is missing.
    """
    if headers and body:
        chunks = _chunks(content)
    else:
        chunks = (part for in_header, part in _halves(content) if in_header is headers)
    sys.stdout.flush()
    if sys.stdout.isatty():
        for chunk in chunks:
            print(_harmless(chunk), end="")
    else:
        sys.stdout.buffer.writelines(chunks)
        sys.stdout.buffer.flush()


def _chunks(content: Content) -> Iterator[bytes]:
    try:
        yield from content.chunks()
    except OSError as error:
        raise OperatorError(f"the message cannot be read to its end: {reason_of(error)}") from error


def _halves(content: Content) -> Iterator[tuple[bool, bytes]]:
    """The message in pieces, without the empty line; True: of the header."""
    in_header, rest = True, b""
    for chunk in _chunks(content):
        if not in_header:
            yield False, chunk
            continue
        rest += chunk
        header, end, body = rest.partition(b"\n\n")
        if end:
            in_header = False
            yield True, header + b"\n"
            yield False, body
    if in_header:
        yield True, rest


def _harmless(octets: bytes) -> str:
    text = octets.decode("utf-8", "replace")
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def _size(octets: int) -> str:
    exactly = count(octets, "octet")
    return f"{human_size(octets)} ({exactly})" if octets >= 1024 else exactly


def _tally(entry: QueueEntry) -> str:
    """``3: 1 waiting, 2 delivered``."""
    states = [recipient.state.value for recipient in entry.recipients]
    parts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)}: {parts}" if len(set(states)) > 1 else parts


def _recipient(entry: QueueEntry, recipient: QueuedRecipient) -> Iterator[str]:
    target = recipient.target
    yield f"{shown(target.address)}: {_standing(entry, recipient)}"
    if target.instruction:
        yield from (f"  only: {line}" for line in target.instruction.split("\n"))
    if target.reverse_path is not None:
        yield f"  from: <{shown(target.reverse_path)}>"
    if recipient.trail:
        yield f"  by way of: {', '.join(map(shown, recipient.trail))}"
    if target.dsn.notify is not None or target.dsn.orcpt:
        yield f"  asked for: {_wishes(recipient)}"
    if recipient.last is not None:
        yield f"  attempts: {recipient.attempts}, the last {_ago(recipient.last.at)}"
        yield f"  {_speaker(recipient.last)}"
        yield f"    {recipient.last.reply}"
        if recipient.last.detail:
            yield f"    ({recipient.last.detail})"
    if target.lane and recipient.state in ("waiting", "held"):
        alone = entry.alone.get(target.lane)
        yield f"  lane: {target.lane}" + (f", {left_alone(alone)}" if alone else "")


def _standing(entry: QueueEntry, recipient: QueuedRecipient) -> str:
    if recipient.state != "waiting":
        return recipient.state.value
    due = entry.due(recipient)
    return f"waiting, next attempt {human_due(due)} ({timestamp(due)})"


def left_alone(lane: LaneAlone) -> str:
    """Until when a lane is, and why."""
    times = count(lane.failures, "failure")
    return f"left alone until {timestamp(lane.until)} after {times}: {lane.why}"


def _speaker(last: LastAnswer) -> str:
    """Who said what follows, and to what."""
    peer = last.peer
    if peer is None:
        return "this host says:"
    tls = f" ({peer.tls})" if peer.tls else ""
    if peer.silent:
        return f"this host says of {peer.place}{tls}, at {peer.command}:"
    return f"{peer.place}{tls} said to {peer.command}:"


def _wishes(recipient: QueuedRecipient) -> str:
    dsn = recipient.target.dsn
    parts = []
    if dsn.notify is not None:
        parts.append(f"NOTIFY={','.join(notify_names(dsn.notify))}")
    if dsn.orcpt:
        parts.append(f"ORCPT={dsn.orcpt}")
    return " ".join(parts)


def _ago(moment: float) -> str:
    return f"{timestamp(moment)}, {human_span(time.time() - moment)} ago"
