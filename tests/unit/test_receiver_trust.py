"""Recipients who were taken before: answered at once, and never delivered to without the rows."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from restante.address import Address
from restante.config import Settings
from restante.config.tree import Submission
from restante.directory import KnownLookups
from restante.envelope import NO_DSN, Notify, Origin, RecipientDsn
from restante.receiver import Transaction, trust
from restante.receiver.limits import SendingLimits
from restante.receiver.trust import MOST_QUESTIONS, PAIRS, TOGETHER, FamiliarRecipients
from restante.routing.decision import Mailbox
from restante.routing.reply import RECIPIENT_OK
from restante.routing.router import Router
from restante.spool import Spool
from restante.status import Reply
from restante.usage.ledger import UsageLedger
from tests.support.events import capture_logs
from tests.support.front_door import SETTINGS, Keeper, door, mail, peer
from tests.support.memory_directory import MemoryDirectory, Tables, account

FRIEND = Address("friend", "example.net")


class SlowDirectory(MemoryDirectory):
    """Answers when it may."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.open = asyncio.Event()
        self.open.set()

    async def prefetch(self, addresses: Sequence[tuple[str, str]]) -> KnownLookups:
        await self.open.wait()
        return await super().prefetch(addresses)


def tables(*names: str) -> Tables:
    accounts = [account(f"{name}@example.com") for name in names]
    return Tables(
        rcpthosts=["example.com"],
        mailbox=accounts,
        virtual=[(f"{name}@example.com", name, "example.com") for name in names],
    )


def addresses(names: Iterable[str]) -> list[Address]:
    return [Address(name, "example.com") for name in names]


@dataclass
class Site:
    """A receiver, what it delivers, and the rows that it asks."""

    directory: SlowDirectory
    place: Path
    limits: SendingLimits | None = None
    settings: Settings = SETTINGS
    keeper: Keeper = field(default_factory=Keeper)

    def __post_init__(self) -> None:
        self.receiver = door(self.settings, self.keeper, self.limits, self.directory)

    async def begin(self, session: str = "s", *, logged_in: bool = False) -> Transaction:
        sender = Address("ann", "example.com") if logged_in else FRIEND
        client = replace(peer(self.receiver, "smtp", logged_in=logged_in), session=session)
        _, transaction = await mail(self.receiver, client, sender)
        assert transaction is not None
        return transaction

    def on_trust(self, transaction: Transaction, *names: str) -> list[str]:
        """What RCPT is answered at once; nothing where somebody has to be asked first."""
        replies = [
            self.receiver.recipient_on_trust(transaction, address, NO_DSN)
            for address in addresses(names)
        ]
        return [shown(reply) if reply else "" for reply in replies]

    async def asked(self, transaction: Transaction, *names: str) -> list[str]:
        """What RCPT is answered when the rows were asked."""
        pairs = [(address, NO_DSN) for address in addresses(names)]
        return [shown(each) for each in await self.receiver.recipients(transaction, pairs)]

    async def finish(self, transaction: Transaction) -> str:
        """What the content is answered."""
        spool = Spool(str(self.place), 1000, 1000)
        await spool.write(b"Subject: hello\n\n")
        try:
            origin = Origin("client", "192.0.2.7", "ESMTP")
            return shown(await self.receiver.accept(transaction, origin, spool))
        finally:
            spool.close()

    async def meet(self, *names: str) -> None:
        """Have them asked about, so that they are familiar."""
        assert await self.asked(await self.begin(), *names) == ["250 2.1.5"] * len(names)

    def delivered(self) -> list[list[str]]:
        """Where each message went."""
        return [[copy.maildir for copy in copies] for copies in self.keeper.together]


