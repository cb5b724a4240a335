"""An operator at a queue in which very many messages wait, and a server that goes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable
from functools import partial

from restante.address import Address
from restante.envelope import Envelope, memory_content, queue_ids
from restante.queue import Target
from restante.queue.operate import QueueOperator, Verb
from restante.queue.reader import QueueReader
from restante.queue.selection import By, Selection
from restante.queue.store import QueueStore
from restante.queue.summary import groups, largest

CHANGED = "d7.example"
"""The lane of one message in ten thousand."""


def run(root: str) -> None:
    """Every command in a process of its own, as operators have it."""
    reader, operator = QueueReader(root), QueueOperator(root)
    for by in By:
        timed(f"added up by {by}", partial(add_up, reader, by))
    timed("the oldest 300 listed", lambda: count(reader.messages(limit=300)))
    timed("all listed", lambda: count(reader.messages()))
    lane = Selection(lane=CHANGED)
    timed("held in one small lane", lambda: count(operator.apply(Verb.HOLD, lane)))
    holding = multiprocessing.get_context("spawn").Process(target=hold_all, args=(root,))
    asyncio.run(adds_beside(root, holding))


def timed(label: str, work: Callable[[], object]) -> None:
    """In a fork, so that memory is what this takes."""
    process = multiprocessing.get_context("fork").Process(target=report, args=(label, work))
    process.start()
    process.join()


def report(label: str, work: Callable[[], object]) -> None:
    began, before = time.monotonic(), peak()
    work()
    spent, grown = time.monotonic() - began, peak() - before
    print(f"{label}: {spent:.1f} s, {grown:.0f} MB more memory at the most", flush=True)


def add_up(reader: QueueReader, by: By) -> None:
    largest(groups(reader, by), 10)


def count(things: Iterable[object]) -> int:
    """How many there are, with one of them in memory."""
    return sum(1 for _ in things)


def hold_all(root: str) -> None:
    began = time.monotonic()
    held = count(QueueOperator(root).apply(Verb.HOLD, Selection()))
    print(f"held {held} messages in {time.monotonic() - began:.0f} s", flush=True)


async def adds_beside(root: str, other: multiprocessing.process.BaseProcess) -> None:
    """How long the server takes to queue a message while everything is held."""
    store = QueueStore.open(root, 0)
    ids, spans = queue_ids(3), []
    other.start()
    while other.is_alive():
        began = time.monotonic()
        to = Address("iain", "new.example")
        envelope = Envelope(next(ids), to, (to,), time.time() + 1e9)
        await store.add(envelope, memory_content(b"", b"x"), (Target(str(to)),))
        spans.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    await store.close()
    spans.sort()
    middle, late = spans[len(spans) // 2], spans[len(spans) * 99 // 100]
    print(
        f"a message is queued meanwhile in {middle * 1000:.0f} ms (99 of 100 in "
        f"{late * 1000:.0f} ms, all in {spans[-1] * 1000:.0f} ms)"
    )


def peak() -> float:
    """Megabytes of memory that this process had at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
