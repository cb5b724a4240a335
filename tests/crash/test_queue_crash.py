"""A process that works on a queue is killed at random moments; the queue keeps its promises."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from contextlib import closing
from pathlib import Path

import pytest

from restante.queue import RecipientState, Target
from restante.queue.bodies import IN_ROW
from restante.queue.reader import QueueEntry, QueueReader
from restante.queue.schema import connect_reader
from restante.queue.store import QueueStore
from tests.crash.queue_victim import CHILDREN, STEPS, body

ROOT = Path(__file__).parents[2]
LONGEST_LIFE = 600
"""Lines that a process may say before it is killed."""
EXPANDED = RecipientState.EXPANDED


class Promises:
    """What the killed processes asked for and were told, over all lives."""

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = defaultdict(set)
        self.failed: set[tuple[str, str]] = set()
        """Recipients whose failure was recorded: the message's id, the address."""
        self.left: dict[tuple[str, str], int] = {}
        """By recipient, how many instructions were left at the most."""
        self.reports: dict[str, set[tuple[str, str]]] = {}
        """By the id of a report that was to be queued, the failures that it tells of."""

    def hear(self, line: str) -> None:
        kind, queue_id, *rest = line.split()
        self._said[kind].add(queue_id)
        if kind == "failed":
            self.failed.add((queue_id, rest[0]))
        if kind == "left":
            self.left[queue_id, rest[0]] = int(rest[1])
        if kind == "reporting":
            self.reports[queue_id] = {(rest[0], address) for address in rest[1:]}

    def __getitem__(self, kind: str) -> set[str]:
        return self._said[kind]

    def made(self, found: Set[str]) -> dict[str, set[tuple[str, str]]]:
        """The reports that were queued, as those show that are there or were worked on."""
        there = found | self["finishing"]
        return {name: told for name, told in self.reports.items() if name in there}


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
    made = promises.made(found.keys())
    reported = {queue_id for told in made.values() for queue_id, _ in told}
    lost = promises["added"] - found.keys() - promises["finishing"] - reported
    assert not lost
    assert not found.keys() & promises["finished"], "a settled message came back"
    check_reports(root, promises, made)
    for queue_id, entry in found.items():
        states = [recipient.state for recipient in entry.recipients]
        assert len(states) == 1 + CHILDREN * (states[0] is EXPANDED)
        assert states[0] is EXPANDED or queue_id not in promises["expanded"]
        for recipient in entry.recipients[1:]:
            check_steps(promises, queue_id, recipient.target)
    large = {queue_id for queue_id, entry in found.items() if entry.size > IN_ROW}
    assert set(os.listdir(root / "0" / "bodies")) == large


def check_steps(promises: Promises, queue_id: str, target: Target) -> None:
    """What is left is the end of the list, and nothing of it that was recorded as done."""
    assert STEPS.endswith(target.instruction)
    count = len(target.instruction.split("\n"))
    assert count <= promises.left.get((queue_id, target.address), 1 + STEPS.count("\n"))


def check_reports(root: Path, promises: Promises, made: Mapping[str, set[tuple[str, str]]]) -> None:
    """Every failure is told once, or still to be told."""
    told = Counter(failure for failures in made.values() for failure in failures)
    with closing(connect_reader(str(root / "0"))) as connection:
        pending = set(
            connection.execute("SELECT queue_id, address FROM recipient WHERE notice != ''")
        )
        due = {queue_id for (queue_id,) in connection.execute("SELECT queue_id FROM report")}
    assert set(told.values()) <= {1}
    assert not told.keys() & pending, "to be told again"
    assert promises.failed <= told.keys() | pending, "never to be told"
    assert due == {queue_id for queue_id, _ in pending}


async def lives(root: Path, count: int) -> None:
    promises = Promises()
    for _ in range(count):
        await asyncio.to_thread(one_life, root, promises, random.randrange(1, LONGEST_LIFE))
        await check(root, promises)
    assert promises["added"]
    assert promises.reports
    assert promises.left


async def test_killed_a_few_times(tmp_path: Path) -> None:
    await lives(tmp_path, 3)


@pytest.mark.soak
async def test_killed_often(tmp_path: Path) -> None:
    await lives(tmp_path, 100)
