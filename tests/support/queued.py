"""Messages for queue tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Content, Envelope, HeaderFacts, memory_content, queue_ids
from restante.queue import QueuedMessage, Target
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import PendingReport
from tests.support.jumping_clock import START

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
