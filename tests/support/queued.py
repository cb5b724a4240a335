"""Messages for queue tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Content, Envelope, HeaderFacts, memory_content, queue_ids
from restante.queue import LastAnswer, QueuedMessage, RecipientState, Target
from restante.queue.bodies import IN_ROW
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import PendingReport
from restante.status import Peer, Reply
from tests.support.jumping_clock import START

NOT_NOW = LastAnswer(Reply(451, "3.0", "not now"), "the disk is away", None, START + 1)
NEVER = LastAnswer(
    Reply(550, "1.1", "no\nsuch user"),
    "",
    Peer("mx.example", "192.0.2.1", "RCPT TO:<a@x>", "TLSv1.3 X", dsn=True),
    START + 1,
)
LARGE = b"Subject: large\n\n" + b"0123456789abcde\n" * (IN_ROW // 16)
"""A message that has no room in its row."""
SENDER = Address("sender", "example.com")
_IDS: Iterator[str] = queue_ids(7)


def new_id() -> str:
    return next(_IDS)


def envelope(
    *recipients: str, sender: ReversePath = SENDER, at: float = START, queue_id: str = ""
) -> Envelope:
    addresses = tuple(Address.parse(each) for each in recipients or ("iain@example.com",))
    return Envelope(queue_id or new_id(), sender, addresses, at)


def from_nobody(*recipients: str, at: float = START) -> Envelope:
    return envelope(*recipients, sender=NULL_REVERSE_PATH, at=at)


def content(body: bytes = b"Subject: hello\n\nHello.\n") -> Content:
    facts = HeaderFacts(3, frozenset({"a@example.com", "b@example.com"}))
    return memory_content(b"Received: from here\n", body, facts)


def targets(*addresses: str) -> tuple[Target, ...]:
    return tuple(Target(address) for address in addresses or ("iain@example.com",))


def limits(
    local: int = 100,
    remote: int = 100,
    per_lane: int = 100,
    per_message: int = 100,
    programs: int = 100,
) -> Limits:
    return Limits(local, remote, per_lane, per_message, programs)


async def due(
    store: QueueStore, now: float = START + 1, most: Limits | None = None
) -> list[QueuedMessage]:
    """What is due of messages; it is in flight then."""
    return list((await store.due(now, most or limits())).messages)


async def reports(store: QueueStore, now: float = START + 1) -> list[PendingReport]:
    """What is due of reports, with nothing else handed out."""
    return list((await store.due(now, limits(local=0, remote=0))).reports)


async def next_due(store: QueueStore, now: float = START + 1) -> float:
    """When there is more to do; nothing is handed out."""
    return (await store.due(now, limits(local=0, remote=0))).next_due


async def record(
    store: QueueStore, message: QueuedMessage, results: Sequence[Result], now: float = START + 1
) -> bool:
    """Record an attempt that taught nothing of its lane; True if the message is gone."""
    return (await store.record(message, results, now)).finished


async def the_only(store: QueueStore, now: float = START + 1) -> QueuedMessage:
    """What is due, which is one message."""
    (message,) = await due(store, now)
    return message


def delivered(message: QueuedMessage) -> list[Result]:
    """It was delivered to all of its recipients."""
    return [Result(each.id, RecipientState.DELIVERED) for each in message.recipients]


def waits(message: QueuedMessage, until: float) -> list[Result]:
    """Nobody got it yet."""
    return [Result(each.id, RecipientState.WAITING, NOT_NOW, until) for each in message.recipients]


def body_files(tmp_path: Path) -> set[str]:
    """The names of the bodies that the first worker's queue has in files."""
    return set(os.listdir(tmp_path / "0" / "bodies"))
