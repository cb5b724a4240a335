"""An operator at a queue in which very many messages wait, and a server that goes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection

from bench.figures import Better, Row, Series
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
_Work = Callable[[], object]


def rows(root: str) -> Iterator[Row]:
    """Every command in a process of its own, as operators have it."""
    reader, operator = QueueReader(root), QueueOperator(root)
    for by in By:
        yield _row(f"sum-{by}", f"added up by {by}", *_timed(partial(_add_up, reader, by)))
    yield _row("list-300", "the oldest 300 listed", *_timed(lambda: _list(reader, 300)))
    yield _row("list", "all listed", *_timed(lambda: _list(reader, None)))
    lane = Selection(lane=CHANGED)
    hold = partial(_hold, operator, lane)
    yield _row("hold-lane", "held in one small lane", *_timed(hold))
    spans, seconds, megabytes = asyncio.run(_adds_beside(root, partial(_hold, operator)))
    yield _row("hold", "all held", seconds, megabytes)
    yield Row(
        "queue/beside",
        "a message is queued while all are held",
        "ms",
        Better.LESS,
        [Series("restante", tuple(span * 1000 for span in spans))],
    )


def _row(key: str, title: str, seconds: float, mebibytes: float) -> Row:
    series = Series("restante", (seconds,), memory={"more": mebibytes})
    return Row(f"queue/{key}", title, "s", Better.LESS, [series])


def _timed(work: _Work) -> tuple[float, float]:
    """Seconds, and MiB of memory that the work takes, which is done in a fork."""
    process, answer = _forked(work)
    seconds, mebibytes = answer.recv()
    process.join()
    return seconds, mebibytes


def _forked(work: _Work) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    ours, its = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(its, work))
    process.start()
    its.close()
    return process, ours


def _answer(to: Connection, work: _Work) -> None:
    began, before = time.monotonic(), _peak()
    work()
    to.send((time.monotonic() - began, _peak() - before))


def _add_up(reader: QueueReader, by: By) -> None:
    largest(groups(reader, by), 10)


def _list(reader: QueueReader, limit: int | None) -> int:
    return _count(reader.messages(limit=limit) if limit else reader.messages())


def _hold(operator: QueueOperator, selection: Selection | None = None) -> int:
    return _count(operator.apply(Verb.HOLD, selection or Selection()))


def _count(things: Iterable[object]) -> int:
    """How many there are, with one of them in memory."""
    return sum(1 for _ in things)


async def _adds_beside(root: str, work: _Work) -> tuple[list[float], float, float]:
    """Seconds that a server takes for each message that it queues while the work is done.

    And then how long the work took, and its memory.
    """
    store = QueueStore.open(root, 0)
    ids, spans = queue_ids(3), []
    process, answer = _forked(work)
    while process.is_alive():
        began = time.monotonic()
        to = Address("iain", "new.example")
        envelope = Envelope(next(ids), to, (to,), time.time() + 1e9)
        await store.add(envelope, memory_content(b"", b"x"), (Target(str(to)),))
        spans.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    await store.close()
    seconds, mebibytes = answer.recv()
    return spans, seconds, mebibytes


def _peak() -> float:
    """MiB of memory that this process had at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
