"""Which report a sender gets, by what it asked for and what became of its message (RFC 3461).

The real store, scheduler and reporter; only the courier answers as a script says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, ReversePath
from restante.config.tree import DAY, HOUR, Queue
from restante.dsn.reporter import DsnReporter
from restante.envelope import Notify, RecipientDsn
from restante.queue import Answer, Expanded, Target
from restante.queue.retry import RetryPolicy
from restante.queue.scheduler import Scheduler
from restante.queue.schema import connect_reader
from restante.queue.store import QueueStore
from restante.status import Delivered, Peer, Reply, TemporaryFailure
from tests.support.jumping_clock import PATIENCE, JumpingClock, until
from tests.support.queued import SENDER, content, envelope, limits, new_id
from tests.support.report import ReadReport, read_report
from tests.support.scripted_courier import HERE, LATER, NEVER, ScriptedCourier

POSTMASTER = "postmaster@example.com"
SETTINGS = Queue(doublebounceto=POSTMASTER, queuelifetime=DAY)
IAIN, ANN, EVE = "iain@example.com", "ann@example.com", "eve@example.com"
PEER = Peer("mx.example.net", "192.0.2.1", "end of data")
ALL = Notify.SUCCESS | Notify.FAILURE | Notify.DELAY

OUTCOMES: dict[str, dict[str, Sequence[Answer]]] = {
    "delivered here": {IAIN: [HERE]},
    "taken by a host with DSN": {IAIN: [Delivered("ok", replace(PEER, dsn=True))]},
    "taken by a host without DSN": {IAIN: [Delivered("ok", PEER)]},
    "failed": {IAIN: [NEVER]},
    "given up": {IAIN: [LATER]},
    "late": {IAIN: [LATER] * 25 + [HERE]},
    "alias of one": {IAIN: [Expanded((Target(ANN),))], ANN: [HERE]},
    "alias of one who failed": {IAIN: [Expanded((Target(ANN),))], ANN: [NEVER]},
    "alias of two": {IAIN: [Expanded((Target(ANN), Target(EVE)))]},
    "alias of two, one failed": {IAIN: [Expanded((Target(ANN), Target(EVE)))], EVE: [NEVER]},
}
"""What the courier answers for each address; LATER so often lasts past the notice of a delay."""

ASKED = (None, Notify.NEVER, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY, ALL)
TABLE = {
    # What is asked for: nothing, NEVER, SUCCESS, FAILURE, DELAY, all three.
    "delivered here": ("", "", "delivered", "", "", "delivered"),
    "taken by a host with DSN": ("", "", "", "", "", ""),
    "taken by a host without DSN": ("", "", "relayed", "", "", "relayed"),
    "failed": ("failed", "", "", "failed", "", "failed"),
    "given up": ("delayed failed", "", "", "failed", "delayed", "delayed failed"),
    "late": ("delayed", "", "delivered", "", "delayed", "delayed delivered"),
    "alias of one": ("", "", "delivered", "", "", "delivered"),
    "alias of one who failed": ("failed", "", "", "failed", "", "failed"),
    "alias of two": ("", "", "expanded", "", "", "expanded"),
    "alias of two, one failed": ("failed", "", "expanded", "failed", "", "expanded failed"),
}
"""The actions of all reports to the sender, in the order of the alphabet."""
CASES = [
    (o, asked, told) for o, row in TABLE.items() for asked, told in zip(ASKED, row, strict=True)
]


class Desk:
    """A queue at work."""

    def __init__(self, root: Path) -> None:
        self.clock = JumpingClock()
        self.courier = ScriptedCourier(self.clock.now)
        self.store = QueueStore.open(str(root), 0)
        self.scheduler = Scheduler(
            self.store,
            lambda: self.courier,
            lambda: DsnReporter(SETTINGS, "mail.example.com"),
            RetryPolicy(DAY, lambda: 0.0, 4 * HOUR),
            self.clock,
            new_id,
            limits(),
        )

    async def send(self, *goals: Target, sender: ReversePath = SENDER) -> None:
        """Queue a message, and live until the queue is empty."""
        sent = replace(
            envelope(*(goal.address for goal in goals), sender=sender), envid="QQ314", ret="HDRS"
        )
        await self.store.add(sent, content(), goals)
        await self._rest()
        while self.store.waiting:
            self.clock.jump()
            await self._rest()

    async def _rest(self) -> None:
        await until(lambda: self.scheduler.moving == 0 and self.clock.resting > 0)

    def reports(self, to: str) -> list[ReadReport]:
        """What came to an address."""
        return [
            read_report(call.content.read())
            for call in self.courier.calls
            if [each.target.address for each in call.recipients] == [to]
            and call.envelope.reverse_path == NULL_REVERSE_PATH
        ]


@asynccontextmanager
async def at_work(root: Path) -> AsyncIterator[Desk]:
    desk = Desk(root)
    running = asyncio.ensure_future(desk.scheduler.run(grace=PATIENCE))
    try:
        yield desk
    finally:
        desk.scheduler.stop()
        await running
        await desk.store.close()


def actions(reports: list[ReadReport]) -> str:
    return " ".join(sorted(block["Action"] for each in reports for block in each.recipients))


@pytest.mark.parametrize(("outcome", "notify", "told"), CASES)
async def test_what_the_sender_is_told(
    tmp_path: Path, outcome: str, notify: Notify | None, told: str
) -> None:
    async with at_work(tmp_path) as desk:
        for address, answers in OUTCOMES[outcome].items():
            desk.courier.answer(address, *answers)
        await desk.send(Target(IAIN, dsn=RecipientDsn(notify, "rfc822;Box@Example.com")))
        reports = desk.reports(str(SENDER))
        assert actions(reports) == told
        for each in reports:
            assert each.message["Original-Envelope-Id"] == "QQ314"
            for block in each.recipients:
                assert block["Original-Recipient"] == "rfc822; Box@Example.com"
        assert desk.reports(POSTMASTER) == []


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("notify", [None, Notify.NEVER, ALL])
async def test_what_the_postmaster_is_told_of_what_comes_from_nobody(
    tmp_path: Path, outcome: str, notify: Notify | None
) -> None:
    """Failures, whatever the message's own sender asked for: it asked for itself."""
    async with at_work(tmp_path) as desk:
        for address, answers in OUTCOMES[outcome].items():
            desk.courier.answer(address, *answers)
        goal = Target(IAIN, dsn=RecipientDsn(notify))
        await desk.send(goal, sender=NULL_REVERSE_PATH)
        lost = outcome in ("failed", "given up") or outcome.endswith("failed")
        assert actions(desk.reports(POSTMASTER)) == ("failed" if lost else "")


