"""What courier and receiver make of decisions: a copy, an expansion, a loop, a wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle

import pytest

from restante import mda
from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.config import Settings
from restante.config.tree import Receiver as ReceiverSettings
from restante.config.tree import Routing, Server
from restante.courier import MailCourier, WaysOut
from restante.directory import Account, DotQmail
from restante.envelope import (
    NO_DSN,
    Content,
    Envelope,
    HeaderFacts,
    Notify,
    Origin,
    RecipientDsn,
    memory_content,
)
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.queue import (
    LOCAL_LANE,
    Attempted,
    BackOff,
    Expanded,
    Moved,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Target,
    Untried,
)
from restante.receiver.door import Receiver
from restante.relay import Parcel, Recipient
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.routing.strangers import Strangers
from restante.spool import Spool
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.queued import SENDER, envelope, new_id

SETTINGS = Settings(
    "/nowhere",
    server=Server(me="mx.example.com"),
    receiver=ReceiverSettings(relay_networks=("192.0.2.0/24",)),
)
ROUTES = Routes({".routed.example": "smart.example:587"})
HELLO = b"Subject: hello\n\nHello.\n"


@dataclass
class Recorder:
    """A mailbox writer, a relay and a queue that note what they are given."""

    outcome: Outcome = field(default_factory=lambda: Delivered("here"))
    together: list[tuple[Delivery, ...]] = field(default_factory=list)
    each: list[tuple[Delivery, ...]] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    parcels: list[tuple[str, tuple[Recipient, ...]]] = field(default_factory=list)
    """What was sent to other hosts, and by which lane."""
    came_by: list[tuple[str, ...]] = field(default_factory=list)
    """What stood in front of it."""
    queued: list[tuple[Target, ...]] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    """Of what was queued."""

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        self.together.append(tuple(deliveries))
        return self.outcome

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        self.each.append(tuple(deliveries))
        self.again.append(again)
        return tuple(self.outcome for _ in deliveries)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        raise NotImplementedError

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        raise NotImplementedError

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        self.parcels.append((lane, parcel.recipients))
        self.came_by.append(parcel.came_by)
        return Attempted([self.outcome] * len(parcel.recipients), BackOff("busy"))

    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        self.queued.append(tuple(targets))
        self.envelopes.append(envelope)

    async def close(self) -> None:
        """Nothing to close."""


OTHERS = ("ann", "bob")
"""Accounts with a uid and a gid of their own."""
LISTS = {
    "sales": ["&iain@example.com"],
    "both": ["&iain@example.com", "&ann@example.com"],
    "kept": ["&iain@example.com", "&listed@example.com"],
    "listed": ["&iain@example.com"],
    "listed-owner": ["&iain@example.com"],
}
"""What the alias user has; ``listed`` has an owner."""


def site() -> MemoryDirectory:
    accounts = [account(f"{name}@example.com", uid=1001, gid=1001) for name in OTHERS]
    accounts += [account("group@example.com", gid=1001), account("iain@example.com")]
    programs = [("ann@example.com", "", "|vacation", ""), ("bob@example.com", "", "./mbox", "")]
    return MemoryDirectory(
        Tables(
            rcpthosts=["example.com"],
            mailbox=accounts,
            virtual=[
                (f"{name}@example.com", name, "example.com")
                for name in ("iain", "group", *OTHERS, *LISTS)
            ]
            + [("sales@müller.example", "sales", "müller.example")],
            alias=[
                ("alias", "sales@müller.example", "&iain@example.com", ""),
                *(
                    ("alias", f"{name}@example.com", line, "")
                    for name in LISTS
                    for line in LISTS[name]
                ),
                *programs,
            ],
        )
    )


def message(target: Target, *, again: bool = False, bears: str = "") -> QueuedMessage:
    facts = HeaderFacts(0, frozenset({bears} if bears else ()))
    waiting = QueuedRecipient(1, target, RecipientState.WAITING, 0, 0.0, 0.0, None)
    sent = envelope(target.address)
    return QueuedMessage(sent, memory_content(b"", HELLO, facts), (waiting,), again)


async def attempt(recorder: Recorder, queued: QueuedMessage) -> object:
    router = Router(SETTINGS.routing, SETTINGS.hostname)
    courier = MailCourier(router, site(), recorder, WaysOut(ROUTES, recorder), Strangers())
    (answer,) = (await courier.attempt(queued)).answers
    return answer


async def test_courier_says_when_an_earlier_attempt_may_have_delivered() -> None:
    recorder = Recorder()
    for again in (False, True):
        await attempt(recorder, message(Target("iain@example.com"), again=again))
    assert recorder.again == [False, True]
    assert recorder.each[0][0].delivered_to == ("iain@example.com",)


async def test_courier_expands_an_alias_into_what_it_names() -> None:
    answer = await attempt(Recorder(), message(Target("sales@example.com")))
    assert answer == Expanded((Target("iain@example.com", via=("sales@example.com",)),))


@pytest.mark.parametrize(
    ("alias", "bears"),
    [
        ("sales@example.com", "sales@example.com"),
        ("sales@müller.example", "sales@xn--mller-kva.example"),
    ],
)
async def test_courier_ends_a_loop_by_way_of_another_host(alias: str, bears: str) -> None:
    queued = message(Target(alias), bears=bears)
    answer = await attempt(Recorder(), queued)
    assert isinstance(answer, PermanentFailure)
    assert answer.reply.enhanced == "5.4.6"


async def test_courier_ends_a_loop_of_aliases() -> None:
    queued = message(Target("sales@example.com", via=("SALES@example.com",)))
    answer = await attempt(Recorder(), queued)
    assert isinstance(answer, PermanentFailure)
    assert answer.reply.enhanced == "5.4.6"


async def relay(recorder: Recorder, lane: str, *addresses: str) -> Attempted:
    return await relay_targets(recorder, lane, *map(Target, addresses))


async def relay_targets(
    recorder: Recorder, lane: str, *targets: Target, smtputf8: bool = False
) -> Attempted:
    router = Router(SETTINGS.routing, SETTINGS.hostname)
    courier = MailCourier(router, site(), recorder, WaysOut(ROUTES, recorder), Strangers())
    waiting = tuple(
        QueuedRecipient(1, each, RecipientState.WAITING, 0, 0.0, 0.0, None) for each in targets
    )
    sent = replace(envelope(*(each.address for each in targets)), smtputf8=smtputf8)
    queued = QueuedMessage(sent, memory_content(b"", HELLO), waiting, False, lane)
    return await courier.attempt(queued)


async def test_recipients_of_a_lane_are_sent_together() -> None:
    recorder = Recorder(TemporaryFailure(Reply(450, "7.0", "not now")))
    attempted = await relay(recorder, "example.net", "ann@example.net", "bob@EXAMPLE.net")
    assert list(attempted.answers) == [recorder.outcome] * 2
    assert attempted.back_off == BackOff("busy")
    ((lane, recipients),) = recorder.parcels
    assert lane == "example.net"
    assert [str(each.address) for each in recipients] == ["ann@example.net", "bob@EXAMPLE.net"]


async def test_a_copy_that_leaves_tells_the_aliases_that_it_came_by() -> None:
    """So that one that comes back by way of another host ends, and does not multiply."""
    recorder = Recorder()
    aliases = ("list@example.com", "sales@example.com")
    attempted = await relay_targets(
        recorder,
        "example.net",
        Target("a@example.net", via=aliases),
        Target("b@example.net"),
        Target("c@example.net", via=aliases),
    )
    assert list(attempted.answers) == [recorder.outcome, Untried(), recorder.outcome]
    ((_, together),) = recorder.parcels
    assert [str(each.address) for each in together] == ["a@example.net", "c@example.net"]
    assert recorder.came_by == [aliases]


async def test_recipients_in_the_wrong_lane_move() -> None:
    recorder = Recorder()
    addresses = ("iain@example.com", "ann@example.net", "bob@a.routed.example", "x@example.com")
    attempted = await relay(recorder, "example.net", *addresses)
    assert list(attempted.answers) == [
        Moved(LOCAL_LANE),
        recorder.outcome,
        Moved("smart.example:587"),
        Moved(LOCAL_LANE),
    ]
    assert recorder.each == []


async def test_remote_recipients_in_the_local_lane_move() -> None:
    recorder = Recorder()
    attempted = await relay(recorder, LOCAL_LANE, "iain@example.com", "ann@example.net")
    assert list(attempted.answers) == [recorder.outcome, Moved("example.net")]
    assert attempted.back_off is None
    assert recorder.parcels == []


async def accept(
    recorder: Recorder,
    body: bytes,
    tmp_path: str,
    *recipients: str,
    dsn: Sequence[RecipientDsn] = (NO_DSN,),
    sender: ReversePath = SENDER,
    settings: Settings = SETTINGS,
) -> Reply:
    """The recipients in turn ask for what ``dsn`` says in turn."""
    router = Router(settings.routing, settings.hostname)
    receiver = Receiver(settings, router, site(), recorder, recorder, ROUTES, iter(new_id, ""))
    client = receiver.client("s", "192.0.2.7")
    _, transaction = receiver.sender(
        client, sender, eight_bit=False, smtputf8=False, ret="HDRS", envid="QQ314"
    )
    assert transaction is not None
    addresses = [Address.parse(each) for each in recipients]
    await receiver.recipients(transaction, list(zip(addresses, cycle(dsn), strict=False)))
    spool = Spool(tmp_path, 1000, 1000)
    await spool.write(body)
    try:
        return await receiver.accept(transaction, Origin("c", "192.0.2.7", "ESMTP"), spool)
    finally:
        spool.close()


async def test_an_alias_of_mailboxes_is_delivered_before_the_answer(tmp_path: object) -> None:
    recorder = Recorder()
    reply = await accept(recorder, HELLO, str(tmp_path), "sales@example.com")
    assert reply.code == 250
    assert [copy.delivered_to for copy in recorder.together[0]] == [
        ("iain@example.com", "sales@example.com")
    ]
    assert recorder.queued == []


@pytest.mark.parametrize(
    "recipients",
    [
        ["ann"],  # a program
        ["bob"],  # an mbox
        ["both"],  # an alias of one
        ["listed"],  # what has the owner of a list as its sender
        ["kept"],
        ["iain", "listed"],
        ["iain", "group"],  # who is of another group
    ],
)
async def test_what_is_more_than_maildirs_of_one_user_takes_the_way_of_the_queue(
    tmp_path: object, recipients: list[str]
) -> None:
    recorder = Recorder()
    addresses = [f"{name}@example.com" for name in recipients]
    reply = await accept(recorder, HELLO, str(tmp_path), *addresses)
    assert reply.code == 250
    assert recorder.together == []
    lanes = ["|ann@example.com" if name == "ann" else LOCAL_LANE for name in recipients]
    assert recorder.queued == [
        tuple(Target(each, lane=lane) for each, lane in zip(addresses, lanes, strict=True))
    ]


async def test_a_recipient_without_a_domain_is_queued_with_it(tmp_path: object) -> None:
    """A report about it has to name an address (RFC 3464 §2.3.2)."""
    recorder = Recorder()
    assert (await accept(recorder, HELLO, str(tmp_path), "iain")).code == 250
    assert recorder.queued == [(Target("iain@mx.example.com", lane="mx.example.com"),)]


@pytest.mark.parametrize(
    ("alias", "came_by"),
    [
        ("sales@example.com", "Sales@example.com"),
        ("sales@müller.example", "sales@xn--mller-kva.example"),
    ],
)
async def test_an_alias_that_the_message_came_by_is_not_delivered_again(
    tmp_path: object, alias: str, came_by: str
) -> None:
    """Another host sent it back, and hears that: whom it says to be from may be forged."""
    recorder = Recorder()
    body = f"Delivered-To: {came_by}\n".encode() + HELLO
    for dsn in (NO_DSN, RecipientDsn(Notify.SUCCESS)):
        reply = await accept(recorder, body, str(tmp_path), alias, dsn=(dsn,))
        assert (reply.code, reply.enhanced) == (554, "5.4.6")
    assert (recorder.together, recorder.queued) == ([], [])


async def test_all_recipients_that_the_message_came_by_are_refused(tmp_path: object) -> None:
    recorder = Recorder()
    aliases = ("iain@example.com", "sales@example.com")
    body = b"".join(b"Delivered-To: %b\n" % each.encode() for each in aliases) + HELLO
    reply = await accept(recorder, body, str(tmp_path), *aliases)
    assert reply == Reply(554, "4.6", "The message is looping: it came by iain@example.com before")
    assert (recorder.together, recorder.queued) == ([], [])


@pytest.mark.parametrize("other", ["iain@example.com", "both@example.com", "x@elsewhere.example"])
async def test_one_that_is_not_looping_gets_the_message(tmp_path: object, other: str) -> None:
    """Nobody sends it a second time: for the other, the queue ends the loop with a bounce."""
    recorder = Recorder()
    body = b"Delivered-To: sales@example.com\n" + HELLO
    reply = await accept(recorder, body, str(tmp_path), "sales@example.com", other)
    assert reply.code == 250
    assert recorder.together == []
    assert [target.address for target in recorder.queued[0]] == ["sales@example.com", other]


@pytest.mark.parametrize(("most", "at_once"), [(2, True), (1, False)])
async def test_aliases_that_lead_to_many_take_the_way_of_the_queue(
    tmp_path: object, most: int, at_once: bool
) -> None:
    recorder = Recorder()
    settings = replace(SETTINGS, routing=Routing(max_alias_targets=most))
    aliases = ("sales@example.com", "sales@müller.example")
    reply = await accept(recorder, HELLO, str(tmp_path), *aliases, settings=settings)
    assert reply.code == 250
    assert (len(recorder.together), len(recorder.queued)) == (at_once, not at_once)


@pytest.mark.parametrize(
    ("most", "copies", "at_once"), [(1, 1, True), (1, 2, False), (10_000, 2, True)]
)
async def test_many_copies_of_a_large_message_take_the_way_of_the_queue(
    tmp_path: object, most: int, copies: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There they are written a few at a time; a single one is in one piece anyway."""
    monkeypatch.setattr(mda, "MAX_OCTETS", most)
    recorder = Recorder()
    recipients = ("iain@example.com", "iain+x@example.com")[:copies]
    assert (await accept(recorder, HELLO, str(tmp_path), *recipients)).code == 250
    assert (len(recorder.together), len(recorder.queued)) == (at_once, not at_once)


