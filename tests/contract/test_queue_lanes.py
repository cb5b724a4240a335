"""What a queue store promises of lanes: limits, back-off, and room for everybody else."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from restante.queue import (
    LOCAL_LANE,
    BackOff,
    LastAnswer,
    QueuedMessage,
    RecipientState,
    Target,
)
from restante.queue.bodies import IN_ROW
from restante.queue.handout import Position
from restante.queue.lanes import MAX_WHY
from restante.queue.loader import (
    OVERDUE_AT_ONCE,
    RECIPIENTS_PER_ATTEMPT,
    REMOTE_RECIPIENTS_PER_ATTEMPT,
)
from restante.queue.reader import QueueReader
from restante.queue.retry import FIRST_BACK_OFF, LONGEST_BACK_OFF
from restante.queue.rows import Result
from restante.queue.schema import BODIES, connect_reader
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews, Recorded
from restante.status import Reply
from tests.support.jumping_clock import START
from tests.support.queued import content, due, envelope, limits, next_due, record

NOW = START + 1
NOT_NOW = LastAnswer(Reply(451, "4.1", "no answer"), "", None, NOW)
DOWN = BackOff("down")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


async def add(store: QueueStore, *addresses: str, at: float = START) -> str:
    """A message for addresses whose domain is their lane; those ``here`` are local."""
    sent = envelope(at=at)
    goals = [Target(each, lane=lane_of(each)) for each in addresses]
    await store.add(sent, content(), goals)
    return sent.queue_id


def lane_of(address: str) -> str:
    domain = address.rpartition("@")[2]
    return LOCAL_LANE if domain == "here" else domain


def lanes(messages: Sequence[QueuedMessage]) -> Counter[str]:
    return Counter(message.lane for message in messages)


def addresses(message: QueuedMessage) -> list[str]:
    return [each.target.address for each in message.recipients]


async def settle(
    store: QueueStore, message: QueuedMessage, state: RecipientState = RecipientState.DELIVERED
) -> None:
    await store.record(message, [Result(each.id, state) for each in message.recipients], NOW)


async def fail(
    store: QueueStore,
    message: QueuedMessage,
    now: float,
    back_off: BackOff = DOWN,
    began: float | None = None,
) -> Recorded:
    """The attempt fails, and so does the lane; the recipients are due again at once."""
    results = [
        Result(each.id, RecipientState.WAITING, NOT_NOW, START) for each in message.recipients
    ]
    news = LaneNews(now if began is None else began, back_off)
    return await store.record(message, results, now, news)


async def works(store: QueueStore, message: QueuedMessage, now: float) -> Recorded:
    results = [Result(each.id, RecipientState.DELIVERED) for each in message.recipients]
    return await store.record(message, results, now, LaneNews(now, None))


async def test_what_leaves_together_is_tried_together(store: QueueStore) -> None:
    await add(store, "a@one", "b@two", "c@here", "d@one")
    handed = {message.lane: message for message in await due(store)}
    assert {lane: addresses(message) for lane, message in handed.items()} == {
        "one": ["a@one", "d@one"],
        "two": ["b@two"],
        LOCAL_LANE: ["c@here"],
    }
    await settle(store, handed["one"])
    assert store.waiting == 1
    await settle(store, handed["two"])
    await settle(store, handed[LOCAL_LANE])
    assert store.waiting == 0


async def test_one_part_is_in_flight_the_other_is_tried_again(store: QueueStore) -> None:
    await add(store, "a@one", "b@two")
    one, two = sorted(await due(store), key=lambda message: message.lane)
    assert not await record(store, one, [Result(one.recipients[0].id, RecipientState.WAITING)])
    (again,) = await due(store)
    assert again.lane == "one"
    await settle(store, two)
    await settle(store, again)
    assert store.waiting == 0


@pytest.mark.parametrize(
    ("lane", "most"),
    [("here", RECIPIENTS_PER_ATTEMPT), ("far", REMOTE_RECIPIENTS_PER_ATTEMPT)],
)
async def test_a_crowd_is_tried_in_parts(store: QueueStore, lane: str, most: int) -> None:
    await add(store, *(f"u{number}@{lane}" for number in range(most + 1)))
    (first,) = await due(store)
    assert await due(store) == [], "the rest waits for the first part"
    await settle(store, first)
    (second,) = await due(store)
    assert (len(first.recipients), len(second.recipients)) == (most, 1)


async def test_every_limit_is_kept(store: QueueStore) -> None:
    for number in range(6):
        await add(store, "a@here", "a@one", "a@two", at=START - number)
    assert lanes(await due(store, most=limits(local=0, remote=0))) == {}
    assert lanes(await due(store, most=limits(local=2, remote=0))) == {LOCAL_LANE: 2}
    assert lanes(await due(store, most=limits(local=2, remote=3, per_lane=2))) == {
        "one": 2,
        "two": 1,
    }
    assert lanes(await due(store, most=limits(local=2, remote=12, per_lane=4))) == {
        "one": 2,
        "two": 3,
    }


async def test_programs_have_limits_of_their_own(store: QueueStore) -> None:
    for number in range(8):
        await add(store, "a@|iain", "a@|ann", "a@one", at=START - number)
    few = limits(remote=0, programs=6)
    assert few.per_account == 1
    assert lanes(await due(store, most=few)) == {"|iain": 1, "|ann": 1}
    more = limits(remote=1, programs=12)
    assert more.per_account == 3
    assert lanes(await due(store, most=more)) == {"|iain": 2, "|ann": 2, "one": 1}
    assert lanes(await due(store, most=limits(remote=1, programs=5))) == {}, "no more altogether"


async def test_slow_lanes_leave_places_to_those_in_which_nothing_moves(store: QueueStore) -> None:
    for number in range(8):
        await add(store, "a@slow", "a@slower", at=START - 60 - number)
    for lane in ("one", "two", "three"):
        await add(store, f"a@{lane}", f"b@{lane}", at=START - 9)
        await add(store, f"c@{lane}", at=START - 8)
    most = limits(remote=8, per_lane=4)
    handed = await due(store, most=most)
    slow = [each for each in handed if each.lane.startswith("slow")]
    quick = [each for each in handed if each not in slow]
    assert sorted(lanes(slow).values()) == [2, 4]
    assert len(lanes(quick)) == 2, "of those that are kept one each"
    begun = []
    while quick:
        await settle(store, quick.pop())
        new = await due(store, most=most)
        begun += [each.lane for each in new]
        quick += new
    assert len(begun) == 4
    assert not {each for each in begun if each.startswith("slow")}
    await settle(store, slow[0])
    assert len(await due(store, most=most)) == 1, "no less than before moves of the slow ones"


@pytest.mark.parametrize(("remote", "per_lane"), [(8, 4), (8, 7), (8, 8)])
async def test_a_lane_alone_has_all_that_one_may_have(
    store: QueueStore, remote: int, per_lane: int
) -> None:
    for number in range(8):
        await add(store, "a@slow", at=START - number)
    assert len(await due(store, most=limits(remote=remote, per_lane=per_lane))) == per_lane


async def test_slow_programs_leave_places_to_accounts_of_which_none_runs(
    store: QueueStore,
) -> None:
    slow = ("a@|a", "a@|b", "a@|c", "a@|d")
    for number in range(4):
        await add(store, *slow, at=START - 60 - number)
    await add(store, "a@|iain", "a@|ann")
    most = limits(programs=8)
    handed = await due(store, most=most)
    assert sorted(lanes(handed).values()) == [1, 1, 2, 2, 2]
    (iain,) = (each for each in handed if each.lane in ("|iain", "|ann"))
    await settle(store, iain)
    (ann,) = await due(store, most=most)
    assert {iain.lane, ann.lane} == {"|iain", "|ann"}


async def test_programs_run_however_much_else_moves(store: QueueStore) -> None:
    await add(store, "a@|iain", "a@|ann", "a@|bob", "a@here", "a@one", "a@two")
    handed = lanes(await due(store, most=limits(per_message=2)))
    assert handed == {"|iain": 1, "|ann": 1, "|bob": 1, LOCAL_LANE: 1, "one": 1}
    assert lanes(await due(store, most=limits(per_message=3))) == {"two": 1}


async def test_a_slow_program_holds_up_no_other_recipient(store: QueueStore) -> None:
    await add(store, "a@|iain", "b@|iain", "c@|ann", "d@here")
    handed = {message.lane: message for message in await due(store)}
    assert addresses(handed["|iain"]) == ["a@|iain"], "one at a time"
    await settle(store, handed["|ann"])
    await settle(store, handed[LOCAL_LANE])
    assert await due(store) == []
    await settle(store, handed["|iain"])
    (second,) = await due(store)
    assert addresses(second) == ["b@|iain"]


async def test_a_message_moves_in_so_many_lanes(store: QueueStore) -> None:
    await add(store, "a@one", "a@two", "a@three", at=START - 1)
    await add(store, "b@one", "b@two", "b@three")
    handed = await due(store, most=limits(per_message=2))
    assert sorted(Counter(message.envelope.queue_id for message in handed).values()) == [2, 2]
    assert await due(store, most=limits(per_message=2)) == []
    await settle(store, handed[0])
    (third,) = await due(store, most=limits(per_message=2))
    assert third.envelope.queue_id == handed[0].envelope.queue_id
    assert third.lane not in {
        message.lane for message in handed if message.envelope == third.envelope
    }


async def test_the_lane_that_is_due_longest_comes_first(store: QueueStore) -> None:
    for lane, age in (("young", 1), ("old", 9), ("middle", 5)):
        await add(store, f"a@{lane}", at=START - age)
    one = limits(remote=1)
    order = []
    for _ in range(3):
        (message,) = await due(store, most=one)
        order.append(message.lane)
        await settle(store, message)
    assert order == ["old", "middle", "young"]


async def test_a_lane_that_fails_is_left_alone_and_no_other(store: QueueStore) -> None:
    await add(store, "a@dead", "a@good")
    await add(store, "b@dead", at=START + 0.5)
    first = next(message for message in await due(store, most=limits(per_lane=1)))
    assert first.lane == "dead"
    recorded = await fail(store, first, NOW)
    assert recorded.blocked_until == NOW + FIRST_BACK_OFF
    assert await due(store) == []
    assert await next_due(store) == NOW + FIRST_BACK_OFF
    await add(store, "c@dead", at=NOW)
    assert await due(store, NOW + FIRST_BACK_OFF - 1) == []
    assert lanes(await due(store, NOW + FIRST_BACK_OFF)) == {"dead": 1}, "one at a time"


async def test_each_failure_doubles_the_time(tmp_path: Path) -> None:
    now, spans = NOW, []
    for life in range(8):  # each in a process life of its own: it is remembered
        store = QueueStore.open(str(tmp_path), 0)
        if life == 0:
            await add(store, "a@dead")
        (message,) = await due(store, now)
        recorded = await fail(store, message, now)
        await store.close()
        assert recorded.blocked_until is not None
        spans.append(recorded.blocked_until - now)
        now = recorded.blocked_until
    assert spans == [60, 120, 240, 480, 960, LONGEST_BACK_OFF, LONGEST_BACK_OFF, LONGEST_BACK_OFF]


async def test_those_who_fail_together_count_once(store: QueueStore) -> None:
    for _ in range(3):
        await add(store, "a@dead")
    messages = await due(store)
    blocked = [(await fail(store, each, NOW + 5, began=NOW)).blocked_until for each in messages]
    assert blocked == [NOW + 5 + FIRST_BACK_OFF, None, None]
    (alone,) = await due(store, NOW + 100)
    again = await fail(store, alone, NOW + 100)
    assert again.blocked_until == NOW + 100 + 2 * FIRST_BACK_OFF


async def test_who_fails_after_the_time_is_over_does_not_begin_it_anew(store: QueueStore) -> None:
    for _ in range(2):
        await add(store, "a@dead")
    first, late = await due(store)
    await fail(store, first, NOW)
    over = NOW + FIRST_BACK_OFF + 30
    assert (await fail(store, late, over, began=NOW - 1)).blocked_until is None
    (alone,) = await due(store, over)
    assert alone.envelope.queue_id == first.envelope.queue_id


async def test_what_moved_before_a_lane_failed_keeps_no_later_attempt_waiting(
    store: QueueStore,
) -> None:
    """A large message may be on its way for an hour, whatever the host said to another."""
    most = limits(per_lane=3)
    for number in range(6):
        await add(store, "a@slow", at=START + number / 10)
    _, large, other = await due(store, most=most)
    assert (await fail(store, other, NOW)).blocked_until is not None
    now = NOW + FIRST_BACK_OFF
    (alone,) = await due(store, now, most=most)
    assert await due(store, now, most=most) == []
    assert (await works(store, alone, now)).recovered
    assert len(await due(store, now, most=most)) == 1, "with the two, as many as fit at all"
    await settle(store, large)
    assert len(await due(store, now, most=most)) == 1


async def test_a_lane_may_ask_for_more_time(store: QueueStore) -> None:
    for _ in range(3):
        await add(store, "a@dead")
    first, second, third = await due(store)
    assert (await fail(store, first, NOW, BackOff("421", 500))).blocked_until == NOW + 500
    assert (await fail(store, second, NOW, BackOff("421", 400), NOW - 1)).blocked_until is None
    longer = await fail(store, third, NOW, BackOff("421", 700), NOW - 1)
    assert longer.blocked_until == NOW + 700
    assert await next_due(store) == NOW + 700


async def test_why_a_lane_failed_is_kept_within_bounds(store: QueueStore, tmp_path: Path) -> None:
    await add(store, "a@dead")
    (message,) = await due(store)
    await fail(store, message, NOW, BackOff("down " * 10_000))
    with closing(connect_reader(str(tmp_path / "0"))) as connection:
        (why,) = connection.execute("SELECT why FROM lane").fetchone()
    assert why == ("down " * 10_000)[:MAX_WHY]


async def test_a_success_ends_it_and_the_lane_starts_slowly(store: QueueStore) -> None:
    for _ in range(30):
        await add(store, "a@slow")
    (first,) = await due(store, most=limits(per_lane=1))
    await fail(store, first, NOW)
    now = NOW + 100
    (alone,) = await due(store, now)
    assert await due(store, now) == []
    assert (await works(store, alone, now)).recovered
    widths = []
    for _ in range(3):
        messages = await due(store, now)
        widths.append(len(messages))
        assert not (await works(store, messages[0], now)).recovered
        for message in messages[1:]:
            await record(store, message, [])  # no answer at all: they are due still
    assert widths == [2, 4, 8]


async def test_a_success_that_began_before_says_nothing(store: QueueStore) -> None:
    for _ in range(2):
        await add(store, "a@flaky")
    first, second = await due(store)
    await fail(store, first, NOW + 1, began=NOW)
    results = [Result(each.id, RecipientState.DELIVERED) for each in second.recipients]
    recorded = await store.record(second, results, NOW + 2, LaneNews(NOW, None))
    assert not recorded.recovered
    assert await next_due(store) == NOW + 1 + FIRST_BACK_OFF


async def test_a_recipient_moves_to_another_lane(store: QueueStore, tmp_path: Path) -> None:
    queue_id = await add(store, "a@old")
    (message,) = await due(store)
    moved = Result(message.recipients[0].id, RecipientState.WAITING, next_attempt=NOW, lane="new")
    assert not await record(store, message, [moved])
    (there,) = await due(store)
    assert (there.envelope.queue_id, there.lane) == (queue_id, "new")
    assert there.recipients[0].target.lane == "new"
    assert there.recipients[0].attempts == 0
    assert there.recipients[0].last is None
    assert not there.again
    await settle(store, there)
    assert store.waiting == 0


async def test_moving_is_no_record_of_an_attempt(tmp_path: Path) -> None:
    first = QueueStore.open(str(tmp_path), 0)
    await add(first, "a@old")
    await first.close()
    second = QueueStore.open(str(tmp_path), 0)
    (message,) = await due(second)
    moved = Result(message.recipients[0].id, RecipientState.WAITING, next_attempt=NOW, lane="new")
    await record(second, message, [moved])
    (there,) = await due(second)
    assert there.again, "the life before may have tried it"
    await second.close()


async def test_an_expansion_goes_into_the_lanes_of_its_targets(store: QueueStore) -> None:
    await add(store, "all@here")
    (message,) = await due(store)
    goals = (Target("a@one", lane="one"), Target("b@two", lane="two"), Target("c@here"))
    expanded = Result(message.recipients[0].id, RecipientState.EXPANDED, targets=goals)
    await record(store, message, [expanded])
    assert lanes(await due(store)) == {"one": 1, "two": 1, LOCAL_LANE: 1}


async def test_a_lane_is_due_for_what_comes_new_while_another_hangs(store: QueueStore) -> None:
    await add(store, "a@one")
    (hanging,) = await due(store)
    assert await due(store) == []
    assert await next_due(store) == math.inf
    await add(store, "b@one", at=NOW + 10)
    work = await store.due(NOW, limits())
    assert (work.messages, work.next_due) == ((), NOW + 10)
    assert [addresses(each) for each in await due(store, NOW + 10)] == [["b@one"]]
    await settle(store, hanging)


async def test_an_empty_lane_is_remembered_only_while_it_is_blocked(store: QueueStore) -> None:
    await add(store, "a@dead")
    (message,) = await due(store)
    failed = Result(message.recipients[0].id, RecipientState.DELIVERED)
    await store.record(message, [failed], NOW, LaneNews(NOW, DOWN))
    await add(store, "b@dead", at=NOW)
    assert await due(store, NOW + 1) == [], "the lane is known to be down"
    (later,) = await due(store, NOW + FIRST_BACK_OFF)
    await settle(store, later)
    assert await next_due(store) == NOW + FIRST_BACK_OFF, "one failure is remembered"
    assert await next_due(store, NOW + FIRST_BACK_OFF) == math.inf


async def test_overdue_are_those_whose_time_is_up_or_who_are_late(store: QueueStore) -> None:
    for age in (100, 50, 10):
        await add(store, f"a{age}@dead", at=START - age)
    await add(store, "a100@good", at=START - 100)
    first = (await due(store, most=limits(per_lane=1)))[0]
    assert addresses(first) == ["a100@dead"]
    await fail(store, first, START)
    born = (START - 100.0, START - 50.0)
    found, position = await store.overdue("dead", START, born, Position())
    assert [addresses(each) for each in found] == [["a50@dead"], ["a100@dead"]]
    assert position is not None
    assert await store.overdue("dead", START, born, position) == ([], None)
    for message in found:
        told = [
            Result(each.id, RecipientState.WAITING, NOT_NOW, START, late=True)
            for each in message.recipients
        ]
        await record(store, message, told)
    again, _ = await store.overdue("dead", START, born, Position())
    assert [addresses(each) for each in again] == [["a100@dead"]], "told once that it is late"
    assert again[0].recipients[0].delay_told


async def test_who_is_spared_is_not_overdue_but_told_that_it_is_late(store: QueueStore) -> None:
    for age in (300, 200, 100):
        await add(store, f"a{age}@dead", at=START - age)
    for late, overdue in ((-math.inf, ["a100@dead", "a300@dead"]), (START - 150, None)):
        born, spared = (START - 100.0, late), [(START - 300.0, START - 200.0), (0.0, 1.0)]
        found, _ = await store.overdue("dead", START, born, Position(), spared)
        everybody = ["a100@dead", "a200@dead", "a300@dead"]
        assert sorted(addresses(each)[0] for each in found) == (overdue or everybody)
        for message in found:
            await fail(store, message, START)


async def test_any_number_can_be_overdue(store: QueueStore) -> None:
    for _ in range(OVERDUE_AT_ONCE + 1):
        await add(store, "a@dead", at=START - 100)
    position: Position | None = Position()
    seen = []
    while position is not None:
        born = (START - 50, -math.inf)
        messages, position = await store.overdue("dead", START, born, position)
        seen.extend(messages)
    assert len({message.envelope.queue_id for message in seen}) == OVERDUE_AT_ONCE + 1
    assert {message.content.body for message in seen} == {b""}, "nobody reads it"
    assert await due(store) == [], "they are in flight"


async def test_what_was_brought_forward_to_before_1970_is_overdue(store: QueueStore) -> None:
    await add(store, "a@dead", at=START - 100)
    await store.bring_forward(START, START - 200)
    found, _ = await store.overdue("dead", START, (START - 50, -math.inf), Position())
    assert [addresses(each) for each in found] == [["a@dead"]]


async def test_what_is_given_up_in_a_dead_lane_leaves_no_file(
    store: QueueStore, tmp_path: Path
) -> None:
    body = b"x" * (IN_ROW + 1)
    await store.add(envelope(at=START - 100), content(body), [Target("a@dead", lane="dead")])
    (message,), _ = await store.overdue("dead", START, (START - 50, -math.inf), Position())
    await settle(store, message, RecipientState.FAILED)
    assert store.waiting == 0
    assert list((tmp_path / "0" / "bodies").iterdir()) == []


async def test_operators_see_the_lane(store: QueueStore, tmp_path: Path) -> None:
    queue_id = await add(store, "a@one")
    entry = QueueReader(str(tmp_path)).message(queue_id)
    assert entry is not None
    assert entry.recipients[0].target.lane == "one"


async def test_a_large_body_that_was_not_read_goes_with_its_message(store: QueueStore) -> None:
    sent = envelope(at=START)
    await store.add(sent, content(b"x" * IN_ROW + b"\n"), [Target("a@x", lane="x")])
    assert os.listdir(os.path.join(store.directory, BODIES)) == [sent.queue_id]
    (message,), _ = await store.overdue("x", NOW, (NOW, 0.0), Position())
    assert await record(store, message, [Result(message.recipients[0].id, RecipientState.FAILED)])
    assert os.listdir(os.path.join(store.directory, BODIES)) == []
