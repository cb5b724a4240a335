"""Messages for queue tests."""

from __future__ import annotations

from collections.abc import Iterator

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Content, Envelope, HeaderFacts, memory_content, queue_ids
from restante.queue import Target
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