async def test_a_report_that_fails_is_told_to_the_postmaster_once(tmp_path: Path) -> None:
    async with at_work(tmp_path) as desk:
        for address in (IAIN, str(SENDER), POSTMASTER):
            desk.courier.answer(address, NEVER)
        await desk.send(Target(IAIN))
        assert actions(desk.reports(str(SENDER))) == "failed"
        (second,) = desk.reports(POSTMASTER)
        assert second.recipient["Final-Recipient"] == f"rfc822; {SENDER}"
        assert len(desk.courier.calls) == 3


async def test_recipients_of_several_ways_out_share_a_report(tmp_path: Path) -> None:
    """Each next hop is tried by itself; the sender hears once, when all are known."""
    goals = [Target(f"u{n}@{n}.example", lane=f"{n}.example") for n in range(5)]
    async with at_work(tmp_path) as desk:
        for goal in goals[1:]:
            desk.courier.answer(goal.address, NEVER)
        slow = desk.courier.hold(goals[4].address)
        sending = asyncio.ensure_future(desk.send(*goals))
        await until(lambda: len(desk.courier.attempts) == len(goals))
        assert desk.reports(str(SENDER)) == []
        slow.set()
        await sending
        (report,) = desk.reports(str(SENDER))
        assert {block["Final-Recipient"] for block in report.recipients} == {
            f"rfc822; {goal.address}" for goal in goals[1:]
        }


ALIAS = Expanded((Target(ANN, lane="x"),))
WISHES: dict[str, tuple[Notify | None, Notify | None, Answer, str]] = {
    # What RCPT asks for the alias and for its target, what becomes of that, what is told.
    "a failure, by the alias": (None, Notify.NEVER, NEVER, "failed"),
    "a failure, by the target": (Notify.NEVER, None, NEVER, "failed"),
    "a failure, by both": (Notify.FAILURE, None, NEVER, "failed"),
    "a failure, by nobody": (Notify.NEVER, Notify.SUCCESS, NEVER, ""),
    "success, by the alias": (Notify.SUCCESS, Notify.FAILURE, HERE, "delivered"),
    "success, by both": (Notify.SUCCESS, Notify.SUCCESS, HERE, "delivered"),
    "success, by nobody": (Notify.FAILURE, None, HERE, ""),
}
ORDERS: dict[str, tuple[Sequence[Answer], Sequence[Answer], str]] = {
    # What the alias and its target are answered before, and the lane of the target.
    "in one attempt": ([], [], ""),
    "in attempts of their own": ([], [], "x"),
    "the alias first": ([], [LATER], "x"),
    "the target first": ([LATER], [], "x"),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("named_first", [IAIN, ANN])
async def test_of_the_target_of_an_alias_that_was_named_too_either_may_be_told(
    tmp_path: Path, named_first: str, wish: str, order: str
) -> None:
    """There is one copy, and it is the only one that can tell what was promised to the alias."""
    for_alias, for_target, outcome, told = WISHES[wish]
    alias_before, target_before, lane = ORDERS[order]
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, *alias_before, Expanded((Target(ANN, lane=lane),)))
        desk.courier.answer(ANN, *target_before, outcome)
        goals = [
            Target(IAIN, dsn=RecipientDsn(for_alias)),
            Target(ANN, dsn=RecipientDsn(for_target), lane=lane),
        ]
        await desk.send(*sorted(goals, key=lambda each: each.address != named_first))
        assert actions(desk.reports(str(SENDER))) == told
        assert len(desk.courier.of(ANN)) == len(target_before) + 1


