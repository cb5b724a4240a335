"""A queue in which very many messages wait, beside an empty one.

Nine in ten wait for a next hop that is down and left alone; the others for a thousand
others. A process of its own fills the queue, so that memory is what work on it takes.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, Iterator

from bench.arena import Arena, Bench
from bench.benches import operating
from bench.figures import Better, Row, Series
from restante.address import Address
from restante.envelope import Envelope, memory_content, queue_ids
from restante.queue import BackOff, RecipientState, Submission, Target, rows
from restante.queue.handout import Position
from restante.queue.rows import Result
from restante.queue.schema import BODIES, connect_writer
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import LaneNews

MESSAGES, QUICK_MESSAGES = 1_000_000, 100_000
"""That wait."""
DEAD = "dead.example"
LANES = 1000
BODY = b"Subject: hello\n\n" + b"Hello, this is a small message.\n" * 32
"""About 1 KiB."""
IN_ONE_TRANSACTION = 20_000
ADDS = 1000
"""In each round, AT_ONCE at a time."""
AT_ONCE = 50
ROUNDS = 15
LATER = 1e6
"""Seconds until the dead lane is due."""
LIMITS = Limits(20, 200, 20, 10, 20)


def run(arena: Arena) -> None:
    """Fill a queue, and measure."""
    messages = QUICK_MESSAGES if arena.options.quick else MESSAGES
    root = str(arena.directory("queue"))
    began = time.monotonic()
    filling = multiprocessing.get_context("spawn").Process(target=fill, args=(root, messages))
    filling.start()
    filling.join()
    size = os.path.getsize(os.path.join(root, "0", "queue.db")) / 2**20
    print(f"{messages:,} messages, {size:.0f} MiB, filled in {time.monotonic() - began:.0f} s\n")
    for row in asyncio.run(measure(root, messages)):
        arena.add(row)
    for row in operating.rows(root):
        arena.add(row)


def fill(root: str, messages: int) -> None:
    """By plain SQL, in large transactions."""
    directory = os.path.join(root, "0")
    os.makedirs(os.path.join(directory, BODIES))
    connection = connect_writer(directory)
    connection.execute("PRAGMA cache_size = -200000")
    now = time.time()
    ids = queue_ids(0)
    for start in range(0, messages, IN_ONE_TRANSACTION):
        connection.execute("BEGIN")
        for number in range(start, min(start + IN_ONE_TRANSACTION, messages)):
            lane = DEAD if number % 10 else f"d{number // 10 % LANES}.example"
            arrival = rows.Arrival(submission(next(ids), lane, now), BODY)
            rows.insert_messages(connection, [arrival], life=1)
        connection.execute("COMMIT")
    # Nothing is due: all lanes are left alone, the dead one for the shorter time.
    connection.execute("UPDATE lane SET blocked_until = ?, failures = 9", (now + LATER,))
    connection.execute("UPDATE lane SET blocked_until = ? WHERE name != ?", (now + 1e9, DEAD))
    connection.execute("UPDATE lane SET next_attempt = blocked_until")
    connection.close()


def submission(queue_id: str, lane: str, now: float) -> Submission:
    to = Address("iain", lane)
    envelope = Envelope(queue_id, Address("sender", "example.com"), (to,), now)
    return Submission(
        envelope, memory_content(b"Received: x\n", BODY), (Target(str(to), lane=lane),)
    )


async def measure(root: str, messages: int) -> list[Row]:
    """The figures of the large queue, beside those of an empty one where they compare."""
    before = resident()
    began = time.monotonic()
    large = QueueStore.open(root, 0)
    opened = time.monotonic() - began
    empty = QueueStore.open(root, 1)
    rows = [await adds(large, empty, messages), *await questions(large)]
    grown = {"more": resident() - before}
    series = Series("restante", (opened,), memory=grown)
    rows.append(Row("queue/open", "opened", "s", Better.LESS, [series]))
    await empty.close()
    await large.close()
    return rows


async def adds(large: QueueStore, empty: QueueStore, messages: int) -> Row:
    """Turn by turn, so that what else the machine does meets both; the goal is for MESSAGES."""
    ids = queue_ids(2)
    rates: dict[QueueStore, list[float]] = {large: [], empty: []}
    for store in itertools.islice(itertools.cycle([large, empty]), 2 * ROUNDS):
        began = time.monotonic()
        await asyncio.gather(*(add(store, ids) for _ in range(AT_ONCE)))
        rates[store].append(ADDS / (time.monotonic() - began))
    series = [
        Series("restante", tuple(rates[large])),
        Series("an empty queue", tuple(rates[empty])),
    ]
    title = f"a message is queued beside {messages:,}"
    judged = messages == MESSAGES
    return Row("queue/add", title, "messages/s", Better.MORE, series, judged=judged)


async def add(store: QueueStore, ids: Iterator[str]) -> None:
    for _ in range(ADDS // AT_ONCE):
        sent = submission(next(ids), "new.example", time.time() + 1e9)
        await store.add(sent.envelope, sent.content, sent.targets)


async def questions(large: QueueStore) -> list[Row]:
    """What the scheduler asks."""
    now = time.time()
    late = (now - 7 * 86400.0, float("-inf"))
    times = itertools.count(now + 2 * LATER, 3600.0)
    return [
        await timed("due", "what is due, the dead lane left alone", lambda: large.due(now, LIMITS)),
        await timed(
            "overdue",
            "who is to be given up in the dead lane",
            lambda: large.overdue(DEAD, now, late, Position()),
        ),
        await timed(
            "attempt",
            "an attempt in the dead lane, found and recorded",
            lambda: attempt(large, next(times)),
        ),
    ]


async def attempt(large: QueueStore, now: float) -> None:
    """What happens each time when the dead lane has been left alone for long enough."""
    (message,) = (await large.due(now, LIMITS)).messages
    assert message.lane == DEAD
    (recipient,) = message.recipients
    waits = Result(recipient.id, RecipientState.WAITING, next_attempt=now + 86400)
    await large.record(message, [waits], now, LaneNews(now, BackOff("down")))


async def timed(key: str, title: str, question: Callable[[], Awaitable[object]]) -> Row:
    """A row in milliseconds."""
    spans = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        await question()
        spans.append((time.monotonic() - began) * 1000)
    return Row(f"queue/{key}", title, "ms", Better.LESS, [Series("restante", tuple(spans))])


def resident() -> float:
    """MiB of this process in memory, pages of files apart."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


BENCHES = (Bench("queue", "a queue in which a million messages wait", run),)
