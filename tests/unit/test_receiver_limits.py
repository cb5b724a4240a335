"""How much an account may send: what it hears, and what counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from restante.address import Address
from restante.config.tree import Submission
from restante.envelope import NO_DSN, Origin
from restante.receiver.limits import SendingLimits
from restante.spool import Spool
from restante.status import Delivered, PermanentFailure, Reply
from restante.usage.ledger import UsageLedger
from tests.support.events import capture_logs
from tests.support.front_door import SETTINGS, Keeper, door, mail, peer

HOURLY = replace(SETTINGS, submission=Submission(messages_per_hour=2, recipients_per_hour=3))


class Clock:
    """Stands still until it is told to jump."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Limited:
    """A receiver that counts in a file of its own."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    keeper: Keeper = field(default_factory=Keeper)

    def __post_init__(self) -> None:
        self.ledger = UsageLedger(str(self.directory))
        limits = SendingLimits(HOURLY.submission, self.ledger, self.clock)
        self.receiver = door(HOURLY, self.keeper, limits)

    async def send(self, *recipients: str, logged_in: bool = True) -> list[str]:
        """The replies to MAIL, every RCPT and the end of the content, as far as it comes."""
        client = peer(self.receiver, "smtp", logged_in=logged_in)
        ann = Address("ann", "example.com")
        reply, transaction = await mail(self.receiver, client, ann)
        if transaction is None:
            return [str(reply)]
        asked = [(Address.parse(each), NO_DSN) for each in recipients]
        replies = [reply, *await self.receiver.recipients(transaction, asked)]
        if transaction.decided:
            spool = Spool(str(self.directory), 1000, 1000)
            origin = Origin("laptop", "192.0.2.7", "ESMTPSA")
            replies.append(await self.receiver.accept(transaction, origin, spool))
            spool.close()
        return [str(each)[:9] for each in replies]


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Limited]:
    limited = Limited(tmp_path)
    yield limited
    await limited.ledger.close()


SENT = ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
ANNS = ("ann@example.com", "ann+1@example.com", "ann+2@example.com", "ann+3@example.com")


async def test_messages_an_hour(limited: Limited) -> None:
    for _ in range(2):
        assert await limited.send("ann@example.com") == SENT
    with capture_logs() as events:
        (refused,) = await limited.send("ann@example.com")
    told = "this account has reached its limit of messages per hour, try again later"
    assert refused == f"452 4.7.1 {told}"
    assert [event["event"] for event in events] == ["rate_limited", "sender_refused"]
    assert events[0]["account"] == "ann@example.com"
    assert (events[0]["limit"], events[0]["allowed"]) == ("messages_per_hour", 2)
    assert await limited.send("ann@example.com", logged_in=False) == SENT
    limited.clock.now += 3660
    assert await limited.send("ann@example.com") == SENT


async def test_recipients_an_hour(limited: Limited) -> None:
    with capture_logs() as events:
        replies = await limited.send(*ANNS, "ann+4@example.com", "ann@example.com")
    assert replies == [
        "250 2.1.0",
        *["250 2.1.5"] * 3,
        *["452 4.7.1"] * 2,
        "250 2.1.5",  # named twice, it is one recipient
        "250 2.0.0",
    ]
    assert [event["event"] for event in events].count("rate_limited") == 1
    assert await limited.send("ann@example.com") != SENT


async def test_what_is_refused_does_not_count(limited: Limited) -> None:
    limited.keeper.outcome = PermanentFailure(Reply(554, "4.6", "looping"))
    for _ in range(5):
        assert (await limited.send("ann@example.com"))[-1] == "554 5.4.6"
    for _ in range(5):
        assert (await limited.send("nobody@example.com"))[-1] == "550 5.1.1"
    limited.keeper.outcome = Delivered("here")
    assert await limited.send("ann@example.com") == SENT


async def test_sessions_that_began_together_share_what_is_left(limited: Limited) -> None:
    told = await asyncio.gather(*(limited.send("ann@example.com") for _ in range(5)))
    assert [replies[-1][:9] for replies in told].count("250 2.0.0") == 2
    assert sum(replies[-1].startswith("452 4.7.1") for replies in told) == 3


async def test_what_cannot_be_counted_is_not_taken(limited: Limited) -> None:
    (limited.directory / "usage.db").mkdir()
    (told,) = await limited.send("ann@example.com")
    assert told.startswith("451 4.3.0")
    assert await limited.send("ann@example.com", logged_in=False) == SENT
