"""A mailbox gets one copy of a message that waits, by however many addresses it is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from restante.config.tree import Routing
from restante.courier import MailCourier, WaysOut
from restante.envelope import Content, Envelope
from restante.mda import Delivery
from restante.mda.writer import BatchWriter
from restante.queue import LOCAL_LANE, Attempted, Target
from restante.relay import Parcel
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.routing.strangers import Strangers
from restante.status import Delivered, Outcome, Reply, TemporaryFailure
from tests.support.deliveries import GROUP, HOST, OWNER
from tests.support.desk import Desk, at_work
from tests.support.jumping_clock import JumpingClock
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.queued import content, envelope

LISTS = {
    "sales": ["&ann@example.com"],
    "nested": ["&info@example.com", "&sales@example.com"],
    "owned": ["&ann@example.com"],
    "owned-owner": ["&ann@example.com"],
    "other": ["&ann@example.com"],
    "other-owner": ["&ann@example.com"],
    "both": ["&ann@xn--mller-kva.example"],
}
"""What the alias user has; ``owned`` and ``other`` have owners."""


class Far:
    """A relay that is rid of everything."""

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        return Attempted([Delivered("sent")] * len(parcel.recipients))


class BusyOnce(BatchWriter):
    """A writer that puts off what comes first."""

    _is_busy_now = True

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        if self._is_busy_now:
            self._is_busy_now = False
            return (TemporaryFailure(Reply(451, "3.0", "not now")),) * len(deliveries)
        return await super().deliver_each(envelope, content, deliveries, again=again)


class Site:
    """Ann, who has several addresses, and aliases that lead to her."""

    def __init__(self, root: Path, writer: BatchWriter | None = None) -> None:
        self.home = root / "ann"
        self.writer = writer or BatchWriter(HOST, 1, 1)
        self._queue = root / "queue"
        rows = [(f"{name}@example.com", name, "example.com") for name in LISTS]
        rows += [("ann@example.com", name, "example.com") for name in ("ann", "info")]
        tables = Tables(
            mailbox=[account("ann@example.com", str(self.home), OWNER, GROUP)],
            virtual=[*rows, ("ann@example.com", "ann", "müller.example")],
            alias=[
                ("alias", f"{name}@example.com", line, "")
                for name, lines in LISTS.items()
                for line in lines
            ],
        )
        self._directory = MemoryDirectory(tables)
        self.clock = JumpingClock()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Desk]:
        router = Router(Routing(), HOST)
        out = WaysOut(Routes({}), Far())
        courier = MailCourier(router, self._directory, self.writer, out, Strangers())
        async with at_work(self._queue, self.clock, courier) as desk:
            yield desk
        await self.writer.close()

    @property
    def copies(self) -> list[bytes]:
        """What lies in Ann's Maildir."""
        return [path.read_bytes() for path in self.home.glob("Maildir/*/*") if path.is_file()]


def waiting(*addresses: str) -> list[Target]:
    """As a session queues them: whom it knows to be elsewhere in the lane there."""
    return [
        Target(each, lane="far.example" if each.endswith("@far.example") else LOCAL_LANE)
        for each in addresses
    ]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    "recipients",
    [
        ["info@example.com", "sales@example.com", "bob@far.example"],
        ["sales@example.com", "info@example.com", "ann@example.com"],
        ["nested@example.com"],
        ["nested@example.com", "ann@müller.example"],
        ["ann@müller.example", "ann@xn--mller-kva.example", "both@example.com"],
    ],
    ids=" ".join,
)
async def test_one_copy(site: Site, recipients: Sequence[str]) -> None:
    async with site.at_work() as desk:
        await desk.store.add(envelope(), content(), waiting(*recipients))
        await desk.rest()
        assert desk.store.waiting == 0
    assert len(site.copies) == 1


async def test_who_was_put_off_meanwhile_gets_no_second_one(tmp_path: Path) -> None:
    """The copy by way of the alias is made first."""
    site = Site(tmp_path, BusyOnce(HOST, 1, 1))
    async with site.at_work() as desk:
        goals = waiting("info@example.com", "sales@example.com")
        await desk.store.add(envelope(), content(), goals)
        await desk.rest()
        assert desk.store.waiting == len(site.copies) == 1
        await desk.pass_time(200)
        assert desk.store.waiting == 0
    assert len(site.copies) == 1


async def test_two_messages_are_two_copies(site: Site) -> None:
    """Of the same content, from the same sender, at the same moment; also if one was kept."""
    sent = envelope()
    async with site.at_work() as desk:
        for each in (sent, replace(sent, queue_id=envelope().queue_id)):
            await desk.store.add(each, content(), waiting("info@example.com", "sales@example.com"))
            await desk.rest()
        assert desk.store.waiting == 0
    assert len(site.copies) == 2


@pytest.mark.parametrize(
    "recipients",
    [
        ["info@example.com", "sales@example.com", "owned@example.com"],
        ["owned@example.com", "nested@example.com"],
    ],
    ids=" ".join,
)
async def test_the_copy_from_the_owner_of_a_list_is_another_one(
    site: Site, recipients: Sequence[str]
) -> None:
    async with site.at_work() as desk:
        await desk.store.add(envelope(), content(), waiting(*recipients))
        await desk.rest()
        assert desk.store.waiting == 0
    senders = sorted(each.splitlines()[0] for each in site.copies)
    assert senders == [
        b"Return-Path: <owned-owner@example.com>",
        b"Return-Path: <sender@example.com>",
    ]


async def test_copies_from_the_owners_of_two_lists_are_two(site: Site) -> None:
    """Though they have the same size."""
    async with site.at_work() as desk:
        goals = waiting("owned@example.com", "other@example.com")
        await desk.store.add(envelope(), content(), goals)
        await desk.rest()
        assert desk.store.waiting == 0
    senders = sorted(each.splitlines()[0] for each in site.copies)
    assert senders == [
        b"Return-Path: <other-owner@example.com>",
        b"Return-Path: <owned-owner@example.com>",
    ]
