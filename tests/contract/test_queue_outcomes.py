"""What every queue store promises of recipients: lists, outcomes, and attempts without an end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from restante.envelope import Notify, RecipientDsn
from restante.queue import (
    Action,
    RecipientState,
    Target,
    account_lane,
)
from restante.queue.reader import QueueReader
from restante.queue.rows import Looping, Result
from restante.queue.schema import connect_writer
from restante.queue.store import QueueStore
from tests.support.jumping_clock import START
from tests.support.queued import (
    LARGE,
    NEVER,
    NOT_NOW,
    content,
    delivered,
    due,
    envelope,
    from_nobody,
    record,
    reports,
    targets,
    the_only,
    waits,
)

NOW = START + 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


async def test_an_expansion_is_recipients_of_the_same_message(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("all@x", "ann@x"))
    message = await the_only(store)
    everyone, ann = message.recipients
    children = (
        Target("iain@x", via=("all@x",)),
        Target("IAIN@x"),
        Target("Ann@X"),
        Target("iain@x", "./Maildir/"),
    )
    results = [
        Result(everyone.id, RecipientState.EXPANDED, targets=children),
        Result(ann.id, RecipientState.DELIVERED),
    ]
    assert not await record(store, message, results)
    message = await the_only(store)
    assert [each.target for each in message.recipients] == [children[0], children[3]]
    assert {each.trail for each in message.recipients} == {("all@x",)}
    assert store.waiting == 1


async def test_an_expansion_is_due_though_the_clock_was_ahead_at_its_arrival(
    store: QueueStore,
) -> None:
    await store.add(envelope(at=START + 3600), content(), targets("all@x"))
    message = await the_only(store, START + 3600)
    (everyone,) = message.recipients
    target = Target("ann@y", lane="y")
    expanded = Result(everyone.id, RecipientState.EXPANDED, targets=(target,))
    await record(store, message, [expanded], NOW)
    assert [each.target for each in (await the_only(store, NOW)).recipients] == [target]


async def test_an_expansion_to_nobody_new_ends_the_message(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("all@x"))
    message = await the_only(store)
    (everyone,) = message.recipients
    assert await record(store, message, [Result(everyone.id, RecipientState.EXPANDED, targets=())])


async def test_a_target_that_loops_is_recorded_as_failed(store: QueueStore, tmp_path: Path) -> None:
    sent = envelope()
    await store.add(sent, content(), targets("all@x"))
    message = await the_only(store)
    (everyone,) = message.recipients
    loop = Result(
        everyone.id,
        RecipientState.EXPANDED,
        targets=targets("ann@x"),
        looping=(Looping(Target("all@x"), NEVER),),
    )
    await record(store, message, [loop])
    assert [each.target.address for each in (await the_only(store)).recipients] == ["ann@x"]
    entry = QueueReader(str(tmp_path)).message(sent.queue_id)
    assert entry is not None
    assert [(each.target.address, str(each.state)) for each in entry.recipients] == [
        ("all@x", "expanded"),
        ("ann@x", "waiting"),
        ("all@x", "failed"),
    ]


async def test_a_report_that_loops_is_told_of_whatever_it_asks_for(store: QueueStore) -> None:
    quiet = Target("all@x", dsn=RecipientDsn(Notify.NEVER))
    await store.add(from_nobody(), content(), [quiet])
    message = await the_only(store)
    (everyone,) = message.recipients
    loop = Result(everyone.id, RecipientState.EXPANDED, looping=(Looping(quiet, NEVER),))
    await record(store, message, [loop])
    (pending,) = await reports(store)
    assert [each.recipient.last for each in pending.notices] == [NEVER]


async def test_what_is_left_of_a_list_takes_the_place_of_what_was(store: QueueStore) -> None:
    await store.add(envelope(), content(), [Target("iain@x", lane=account_lane("iain"))])
    message = await the_only(store)
    (iain,) = message.recipients
    rest = "./Maildir/\n&ann@example.net"
    left = Result(iain.id, RecipientState.WAITING, next_attempt=START + 1, instruction=rest)
    await record(store, message, [left])
    (now,) = (await the_only(store)).recipients
    assert now == replace(
        iain, target=replace(iain.target, instruction=rest), attempts=1, next_attempt=START + 1
    )


@pytest.mark.parametrize("line", ["|caf\N{LATIN SMALL LETTER E WITH ACUTE}", "|\udcff", "|[]\"'\\"])
async def test_an_instruction_of_a_file_may_hold_any_octets(store: QueueStore, line: str) -> None:
    await store.add(envelope(), content(), [Target("iain@x", line)])
    message = await the_only(store)
    (iain,) = message.recipients
    assert iain.target.instruction == line
    rest = f"{line}\n{line}x"
    left = Result(iain.id, RecipientState.WAITING, next_attempt=START, instruction=rest)
    await record(store, message, [left])
    message = await the_only(store)
    assert message.recipients[0].target.instruction == rest
    alias = Result(
        iain.id, RecipientState.EXPANDED, targets=(Target("iain@x", rest), Target("ann@x", line))
    )
    await record(store, message, [alias])
    (ann,) = (await the_only(store)).recipients
    assert ann.target == Target("ann@x", line), "the other one is there already"


async def test_a_list_of_which_something_is_left_is_not_added_again(store: QueueStore) -> None:
    await store.add(envelope(), content(), [Target("iain@x"), Target("all@x")])
    message = await the_only(store)
    iain, everyone = message.recipients
    await record(
        store,
        message,
        [
            Result(iain.id, RecipientState.WAITING, next_attempt=START, instruction="./Maildir/"),
            Result(
                everyone.id,
                RecipientState.EXPANDED,
                targets=(Target("Iain@x"), Target("ann@x")),
            ),
        ],
    )
    tried = (await the_only(store)).recipients
    assert [(each.target.address, each.target.instruction) for each in tried] == [
        ("iain@x", "./Maildir/"),
        ("ann@x", ""),
    ]


async def of_which_is_asked_anew(store: QueueStore, was: str) -> bool:
    """Whether a message is gone when one whose NOTIFY was NEVER is an alias's target as well."""
    silent = Target("ann@x", dsn=RecipientDsn(Notify.NEVER), lane="x")
    await store.add(envelope(), content(), [Target("iain@x"), silent])
    message, of_ann = sorted(await due(store), key=lambda each: each.lane)
    (iain,) = message.recipients
    if was == "failed":
        results = [Result(each.id, RecipientState.FAILED, NEVER) for each in of_ann.recipients]
        await record(store, of_ann, results)
    else:
        with closing(connect_writer(store.directory)) as connection:
            connection.execute("UPDATE recipient SET state = ? WHERE address = 'ann@x'", (was,))
    alias = Result(iain.id, RecipientState.EXPANDED, targets=(Target("ann@x"),))
    return await record(store, message, [alias])