@pytest.mark.parametrize(("octets", "blocks"), [(100, 0), (2000, 1)])
async def test_the_end_of_a_large_message_is_written_in_a_thread(
    tmp_path: object, octets: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is slow, or frozen for a snapshot, would hold up all sessions."""
    append, here = Spool._append, list[bool]()

    def noted(spool: Spool, block: bytes) -> None:
        if block:
            here.append(threading.current_thread() is threading.main_thread())
        append(spool, block)

    monkeypatch.setattr(Spool, "_append", noted)
    message = HELLO + b"x" * octets
    assert (await accept(Recorder(), message, str(tmp_path), "iain@example.com")).code == 250
    assert here == [False] * blocks


async def test_what_cannot_be_delivered_now_waits_as_a_whole(tmp_path: object) -> None:
    recorder = Recorder(TemporaryFailure(Reply(451, "3.0", "not now")))
    reply = await accept(recorder, HELLO, str(tmp_path), "iain@example.com", "sales@example.com")
    assert reply.code == 250
    assert recorder.queued == [(Target("iain@example.com"), Target("sales@example.com"))]


async def test_a_refusal_for_the_only_recipient_is_the_answer(tmp_path: object) -> None:
    recorder = Recorder(PermanentFailure(Reply(554, "4.6", "looping")))
    reply = await accept(recorder, HELLO, str(tmp_path), "iain@example.com")
    assert reply == Reply(554, "4.6", "looping")
    assert recorder.queued == []


async def test_each_recipient_waits_for_its_own_way_out(tmp_path: object) -> None:
    recorder = Recorder()
    recipients = ("ann@example.net", "bob@a.routed.example", "sales@example.com")
    reply = await accept(recorder, HELLO, str(tmp_path), *recipients)
    assert reply.code == 250
    assert recorder.queued == [
        (
            Target("ann@example.net", lane="example.net"),
            Target("bob@a.routed.example", lane="smart.example:587"),
            Target("sales@example.com"),
        )
    ]


SUCCESS = RecipientDsn(Notify.SUCCESS, "rfc822;Iain@example.com")


class SlowFiles:
    """The system's users, each found when nobody else comes to be looked for."""

    def __init__(self) -> None:
        self.together: list[list[str]] = [[]]
        self._found = asyncio.Event()

    async def user(self, name: str) -> Account | None:
        if self._found.is_set():
            self._found = asyncio.Event()
        if not self.together[-1]:
            asyncio.get_running_loop().call_later(0.01, self._end, self._found)
        self.together[-1].append(name)
        await self._found.wait()
        return None if name == "nobody" else account(name)

    def _end(self, found: asyncio.Event) -> None:
        self.together.append([])
        found.set()

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        return None


async def test_users_of_the_system_are_looked_for_side_by_side() -> None:
    """A name service that does not answer would be waited for a hundred times in a row."""
    files, recorder = SlowFiles(), Recorder()
    routing = Routing(locals=("example.com",), system_files=True)
    settings = replace(SETTINGS, routing=routing)
    receiver = Receiver(
        settings,
        Router(settings.routing, settings.hostname),
        MemoryDirectory(Tables(rcpthosts=["example.com"]), files),
        recorder,
        recorder,
        ROUTES,
        iter(new_id, ""),
    )
    names = [f"u{number}" for number in range(20)]
    names[3] = "nobody"
    addresses = [Address(name, "example.com") for name in names]
    _, transaction = receiver.sender(
        receiver.client("s", "198.51.100.7"), SENDER, eight_bit=False, smtputf8=False
    )
    assert transaction is not None
    replies = await receiver.recipients(transaction, [(each, NO_DSN) for each in addresses])
    assert [reply.code for reply in replies] == [550 if n == 3 else 250 for n in range(20)]
    assert list(transaction.decided) == [each for each in addresses if each.local != "nobody"]
    assert [len(each) for each in files.together if "alias" not in each] == [4, 4, 4, 4, 4, 0]


async def test_a_success_to_be_reported_takes_the_way_of_the_queue(tmp_path: object) -> None:
    recorder = Recorder()
    recipients = ("iain@example.com", "sales@example.com")
    reply = await accept(recorder, HELLO, str(tmp_path), *recipients, dsn=(SUCCESS, NO_DSN))
    assert reply.code == 250
    assert recorder.together == []
    assert recorder.queued == [
        (Target("iain@example.com", dsn=SUCCESS), Target("sales@example.com"))
    ]
    assert (recorder.envelopes[0].ret, recorder.envelopes[0].envid) == ("HDRS", "QQ314")


@pytest.mark.parametrize("notify", [Notify.NEVER, Notify.FAILURE, Notify.FAILURE | Notify.DELAY])
async def test_where_no_success_is_reported_no_queue_is_needed(
    tmp_path: object, notify: Notify
) -> None:
    recorder = Recorder()
    dsn = (RecipientDsn(notify),)
    await accept(recorder, HELLO, str(tmp_path), "iain@example.com", dsn=dsn)
    assert len(recorder.together) == 1
    assert recorder.queued == []


async def test_nobody_is_told_of_a_success_of_a_report(tmp_path: object) -> None:
    recorder = Recorder()
    to = "iain@example.com"
    await accept(recorder, HELLO, str(tmp_path), to, dsn=(SUCCESS,), sender=NULL_REVERSE_PATH)
    assert len(recorder.together) == 1


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (NO_DSN, NO_DSN, NO_DSN),
        (NO_DSN, SUCCESS, RecipientDsn(~Notify.NEVER, SUCCESS.orcpt)),
        (SUCCESS, NO_DSN, RecipientDsn(~Notify.NEVER, SUCCESS.orcpt)),
        (SUCCESS, RecipientDsn(Notify.NEVER, "rfc822;other@example.com"), SUCCESS),
        (RecipientDsn(Notify.NEVER), NO_DSN, RecipientDsn(Notify.FAILURE | Notify.DELAY)),
    ],
)
async def test_a_recipient_who_is_named_twice_asks_for_both(
    tmp_path: object, first: RecipientDsn, second: RecipientDsn, both: RecipientDsn
) -> None:
    recorder = Recorder(TemporaryFailure(Reply(451, "3.0", "not now")))
    twice = ("iain@example.com", "iain@example.com")
    await accept(recorder, HELLO, str(tmp_path), *twice, dsn=(first, second))
    assert recorder.queued == [(Target("iain@example.com", dsn=both),)]
