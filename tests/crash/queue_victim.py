"""Works on a queue until it is killed, saying on standard output what it has been promised.

``added ID``, ``finished ID``, ``bounced ID`` (its report is ``ID-report``) and
``expanded ID`` are written after the queue's answer; ``finishing ID`` and
``bouncing ID`` before it is asked.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator

from restante.address import NULL_REVERSE_PATH, Address
from restante.envelope import Envelope, memory_content, queue_ids
from restante.queue import QueuedMessage, RecipientState, Submission, Target
from restante.queue.rows import Result
from restante.queue.store import QueueStore

SMALL = 500
LARGE = 100_000
CHILDREN = 5
TASKS = 8
MOST_WAITING = 200


def body(queue_id: str, size: int) -> bytes:
    """What the message with this id says, so that it can be checked."""
    line = f"{queue_id} {size}\n".encode()
    return line * (size // len(line))


def say(what: str, queue_id: str) -> None:
    os.write(1, f"{what} {queue_id}\n".encode())


async def add_for_ever(store: QueueStore, ids: Iterator[str]) -> None:
    while True:
        if store.waiting >= MOST_WAITING:
            await asyncio.sleep(0)
            continue
        queue_id = next(ids)
        size = random.choice([SMALL, SMALL, LARGE])
        sent = Envelope(queue_id, Address("s", "x"), (Address("all", "x"),), time.time())
        content = memory_content(f"Received: {size}\n".encode(), body(queue_id, size))
        await store.add(sent, content, [Target("all@x")])
        say("added", queue_id)


async def record_for_ever(store: QueueStore) -> None:
    while True:
        for message in await store.due(time.time(), 1):
            await settle(store, message)
        await asyncio.sleep(0)


async def settle(store: QueueStore, message: QueuedMessage) -> None:
    queue_id = message.envelope.queue_id
    match random.choice(["finish", "bounce", "expand", "defer"]):
        case "finish":
            say("finishing", queue_id)
            await store.record(message.envelope, results(message, RecipientState.DELIVERED))
            say("finished", queue_id)
        case "bounce" if not queue_id.endswith("-report"):
            say("bouncing", queue_id)
            failed = results(message, RecipientState.FAILED)
            await store.record(message.envelope, failed, [report(queue_id)])
            say("bounced", queue_id)
        case "expand" if len(message.recipients) == 1:
            await store.record(message.envelope, results(message, RecipientState.EXPANDED))
            say("expanded", queue_id)
        case _:
            await store.record(message.envelope, results(message, RecipientState.WAITING))


def results(message: QueuedMessage, state: RecipientState) -> list[Result]:
    soon = time.time() + 0.01
    children = tuple(Target(f"{number}@x") for number in range(CHILDREN))
    return [
        Result(
            each.id,
            state,
            next_attempt=soon,
            targets=children if state is RecipientState.EXPANDED else (),
        )
        for each in message.recipients
    ]


def report(queue_id: str) -> Submission:
    name = f"{queue_id}-report"
    size = random.choice([SMALL, LARGE])
    sent = Envelope(name, NULL_REVERSE_PATH, (Address("s", "x"),), time.time())
    content = memory_content(f"Received: {size}\n".encode(), body(name, size))
    return Submission(sent, content, (Target("s@x"),))


async def main(root: str) -> None:
    store = QueueStore.open(root, 0)
    ids = queue_ids(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(add_for_ever(store, ids))
            group.create_task(record_for_ever(store))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