@pytest.mark.parametrize(
    ("was", "told"), [("failed", True), ("removed", False), ("expanded", False)]
)
async def test_of_a_settled_target_is_told_what_nobody_has_been_told(
    store: QueueStore, was: str, told: bool
) -> None:
    """An operator removes without a word; what an alias led to has its wishes by itself."""
    assert await of_which_is_asked_anew(store, was) is not told
    notices = [each for pending in await reports(store) for each in pending.notices]
    assert [(each.action, each.recipient.last) for each in notices] == [
        (Action.FAILED, NEVER)
    ] * told


async def test_a_held_target_takes_on_what_is_asked_for(store: QueueStore) -> None:
    assert not await of_which_is_asked_anew(store, "held")
    with closing(connect_writer(store.directory)) as connection:
        (asked,) = connection.execute("SELECT notify FROM recipient WHERE state = 'held'")
    assert asked == ((Notify.FAILURE | Notify.DELAY).value,)


async def test_the_same_address_from_two_senders_has_two_copies(store: QueueStore) -> None:
    twice = [Target("ann@x"), Target("ann@x", reverse_path="o@x", account="i"), Target("ann@x")]
    await store.add(envelope(), content(), [*twice, Target("ann@x", reverse_path="")])
    tried = (await the_only(store)).recipients
    assert [each.target.reverse_path for each in tried] == [None, "o@x", ""]
    assert [each.target.account for each in tried] == ["", "i", ""]