@pytest.mark.parametrize("wish", WISHES)
async def test_so_it_is_if_the_alias_is_expanded_while_the_target_is_tried(
    tmp_path: Path, wish: str
) -> None:
    for_alias, for_target, outcome, told = WISHES[wish]
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, ALIAS)
        desk.courier.answer(ANN, outcome)
        slow = desk.courier.hold(ANN)
        goals = [
            Target(ANN, dsn=RecipientDsn(for_target), lane="x"),
            Target(IAIN, dsn=RecipientDsn(for_alias)),
        ]
        sending = asyncio.ensure_future(desk.send(*goals))
        with closing(connect_reader(desk.store.directory)) as connection:
            states = "SELECT state FROM recipient"
            await until(lambda: ("expanded",) in connection.execute(states).fetchall())
        slow.set()
        await sending
        assert actions(desk.reports(str(SENDER))) == told


async def test_a_host_that_has_taken_the_message_before_is_not_relied_upon(tmp_path: Path) -> None:
    """It supports RFC 3461, and was not told that the sender wants to hear of success."""
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, LATER, ALIAS)
        desk.courier.answer(ANN, Delivered("ok", replace(PEER, dsn=True)))
        await desk.send(Target(IAIN, dsn=RecipientDsn(ALL)), Target(ANN, lane="x"))
        assert actions(desk.reports(str(SENDER))) == "relayed"


async def test_two_aliases_with_a_common_target(tmp_path: Path) -> None:
    """Neither has it alone: of success their expansions tell."""
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, Expanded((Target(ANN), Target("a@example.com"))))
        desk.courier.answer(EVE, LATER, Expanded((Target(ANN), Target("e@example.com"))))
        desk.courier.answer(ANN, NEVER)
        silent = Target(IAIN, dsn=RecipientDsn(Notify.NEVER))
        await desk.send(silent, Target(EVE, dsn=RecipientDsn(ALL)))
        assert actions(desk.reports(str(SENDER))) == "expanded failed"


async def test_what_a_greeting_of_554_put_off_until_it_was_given_up_was_not_refused(
    tmp_path: Path,
) -> None:
    """A list takes class 5 for an address that is gone (RFC 3464 §2.3.4)."""
    blocked = TemporaryFailure(Reply(554, "7.1", "blocked"), peer=replace(PEER, command="greeting"))
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, blocked)
        await desk.send(Target(IAIN))
        reports = desk.reports(str(SENDER))
        told = [(each.recipient["Action"], each.recipient["Status"]) for each in reports]
        assert told == [("delayed", "4.7.1"), ("failed", "4.7.1")]
        assert "in vain, and is given up now" in " ".join(reports[1].text.split())


async def test_what_nobody_sent_asks_for_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path) as desk:
        desk.courier.answer(IAIN, ALIAS)
        goals = [
            Target(ANN, dsn=RecipientDsn(Notify.NEVER), lane="x"),
            Target(IAIN, dsn=RecipientDsn(ALL)),
        ]
        await desk.send(*goals, sender=NULL_REVERSE_PATH)
        assert desk.reports(POSTMASTER) == []


async def test_an_address_that_is_written_in_two_ways_is_told_of_as_both_ask(
    tmp_path: Path,
) -> None:
    async with at_work(tmp_path) as desk:
        goals = [
            Target(ANN, dsn=RecipientDsn(Notify.NEVER)),
            Target(ANN.title(), dsn=RecipientDsn(Notify.SUCCESS)),
        ]
        await desk.send(*goals)
        assert actions(desk.reports(str(SENDER))) == "delivered"
