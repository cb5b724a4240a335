"""A process that works on a queue is killed at random moments; the queue keeps its promises."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import pytest

from restante.queue import RecipientState
from restante.queue.bodies import IN_ROW
from restante.queue.reader import QueueEntry, QueueReader
from restante.queue.store import QueueStore
from tests.crash.queue_victim import CHILDREN, body

ROOT = Path(__file__).parents[2]
LONGEST_LIFE = 600
"""Lines that a process may say before it is killed."""
WAITING, EXPANDED = RecipientState.WAITING, RecipientState.EXPANDED


class Promises:
    """What the killed processes asked for and were told, over all lives."""

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = defaultdict(set)

    def hear(self, line: str) -> None:
        kind, _, queue_id = line.strip().partition(" ")
        self._said[kind].add(queue_id)

    def __getitem__(self, kind: str) -> set[str]:
        return self._said[kind]

    @property
    def kept(self) -> set[str]:
        """Messages that were promised to be kept; some were settled since."""
        return self["added"] | {f"{queue_id}-report" for queue_id in self["bounced"]}

    @property
    def settled(self) -> set[str]:
        """Messages that were promised to be gone for good."""
        return self["finished"] | self["bounced"]

    def may_be_gone(self, queue_id: str, found: Collection[str]) -> bool:
        """Whether a promised message that is not there was settled, if perhaps without a word."""
        if queue_id in self["finishing"]:
            return True
        report = f"{queue_id}-report"
        return queue_id in self["bouncing"] and (report in found or report in self["finishing"])


def one_life(root: Path, promises: Promises, count: int) -> None:
    """Let a process work until it has said so many things, kill it, and hear it out."""
    command = [sys.executable, "-m", "tests.crash.queue_victim", str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        for _, line in zip(range(count), victim.stdout, strict=False):
            promises.hear(line)
        victim.kill()
        for line in victim.stdout:
            promises.hear(line)
    assert victim.returncode == -signal.SIGKILL, "it ended by itself"


def entries(root: Path) -> dict[str, QueueEntry]:
    """Every message in the queue, having checked that it says what it said."""
    reader = QueueReader(str(root))
    found = {}
    for entry in reader.messages():
        queue_id = entry.envelope.queue_id
        content = reader.content(queue_id)
        assert content is not None
        trace = content.trace
        size = int(trace.removeprefix(b"Received: "))
        assert content.read() == trace + body(queue_id, size)
        found[queue_id] = entry
    return found


async def check(root: Path, promises: Promises) -> None:
    """Account for everything that was promised."""
    unopened = entries(root)
    store = QueueStore.open(str(root), 0)
    found = entries(root)
    assert store.waiting == len(found)
    await store.close()
    assert unopened == found
    gone = promises.kept - found.keys()
    lost = {queue_id for queue_id in gone if not promises.may_be_gone(queue_id, found)}
    assert not lost
    assert not found.keys() & promises.settled, "a settled message came back"
    assert not {queue_id for queue_id in found if f"{queue_id}-report" in found}
    for queue_id, entry in found.items():
        states = [recipient.state for recipient in entry.recipients]
        whole = [EXPANDED, *[WAITING] * CHILDREN]
        assert states == whole or (states == [WAITING] and queue_id not in promises["expanded"])
    large = {queue_id for queue_id, entry in found.items() if entry.size > IN_ROW}
    assert set(os.listdir(root / "0" / "bodies")) == large


async def lives(root: Path, count: int) -> None:
    promises = Promises()
    for _ in range(count):
        await asyncio.to_thread(one_life, root, promises, random.randrange(1, LONGEST_LIFE))
        await check(root, promises)
    assert promises["added"]


async def test_killed_a_few_times(tmp_path: Path) -> None:
    await lives(tmp_path, 3)


@pytest.mark.soak
async def test_killed_often(tmp_path: Path) -> None:
    await lives(tmp_path, 100)