async def test_local_parts_that_differ_in_case_are_two_elsewhere_and_one_here(
    store: QueueStore,
) -> None:
    """RFC 5321 §2.4: what they mean is known to their own host alone."""
    dsn = RecipientDsn(Notify.SUCCESS)
    there = [Target("Bob@y", lane="y"), Target("bob@y", lane="y", dsn=dsn)]
    await store.add(envelope(), content(), [*there, there[0], Target("Ann@x"), Target("ann@x")])
    both, here = sorted(await due(store), key=lambda each: each.lane, reverse=True)
    assert [each.target for each in both.recipients] == there
    assert [each.target.address for each in here.recipients] == ["Ann@x"]


async def test_an_alias_that_leads_to_a_recipient_elsewhere_makes_no_second_one(
    store: QueueStore, tmp_path: Path
) -> None:
    named = Target("Bob@y", lane="y")
    await store.add(envelope(), content(), [Target("all@x"), named])
    alias, _ = sorted(await due(store), key=lambda each: each.lane)
    children = (Target("Bob@y"), Target("bob@y"), replace(named, address="bob@y"), named)
    (everyone,) = alias.recipients
    await record(store, alias, [Result(everyone.id, RecipientState.EXPANDED, targets=children)])
    (message,) = QueueReader(str(tmp_path)).messages()
    assert [each.target.address for each in message.recipients] == ["all@x", "Bob@y"]


OUTCOMES = [
    RecipientState.WAITING,
    RecipientState.DELIVERED,
    RecipientState.EXPANDED,
    RecipientState.FAILED,
]
"""To what an attempt leads."""
SETTLED = [RecipientState.DELIVERED, RecipientState.EXPANDED, RecipientState.FAILED]


@pytest.mark.parametrize("became", OUTCOMES)
@pytest.mark.parametrize("was", SETTLED)
async def test_what_is_settled_stays(
    store: QueueStore, tmp_path: Path, was: RecipientState, became: RecipientState
) -> None:
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    message = await the_only(store)
    a, b = message.recipients
    await record(store, message, [Result(a.id, was)])
    message = await the_only(store)
    stays = [Result(b.id, RecipientState.WAITING), Result(a.id, became, targets=targets("c@x"))]
    assert not await record(store, message, stays)
    assert [each.target.address for each in (await the_only(store)).recipients] == ["b@x"]
    entry = QueueReader(str(tmp_path)).message(message.envelope.queue_id)
    assert entry is not None
    assert [each.state for each in entry.recipients] == [was, RecipientState.WAITING]


@pytest.mark.parametrize("became", OUTCOMES)
async def test_what_waits_may_become_anything(store: QueueStore, became: RecipientState) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    message = await the_only(store)
    finished = await record(
        store, message, [Result(message.recipients[0].id, became, NOT_NOW, START + 9)]
    )
    assert finished == (became is not RecipientState.WAITING)


async def test_a_recipient_of_another_message_is_not_settled(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets("a@x"))
    await store.add(envelope(at=START + 0.5), content(), targets("b@x"))
    first, second = await due(store)
    assert not await record(store, first, delivered(second))
    assert store.waiting == 2


async def test_the_next_life_knows_that_it_does_not_know(tmp_path: Path) -> None:
    first = QueueStore.open(str(tmp_path), 0)
    await first.add(envelope(), content(LARGE), targets("a@x", "b@x"))
    assert (await the_only(first)).again is False
    await first.close()
    second = QueueStore.open(str(tmp_path), 0)
    assert second.waiting == 1
    message = await the_only(second)
    assert message.again
    assert message.content.read() == content(LARGE).read()
    await record(second, message, waits(message, START + 10))
    assert (await the_only(second, START + 10)).again is False, "now it is recorded"
    await second.close()


async def test_an_attempt_with_no_certain_end_is_remembered(store: QueueStore) -> None:
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    unsure = Result(message.recipients[0].id, RecipientState.WAITING, NOT_NOW, START, certain=False)
    await record(store, message, [unsure])
    message = await the_only(store)
    assert message.again
    await record(store, message, waits(message, START))
    assert not (await the_only(store)).again
