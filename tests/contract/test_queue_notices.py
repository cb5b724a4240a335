"""What a queue store promises of reports: everything is told, once, and together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.envelope import Notify, RecipientDsn
from restante.queue import (
    Action,
    BackOff,
    DuplicateMessage,
    LastAnswer,
    QueuedMessage,
    RecipientState,
    Submission,
    Target,
)
from restante.queue.loader import REPORTS_AT_ONCE
from restante.queue.notices import NOTICES_PER_REPORT
from restante.queue.rows import REPORT_PATIENCE, Result
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews, PendingReport
from restante.status import Peer, Reply
from tests.support.jumping_clock import START
from tests.support.queued import (
    SENDER,
    content,
    due,
    envelope,
    from_nobody,
    next_due,
    record,
    reports,
    targets,
)

NOW = START + 1
NEVER = LastAnswer(
    Reply(550, "1.1", "no\nsuch user"),
    "",
    Peer("mx.example", "192.0.2.1", "RCPT TO:<a@x>", "TLSv1.3 X", dsn=True),
    NOW,
)
LARGE = b"Subject: large\n\n" + b"0123456789abcde\n" * 5000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


def body_files(tmp_path: Path) -> set[str]:
    return set(os.listdir(tmp_path / "0" / "bodies"))


def failed(message: QueuedMessage) -> list[Result]:
    return [
        Result(each.id, RecipientState.FAILED, NEVER, notice=Action.FAILED)
        for each in message.recipients
    ]


def waits(message: QueuedMessage, until: float) -> list[Result]:
    return [
        Result(each.id, RecipientState.WAITING, next_attempt=until) for each in message.recipients
    ]


def report(body: bytes = b"Subject: report\n\n") -> Submission:
    return Submission(from_nobody("sender@example.com"), content(body), targets("sender@x"))


def told(pending: PendingReport) -> list[tuple[str, Action]]:
    return [(notice.recipient.target.address, notice.action) for notice in pending.notices]


async def the_failure(store: QueueStore, *addresses: str) -> PendingReport:
    """A message of which everything fails, and what is to be told of it."""
    await store.add(envelope(), content(), targets(*addresses))
    (message,) = await due(store)
    await record(store, message, failed(message))
    (pending,) = await reports(store)
    return pending


async def test_a_message_stays_until_its_sender_is_told(store: QueueStore) -> None:
    dsn = RecipientDsn(Notify.FAILURE | Notify.SUCCESS, "rfc822;a@y")
    sent = envelope()
    await store.add(sent, content(LARGE), [Target("a@x", dsn=dsn)])
    (message,) = await due(store)
    assert not await record(store, message, failed(message))
    (pending,) = await reports(store)
    assert pending.message.envelope == sent
    assert pending.message.content.read() == content(LARGE).read()
    assert pending.message.recipients == ()
    (notice,) = pending.notices
    assert notice.action is Action.FAILED
    assert notice.recipient.state is RecipientState.FAILED
    assert notice.recipient.last == NEVER
    assert notice.recipient.target.dsn == dsn
    outcome = await store.tell(pending, report(), NOW)
    assert (outcome.told, outcome.finished) == (True, True)
    (bounce,) = await due(store)
    assert bounce.content.read() == report().content.read()
    assert store.waiting == 1


async def test_nobody_to_be_told_is_told_too(store: QueueStore, tmp_path: Path) -> None:
    pending = await the_failure(store)
    outcome = await store.tell(pending, None, NOW)
    assert (outcome.told, outcome.finished) == (True, True)
    assert store.waiting == 0


async def test_a_report_in_the_making_is_not_made_twice(store: QueueStore) -> None:
    pending = await the_failure(store)
    assert await reports(store) == []
    await store.put_off(pending, NOW + 100)
    assert await reports(store) == []
    assert await next_due(store) == NOW + 100
    assert await reports(store, NOW + 100) == [pending]


async def test_neither_report_nor_settlement_without_the_other(
    store: QueueStore, tmp_path: Path
) -> None:
    taken = envelope(at=NOW + 99)
    await store.add(taken, content(), targets())
    pending = await the_failure(store)
    with pytest.raises(DuplicateMessage):
        await store.tell(pending, Submission(taken, content(LARGE), targets()), NOW)
    assert body_files(tmp_path) == set()
    assert store.waiting == 2
    await store.put_off(pending, NOW)
    assert await reports(store) == [pending], "nothing was cleared"
    large = report(LARGE)
    assert (await store.tell(pending, large, NOW)).finished
    assert body_files(tmp_path) == {large.envelope.queue_id}


async def test_the_next_life_tells_what_this_one_did_not(tmp_path: Path) -> None:
    first = QueueStore.open(str(tmp_path), 0)
    pending = await the_failure(first)
    await first.close()
    second = QueueStore.open(str(tmp_path), 0)
    assert await reports(second) == [pending]
    await second.close()


async def test_those_in_motion_are_waited_for(store: QueueStore) -> None:
    goals = [Target("a@one", lane="one"), Target("b@two", lane="two")]
    await store.add(envelope(), content(), goals)
    one, two = sorted(await due(store), key=lambda message: message.lane)
    await record(store, one, failed(one))
    assert await reports(store) == [], "the other may fail in a moment"
    await record(store, two, failed(two))
    (pending,) = await reports(store)
    assert told(pending) == [("a@one", Action.FAILED), ("b@two", Action.FAILED)]


async def test_those_who_wait_for_later_are_not_waited_for(store: QueueStore) -> None:
    goals = [Target("a@one", lane="one"), Target("b@two", lane="two")]
    await store.add(envelope(), content(), goals)
    one, two = sorted(await due(store), key=lambda message: message.lane)
    await record(store, two, waits(two, START + 1000))
    await record(store, one, failed(one))
    (pending,) = await reports(store)
    assert not (await store.tell(pending, report(), NOW)).finished
    (later,) = [each for each in await due(store, START + 1000) if each.lane]
    assert [each.target.address for each in later.recipients] == ["b@two"]


async def test_a_lane_that_is_left_alone_is_not_waited_for(store: QueueStore) -> None:
    other = envelope(at=START - 1)
    await store.add(other, content(), [Target("x@two", lane="two")])
    (probe,) = await due(store)
    await store.record(probe, waits(probe, START + 9000), NOW, LaneNews(NOW, BackOff("down")))
    goals = [Target("a@one", lane="one"), Target("b@two", lane="two")]
    await store.add(envelope(), content(), goals)
    (one,) = await due(store)
    await record(store, one, failed(one))
    (pending,) = await reports(store)
    assert told(pending) == [("a@one", Action.FAILED)]


async def test_patience_has_an_end(store: QueueStore) -> None:
    goals = [Target("a@one", lane="one"), Target("b@two", lane="two")]
    await store.add(envelope(), content(), goals)
    one, _ = sorted(await due(store), key=lambda message: message.lane)
    await record(store, one, failed(one))
    assert await next_due(store) == NOW + REPORT_PATIENCE
    (pending,) = await reports(store, NOW + REPORT_PATIENCE)
    assert told(pending) == [("a@one", Action.FAILED)]


async def test_what_fails_while_a_report_is_made_is_told_in_the_next(store: QueueStore) -> None:
    goals = [Target("a@one", lane="one"), Target("b@two", lane="two")]
    await store.add(envelope(), content(), goals)
    one, two = sorted(await due(store), key=lambda message: message.lane)
    await record(store, one, failed(one))
    (pending,) = await reports(store, NOW + REPORT_PATIENCE)
    await record(store, two, failed(two))
    assert not (await store.tell(pending, report(), NOW)).finished
    (second,) = await reports(store, NOW + REPORT_PATIENCE)
    assert told(second) == [("b@two", Action.FAILED)]
    assert (await store.tell(second, report(), NOW)).finished


async def test_a_newer_notice_takes_the_place_of_an_older_one(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    (message,) = await due(store)
    (recipient,) = message.recipients
    late = Result(
        recipient.id, RecipientState.WAITING, NEVER, NOW, notice=Action.DELAYED, late=True
    )
    await record(store, message, [late])
    (delayed,) = await reports(store, NOW + REPORT_PATIENCE)
    assert told(delayed) == [("a@x", Action.DELAYED)]
    (message,) = await due(store)
    assert message.recipients[0].delay_told
    await record(store, message, failed(message))
    outcome = await store.tell(delayed, report(), NOW)
    assert (outcome.told, outcome.finished) == (False, False), "it is no longer true"
    assert store.waiting == 1
    (pending,) = await reports(store)
    assert told(pending) == [("a@x", Action.FAILED)]


async def test_a_notice_of_delay_survives_further_attempts(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    (message,) = await due(store)
    late = Result(message.recipients[0].id, RecipientState.WAITING, notice=Action.DELAYED)
    await record(store, message, [late])
    (message,) = await due(store)
    await record(store, message, waits(message, NOW + 5000))
    (pending,) = await reports(store)
    assert told(pending) == [("a@x", Action.DELAYED)]


async def test_success_is_told_and_the_message_is_gone(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    (message,) = await due(store)
    a, b = message.recipients
    results = [
        Result(a.id, RecipientState.DELIVERED, notice=Action.DELIVERED),
        Result(b.id, RecipientState.DELIVERED),
    ]
    assert not await record(store, message, results)
    (pending,) = await reports(store)
    assert told(pending) == [("a@x", Action.DELIVERED)]
    assert (await store.tell(pending, report(), NOW)).finished


async def test_a_crowd_is_told_of_in_parts(store: QueueStore) -> None:
    crowd = [f"u{number}@x" for number in range(NOTICES_PER_REPORT + 1)]
    await store.add(envelope(), content(), targets(*crowd))
    for _ in range(2):
        (message,) = await due(store)
        await record(store, message, failed(message))
    seen = []
    for last in (False, True):
        (pending,) = await reports(store)
        seen.append(len(pending.notices))
        assert (await store.tell(pending, report(), NOW)).finished == last
    assert seen == [NOTICES_PER_REPORT, 1]


async def test_each_sender_is_told_of_what_was_sent_in_its_name(
    store: QueueStore, tmp_path: Path
) -> None:
    goals = [
        Target("a@x"),
        Target("b@x", reverse_path="owner@list"),
        Target("c@x", reverse_path="owner@list"),
        Target("d@x", reverse_path="owner-d=x@list"),
    ]
    sent = replace(envelope(), ret="HDRS", envid="id-7")
    await store.add(sent, content(), goals)
    (message,) = await due(store)
    await record(store, message, failed(message))
    pending = await reports(store)
    told = {
        str(each.message.envelope.reverse_path): [
            notice.recipient.target.address for notice in each.notices
        ]
        for each in pending
    }
    assert told == {str(SENDER): ["a@x"], "owner@list": ["b@x", "c@x"], "owner-d=x@list": ["d@x"]}
    own, lists, _ = (each.message.envelope for each in pending)
    assert own == sent
    assert (lists.ret, lists.envid) == ("", ""), "these were wishes of the sender's"
    assert await reports(store) == [], "all of them are being made"
    for number, each in enumerate(pending):
        assert store.waiting == 1 + number
        report = Submission(from_nobody("s@x"), content(), targets("s@x"))
        await store.tell(each, report, NOW)
    assert store.waiting == 3, "only the reports are left"


async def test_very_many_senders_are_told_in_parts(store: QueueStore) -> None:
    goals = [
        Target(f"a{number}@x", reverse_path=f"owner-a{number}=x@list")
        for number in range(REPORTS_AT_ONCE + 1)
    ]
    await store.add(envelope(), content(), goals)
    (message,) = await due(store)
    await record(store, message, failed(message))
    first = await reports(store)
    assert len(first) == REPORTS_AT_ONCE
    for each in first[1:]:
        await store.tell(each, None, NOW)
    assert await reports(store) == [], "one of them is still being made"
    await store.tell(first[0], None, NOW)
    (last,) = await reports(store)
    assert (await store.tell(last, None, NOW)).finished