def shown(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(SlowDirectory(tables("ann", "bob", "cid")), tmp_path)


def maildir(name: str) -> str:
    return f"/home/{name}@example.com/Maildir"


async def test_nobody_is_taken_on_trust_who_was_not_taken_before(site: Site) -> None:
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann", "nobody") == ["", ""]
    assert await site.asked(transaction, "nobody") == ["550 5.1.1"]
    assert site.on_trust(transaction, "nobody") == [""]
    assert not transaction.decided


async def test_rcpt_is_answered_first_and_the_content_when_the_rows_have_answered(
    site: Site,
) -> None:
    await site.meet("ann")
    site.directory.open.clear()
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann") == ["250 2.1.5"]
    answer = asyncio.create_task(site.finish(transaction))
    await asyncio.sleep(0.05)
    assert not answer.done()
    assert site.delivered() == []
    site.directory.open.set()
    assert await answer == "250 2.0.0"
    assert site.delivered() == [[maildir("ann")]]


async def test_the_only_recipient_who_is_gone_is_the_answer_to_the_content(site: Site) -> None:
    await site.meet("ann")
    site.directory.tables.virtual.clear()
    site.directory.tables.virtual.append(("bob@example.com", "bob", "example.com"))
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann") == ["250 2.1.5"]
    with capture_logs() as events:
        assert await site.finish(transaction) == "550 5.1.1"
    assert [event["event"] for event in events] == ["recipient_refused", "message_refused"]
    assert [event["sender"] for event in events] == [str(FRIEND)] * 2
    assert events[1]["recipients"] == ["ann@example.com"]
    assert (site.keeper.together, site.keeper.queued) == ([], [])
    assert site.on_trust(await site.begin(), "ann") == [""]
    assert await site.asked(await site.begin(), "ann") == ["550 5.1.1"]


async def test_who_is_refused_at_rcpt_is_asked_about_first_the_next_time(site: Site) -> None:
    """As when somebody new came together with them, or while the database was away."""
    await site.meet("ann")
    del site.directory.tables.virtual[0]
    assert await site.asked(await site.begin(), "bob", "ann") == ["250 2.1.5", "550 5.1.1"]
    assert site.on_trust(await site.begin(), "ann", "bob") == ["", "250 2.1.5"]


async def test_where_one_of_several_is_gone_rcpt_tells_whom_next_time(site: Site) -> None:
    await site.meet("ann", "bob", "cid")
    del site.directory.tables.virtual[1]
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann", "bob", "cid") == ["250 2.1.5"] * 3
    assert await site.finish(transaction) == "451 4.1.0"
    assert (site.keeper.together, site.keeper.queued) == ([], [])
    again = await site.begin()
    assert site.on_trust(again, "ann", "bob", "cid") == ["250 2.1.5", "", "250 2.1.5"]
    assert await site.asked(again, "bob") == ["550 5.1.1"]
    assert await site.finish(again) == "250 2.0.0"
    assert site.delivered() == [[maildir("ann"), maildir("cid")]]


async def test_who_is_gone_and_was_asked_about_before_is_no_matter_of_trust(site: Site) -> None:
    """One of them is new and asked about, the other is familiar: both count."""
    await site.meet("ann")
    site.directory.tables.virtual.pop(0)
    transaction = await site.begin()
    assert await site.asked(transaction, "bob") == ["250 2.1.5"]
    assert site.on_trust(transaction, "ann") == ["250 2.1.5"]
    assert await site.finish(transaction) == "451 4.1.0"


async def test_a_domain_that_is_not_here_any_more_is_refused_as_relaying(site: Site) -> None:
    await site.meet("ann")
    site.directory.tables.rcpthosts.clear()
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann") == ["250 2.1.5"]
    assert await site.finish(transaction) == "550 5.7.1"


async def test_mail_goes_where_the_rows_say_by_now(site: Site) -> None:
    await site.meet("ann", "bob")
    site.directory.tables.mailbox[0] = account("ann@example.com", "/elsewhere")
    transaction = await site.begin()
    site.on_trust(transaction, "bob", "ann")
    assert await site.finish(transaction) == "250 2.0.0"
    assert site.delivered() == [[maildir("bob"), "/elsewhere/Maildir"]]


async def test_without_a_database_the_content_is_put_off_and_then_rcpt(site: Site) -> None:
    await site.meet("ann", "bob", "cid")
    site.directory.away = True
    transaction = await site.begin()
    assert site.on_trust(transaction, "ann", "bob") == ["250 2.1.5"] * 2
    assert await site.finish(transaction) == "451 4.3.0"
    assert (site.keeper.together, site.keeper.queued) == ([], [])
    again = await site.begin()
    assert site.on_trust(again, "cid") == [""]
    assert await site.asked(again, "ann") == ["451 4.3.0"]
    site.directory.away = False
    await site.meet("bob")
    assert site.on_trust(again, "cid", "bob") == ["250 2.1.5"] * 2


async def test_a_check_that_ends_at_rcpt_sees_at_the_second_time_that_the_database_is_away(
    site: Site,
) -> None:
    await site.meet("ann")
    site.directory.away = True
    assert site.on_trust(await site.begin(), "ann") == ["250 2.1.5"]
    await asyncio.sleep(0.01)
    again = await site.begin()
    assert site.on_trust(again, "ann") == [""]
    assert await site.asked(again, "ann") == ["451 4.3.0"]


async def test_recipients_stay_in_their_order(site: Site) -> None:
    await site.meet("cid", "ann")
    transaction = await site.begin()
    assert site.on_trust(transaction, "cid") == ["250 2.1.5"]
    assert await site.asked(transaction, "bob") == ["250 2.1.5"]
    assert site.on_trust(transaction, "ann") == ["250 2.1.5"]
    assert await site.finish(transaction) == "250 2.0.0"
    assert site.delivered() == [[maildir("cid"), maildir("bob"), maildir("ann")]]


async def test_who_is_named_twice_gets_one_copy_and_asks_for_both(site: Site) -> None:
    await site.meet("ann")
    transaction = await site.begin()
    ann = Address("ann", "example.com")
    for notify in (Notify.FAILURE, Notify.DELAY):
        site.receiver.recipient_on_trust(transaction, ann, RecipientDsn(notify))
    assert transaction.dsn[ann].notify == Notify.FAILURE | Notify.DELAY
    before = len(site.directory.asked)
    assert await site.finish(transaction) == "250 2.0.0"
    assert len(site.directory.asked) - before == 1
    assert site.delivered() == [[maildir("ann")]]


async def test_who_is_named_in_brackets_as_well_is_one_recipient(tmp_path: Path) -> None:
    routing = replace(SETTINGS.routing, localiphost="example.com")
    rows = SlowDirectory(tables("ann"))
    site = Site(rows, tmp_path, settings=replace(SETTINGS, routing=routing))
    await site.meet("ann")
    transaction = await site.begin()
    for domain in ("[127.0.0.1]", "example.com", "[ipv6:0::ffff:127.0.0.1]"):
        reply = site.receiver.recipient_on_trust(transaction, Address("ann", domain), NO_DSN)
        assert reply == RECIPIENT_OK
    assert await site.finish(transaction) == "250 2.0.0"
    assert site.delivered() == [[maildir("ann")]]


async def test_many_are_asked_about_in_few_questions(tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(300)]
    site = Site(SlowDirectory(tables(*names)), tmp_path)
    await site.meet(*names)
    transaction = await site.begin()
    before = len(site.directory.asked)
    for name in names:
        # Three of them may meet in the same two places, by chance.
        if site.on_trust(transaction, name) != ["250 2.1.5"]:
            assert await site.asked(transaction, name) == ["250 2.1.5"]
    assert await site.finish(transaction) == "250 2.0.0"
    asked = site.directory.asked[before:]
    assert max(len(question) - 1 for question in asked) == TOGETHER
    assert len(asked) < 300 / TOGETHER + 10
    assert [len(each) for each in site.delivered()] == [300]


async def test_few_are_asked_about_before_the_content_comes(site: Site) -> None:
    await site.meet("ann", "bob")
    transaction = await site.begin()
    before = len(site.directory.asked)
    site.on_trust(transaction, "ann", "bob")
    await asyncio.sleep(0)
    assert len(site.directory.asked) - before == 2


async def test_a_transaction_that_is_dropped_leaves_nothing(site: Site) -> None:
    await site.meet("ann")
    site.directory.open.clear()
    dropped = await site.begin()
    site.on_trust(dropped, "ann")
    assert dropped.on_trust is not None
    question = weakref.ref(dropped.on_trust.questions[0])
    del dropped
    gc.collect()
    assert question() is not None, "nobody else holds it"
    del site.directory.tables.virtual[0]
    await asyncio.sleep(0)
    site.directory.open.set()
    await asyncio.sleep(0.01)
    gc.collect()
    assert question() is None
    assert (site.keeper.together, site.keeper.queued) == ([], [])
    assert site.on_trust(await site.begin(), "ann") == [""]


async def test_there_is_an_end_to_what_is_asked_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_QUESTIONS >= 1
    monkeypatch.setattr(trust, "MOST_QUESTIONS", 3)
    await site.meet("ann")
    site.directory.open.clear()
    for session in "abc":
        assert site.on_trust(await site.begin(session), "ann") == ["250 2.1.5"]
    assert site.on_trust(await site.begin("d"), "ann") == [""]
    site.directory.open.set()
    await asyncio.sleep(0.01)
    assert site.on_trust(await site.begin(), "ann") == ["250 2.1.5"]


async def test_a_session_has_no_more_asked_at_a_time_than_one_transaction_needs(
    site: Site,
) -> None:
    await site.meet("ann", "bob")
    first, second = asyncio.Event(), asyncio.Event()
    dropped = await site.begin()
    for site.directory.open, name in ((first, "ann"), (second, "bob")):
        assert site.on_trust(dropped, name) == ["250 2.1.5"]
        await asyncio.sleep(0)
    for answered, taken in ((first, ""), (second, "250 2.1.5")):
        assert site.on_trust(await site.begin(), "ann") == [""]
        answered.set()
        await asyncio.sleep(0.01)
        assert site.on_trust(await site.begin("another"), "ann") == ["250 2.1.5"]
        assert site.on_trust(await site.begin(), "ann") == [taken]


async def test_a_bug_is_a_temporary_failure_and_the_next_time_only_for_whom_it_is_about(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Router.at_once

    def failing(self: Router, address: Address, lookups: KnownLookups) -> Mailbox | None:
        if address.local == "bob":
            raise RuntimeError("a bug")
        return at_once(self, address, lookups)

    await site.meet("ann", "bob")
    monkeypatch.setattr(Router, "at_once", failing)
    transaction = await site.begin()
    site.on_trust(transaction, "ann", "bob")
    with capture_logs() as events:
        assert await site.finish(transaction) == "451 4.3.0"
    assert "unplanned" in {event["event"] for event in events}
    again = await site.begin()
    assert site.on_trust(again, "ann", "bob") == ["250 2.1.5", ""]
    assert await site.finish(again) == "250 2.0.0"
    assert site.delivered() == [[maildir("ann")]]


@asynccontextmanager
async def limits(directory: Path) -> AsyncIterator[SendingLimits]:
    ledger = UsageLedger(str(directory))
    submission = Submission(recipients_per_hour=2)
    yield SendingLimits(submission, ledger, lambda: 1_800_000_000.0)
    await ledger.close()


async def test_an_account_may_not_have_more_recipients_by_trust(tmp_path: Path) -> None:
    async with limits(tmp_path) as few:
        site = Site(SlowDirectory(tables("ann", "bob", "cid")), tmp_path, few)
        await site.meet("ann", "bob", "cid")
        transaction = await site.begin(logged_in=True)
        assert site.on_trust(transaction, "ann", "bob", "bob") == ["250 2.1.5"] * 3
        assert site.on_trust(transaction, "cid") == [""]
        (refused,) = await site.asked(transaction, "cid")
        assert refused.startswith("45")
        assert await site.finish(transaction) == "250 2.0.0"
        assert site.delivered() == [[maildir("ann"), maildir("bob")]]


async def test_what_only_a_relay_client_may_send_to_is_no_strangers_recipient(site: Site) -> None:
    site.directory.tables.rcpthosts.clear()
    transaction = await site.begin(logged_in=True)
    assert await site.asked(transaction, "bob") == ["250 2.1.5"]
    assert site.on_trust(await site.begin(), "bob") == [""]


async def test_who_becomes_a_relay_clients_recipient_alone_is_no_strangers_any_more(
    site: Site,
) -> None:
    await site.meet("bob")
    site.directory.tables.rcpthosts.clear()
    transaction = await site.begin(logged_in=True)
    assert site.on_trust(transaction, "bob") == ["250 2.1.5"]
    assert await site.finish(transaction) == "250 2.0.0"
    assert site.on_trust(await site.begin(), "bob") == [""]


async def test_an_alias_is_taken_on_trust_too(site: Site) -> None:
    rows = site.directory.tables
    rows.virtual.append(("list@example.com", "list", "example.com"))
    rows.alias.append(("alias", "list@example.com", "bob", "example.com"))
    await site.meet("list")
    rows.alias[0] = ("alias", "list@example.com", "cid", "example.com")
    transaction = await site.begin()
    assert site.on_trust(transaction, "list") == ["250 2.1.5"]
    assert await site.finish(transaction) == "250 2.0.0"
    assert site.delivered() == [[maildir("cid")]]


def test_two_addresses_that_share_their_places_are_known_and_a_third_drives_one_out() -> None:
    familiar = FamiliarRecipients()
    all_of_them = (Address(f"u{number}", "example.com") for number in range(100 * PAIRS))
    alike = (each for each in all_of_them if hash((0, each)) % PAIRS == 0)
    first, second, third = next(alike), next(alike), next(alike)

    def known() -> list[bool]:
        return [familiar.has(each) for each in (first, second, third)]

    assert known() == [False, False, False]
    familiar.add(first)
    familiar.add(second)
    assert known() == [True, True, False]
    familiar.add(first)
    familiar.add(first)
    familiar.add(third)
    assert known() == [True, False, True]
    familiar.forget(second)
    assert known() == [True, False, True]
    familiar.forget(first)
    assert known() == [False, False, True]
    familiar.forget(third)
    assert known() == [False, False, False]


def test_who_was_taken_under_other_settings_is_not_known() -> None:
    familiar = FamiliarRecipients()
    ann = Address("ann", "example.com")
    others = [
        replace(SETTINGS, routing=replace(SETTINGS.routing, envnoathost="example.net")),
        replace(SETTINGS, receiver=replace(SETTINGS.receiver, verify_recipients=False)),
    ]
    familiar.under(SETTINGS).add(ann)
    assert familiar.under(replace(SETTINGS, directory="/elsewhere")).has(ann)
    for other in others:
        assert not familiar.under(other).has(ann)
        familiar.under(other).forget(ann)
    assert familiar.under(SETTINGS).has(ann)


def test_what_a_forked_process_adds_is_known_to_all() -> None:
    familiar = FamiliarRecipients()
    ann = Address("ann", "example.com")
    child = os.fork()
    if child == 0:
        familiar.add(Address("ann", "example.com"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert familiar.has(ann)
