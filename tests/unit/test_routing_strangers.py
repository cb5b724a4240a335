"""Domains of other hosts: one look-up serves for a moment, and no longer."""

from __future__ import annotations

from restante.address import Address
from restante.config.tree import Routing
from restante.envelope import NO_DSN
from restante.receiver.door import Receiver
from restante.relay.routes import Routes
from restante.routing.decision import Mailbox, NoSuchUser, Remote
from restante.routing.router import Router
from restante.routing.strangers import MOST_DOMAINS, TRUST, Strangers
from tests.support.front_door import ANN, SETTINGS, mail, peer
from tests.support.memory_directory import MemoryDirectory, Tables
from tests.support.queued import new_id
from tests.unit.test_courier_receiver import Recorder

THERE = Address.parse("any@there.example")
OTHER = Address.parse("other@there.example")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Site:
    """A router, its tables, and what is remembered of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.strangers = Strangers(self.clock)
        self.tables = Tables(rcpthosts=["example.com"], mailbox=[ANN])
        self.tables.virtual = [(ANN.name, "ann", "example.com")]
        self.directory = MemoryDirectory(self.tables)
        self.router = Router(Routing(), "mail.host")

    async def route(self, *addresses: Address) -> tuple[object, ...]:
        return await self.strangers.route_many(self.router, addresses, self.directory)

    def looked_up(self) -> bool:
        """Whether anything was asked since the last time."""
        asked, self.directory.asked = self.directory.asked, []
        return bool(asked)


async def test_another_host_s_domain_is_looked_up_once_in_a_while() -> None:
    site = Site()
    assert await site.route(THERE) == (Remote(THERE),)
    assert site.looked_up()
    site.clock.time += TRUST - 0.01
    assert await site.route(OTHER, THERE) == (Remote(OTHER), Remote(THERE))
    assert not site.looked_up()
    site.clock.time += 0.01
    await site.route(THERE)
    assert site.looked_up()


async def test_using_what_is_remembered_makes_it_no_younger() -> None:
    site = Site()
    await site.route(THERE)
    site.tables.virtual.append((ANN.name, "any", "there.example"))
    for _ in range(3):
        site.clock.time += TRUST / 3
        decisions = await site.route(THERE, OTHER)
    assert isinstance(decisions[0], Mailbox)
    assert isinstance(decisions[1], NoSuchUser)


async def test_what_is_here_is_looked_up_each_time() -> None:
    site = Site()
    ann, nobody = Address.parse("ann@example.com"), Address.parse("nobody@example.com")
    for _ in range(2):
        (found,) = await site.route(ann)
        assert isinstance(found, Mailbox)
        assert site.looked_up()
        assert isinstance((await site.route(nobody))[0], NoSuchUser)
        assert site.looked_up()
        await site.route(THERE, ann)
        assert site.looked_up()


async def test_settings_count_at_once() -> None:
    site = Site()
    await site.route(THERE)
    for routing in (
        Routing(locals=("there.example",)),
        Routing(virtualdomains={"there.example": "ann"}),
        Routing(virtualdomains={"any@there.example": "ann"}),
    ):
        assert site.strangers.decisions(Router(routing, "mail.host"), (THERE,)) is None
    exempt = Router(Routing(virtualdomains={"there.example": "", "": "ann"}), "mail.host")
    assert site.strangers.decisions(exempt, (THERE,)) == (Remote(THERE),)


async def test_a_look_up_without_an_answer_is_not_remembered() -> None:
    site = Site()
    site.directory.fail_at = 0
    await site.route(THERE)
    site.directory.fail_at = None
    site.looked_up()
    assert await site.route(THERE) == (Remote(THERE),)
    assert site.looked_up()


def test_what_is_remembered_is_bounded() -> None:
    strangers = Strangers(Clock())
    for number in range(MOST_DOMAINS + 1):
        strangers.note([Remote(Address("any", f"{number}.example"))], strangers.now())
    router = Router(Routing(), "mail.host")
    first, last = (Address("any", f"{number}.example") for number in (0, MOST_DOMAINS))
    assert strangers.decisions(router, (first,)) is None
    assert strangers.decisions(router, (last,)) == (Remote(last),)


async def test_only_who_may_relay_is_answered_out_of_memory() -> None:
    site, recorder = Site(), Recorder()
    receiver = Receiver(
        SETTINGS,
        site.router,
        site.directory,
        recorder,
        recorder,
        Routes({}),
        iter(new_id, ""),
        strangers=site.strangers,
    )

    async def code(*, logged_in: bool) -> int:
        client = peer(receiver, "smtp", logged_in=logged_in)
        sender = Address.parse("ann@example.com")
        _, transaction = await mail(receiver, client, sender)
        assert transaction is not None
        site.looked_up()
        (reply,) = await receiver.recipients(transaction, [(THERE, NO_DSN)])
        assert not reply.is_success or transaction.decided == {THERE: Remote(THERE)}
        return reply.code

    assert await code(logged_in=True) == 250
    assert site.looked_up()
    assert await code(logged_in=True) == 250
    assert not site.looked_up()
    assert await code(logged_in=False) == 550
    assert site.looked_up()
