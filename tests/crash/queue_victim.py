"""Works on a queue until it is killed, saying on standard output what it has been promised.

``added ID``, ``finished ID``, ``expanded ID``, ``failed ID ADDRESS`` and ``left ID ADDRESS COUNT``
(so many instructions) are written after the queue's answer; ``finishing ID``, and
``reporting REPORT ID ADDRESS ...`` before it is asked.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator

from restante.address import NULL_REVERSE_PATH, Address, NullReversePath
from restante.envelope import Envelope, memory_content, queue_ids
from restante.queue import Action, BackOff, QueuedMessage, RecipientState, Submission, Target
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.queue.work import LaneNews, PendingReport

SMALL = 500
LARGE = 100_000
CHILDREN = 5
LANES = ["", "", "one", "one", "two"]
"""Of the children."""
OWNERS = [None, "o@x", "o@x", "p@x", None]
"""Whom their copies are from."""
STEPS = "\n".join(f"|{number}" for number in range(5))
"""What is to be done for each of them."""
LIMITS = Limits(20, 20, 5, 5, 20)
TASKS = 8
MOST_WAITING = 200


def now() -> float:
    """A time of day in which lanes are not left alone for longer than a process lives."""
    return time.time() * 10_000


def body(queue_id: str, size: int) -> bytes:
    """What the message with this id says, so that it can be checked."""
    line = f"{queue_id} {size}\n".encode()
    return line * (size // len(line))


def say(*words: str) -> None:
    os.write(1, f"{' '.join(words)}\n".encode())


async def add_for_ever(store: QueueStore, ids: Iterator[str]) -> None:
    while True:
        if store.waiting >= MOST_WAITING:
            await asyncio.sleep(0)
            continue
        queue_id = next(ids)
        size = random.choice([SMALL, SMALL, LARGE])
        sent = Envelope(queue_id, Address("s", "x"), (Address("all", "x"),), now())
        content = memory_content(f"Received: {size}\n".encode(), body(queue_id, size))
        await store.add(sent, content, [Target("all@x")])
        say("added", queue_id)


async def work_for_ever(store: QueueStore, ids: Iterator[str]) -> None:
    while True:
        work = await store.due(now(), LIMITS)
        for message in work.messages:
            await settle(store, message)
        for pending in work.reports:
            await tell(store, pending, next(ids))
        await asyncio.sleep(0)


async def settle(store: QueueStore, message: QueuedMessage) -> None:
    queue_id = message.envelope.queue_id
    addresses = [recipient.target.address for recipient in message.recipients]
    news = LaneNews(now(), random.choice([None, BackOff("down")]))
    is_report = isinstance(message.envelope.reverse_path, NullReversePath)
    match random.choice(["finish", "fail", "expand", "step", "step", "defer", "defer"]):
        case "finish":
            say("finishing", queue_id)
            if await record(store, message, RecipientState.DELIVERED, news):
                say("finished", queue_id)
        case "fail" if not is_report:
            await record(store, message, RecipientState.FAILED, news)
            for address in addresses:
                say("failed", queue_id, address)
        case "expand" if addresses == ["all@x"]:
            await record(store, message, RecipientState.EXPANDED, news)
            say("expanded", queue_id)
        case "step" if all("\n" in each.target.instruction for each in message.recipients):
            await step(store, message)
        case _:
            await record(store, message, RecipientState.WAITING, news)


async def record(
    store: QueueStore, message: QueuedMessage, state: RecipientState, news: LaneNews
) -> bool:
    children = tuple(
        Target(f"{number}@x", STEPS, lane=LANES[number], reverse_path=OWNERS[number])
        for number in range(CHILDREN)
    )
    results = [
        Result(
            each.id,
            state,
            next_attempt=now() + 100,
            targets=children if state is RecipientState.EXPANDED else (),
            notice=Action.FAILED if state is RecipientState.FAILED else None,
        )
        for each in message.recipients
    ]
    return (await store.record(message, results, now(), news)).finished


async def step(store: QueueStore, message: QueuedMessage) -> None:
    """The first instruction of each recipient is done."""
    left = [each.target.instruction.partition("\n")[2] for each in message.recipients]
    results = [
        Result(each.id, RecipientState.WAITING, next_attempt=now(), instruction=rest)
        for each, rest in zip(message.recipients, left, strict=True)
    ]
    await store.record(message, results, now())
    for each, rest in zip(message.recipients, left, strict=True):
        count = len(rest.split("\n"))
        say("left", message.envelope.queue_id, each.target.address, str(count))


async def tell(store: QueueStore, pending: PendingReport, report_id: str) -> None:
    queue_id = pending.message.envelope.queue_id
    addresses = [notice.recipient.target.address for notice in pending.notices]
    size = random.choice([SMALL, LARGE])
    sent = Envelope(report_id, NULL_REVERSE_PATH, (Address("s", "x"),), now())
    content = memory_content(f"Received: {size}\n".encode(), body(report_id, size))
    say("reporting", report_id, queue_id, *addresses)
    told = await store.tell(pending, Submission(sent, content, (Target("s@x"),)), now())
    if told.finished:
        say("finished", queue_id)


async def main(root: str) -> None:
    store = QueueStore.open(root, 0)
    ids = queue_ids(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(add_for_ever(store, ids))
            group.create_task(work_for_ever(store, ids))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
