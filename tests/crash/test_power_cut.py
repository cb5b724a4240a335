"""Power cuts on a disk that loses what it was not told to flush.

Whole messages alone are visible after one, and all of those that were acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from pathlib import Path

import pytest

from restante.envelope import HeaderFacts, memory_content
from restante.mda import Delivery
from restante.mda.durable import LocalDisk
from restante.mda.writer import BatchWriter
from restante.status import Delivered
from tests.support.deliveries import (
    GROUP,
    HOST,
    OWNER,
    TRACE,
    delivery,
    envelope,
    expected,
    messages,
    settle,
)
from tests.support.owner import only_root
from tests.support.power import BTRFS, EXT4, EXT4_WITHOUT_JOURNAL, XFS, FileSystem
from tests.support.power_cuts import Found, Turns, cut_while, where_nobody_mounts

CUTS = 120
CONTROLS = 60
"""Cuts that are enough where there are faults: they leave dozens of messages short or lost."""
MAILBOXES = [f"user{number}" for number in range(60)]
"""So many that what is delivered to one fits into the first block of its directory: ext4 without a
journal may lose all of it, whatever is synced, when that is divided (docs/internals.md)."""
LINES = (6, 50, 50, 120, 500)
"""Lengths of the messages, in lines of 74 octets; one in turn."""
SINGLE, FEW, MANY = 1, 6, 32
"""Messages at a time: each has a way of its own to the disk."""
_NUMBER = re.compile(r"\.queue(\d+)_")


class SlowDisk(LocalDisk):
    """Names take a while now and then, in which others have the journal committed.

    It remembers in which ways octets were brought to the disk, and got their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ways: set[str] = set()

    def link(self, fd: int, name: str, parent: int | None) -> None:
        super().link(fd, name, parent)
        self._dawdle()

    def rename(self, old: str, source: int | None, new: str, target: int | None) -> None:
        super().rename(old, source, new, target)
        self._dawdle()

    def _dawdle(self) -> None:
        if random.random() < 0.3:
            time.sleep(random.random() * 0.01)

    def create(self, name: str, parent: int | None) -> int:
        self.ways.add("named")
        return super().create(name, parent)

    def create_unnamed(self, directory: str, parent: int | None) -> int:
        self.ways.add("unnamed")
        return super().create_unnamed(directory, parent)

    def order(self, fd: int) -> None:
        self.ways.add("order")
        super().order(fd)

    def order_all(self, fd: int) -> None:
        self.ways.add("order_all")
        super().order_all(fd)

    def names_follow(self, fd: int) -> bool:
        follow = super().names_follow(fd)
        self.ways |= {"names follow"} if follow else set()
        return follow


class HastyDisk(SlowDisk):
    """Does not wait for the octets before they get a name."""

    def begin_order(self, fd: int) -> None:
        pass

    def order(self, fd: int) -> None:
        pass

    def order_all(self, fd: int) -> None:
        pass


class NamelessDisk(SlowDisk):
    """Makes files durable, and leaves out the sync for their names."""

    def __init__(self) -> None:
        super().__init__()
        self._named: set[int] = set()

    def create_unnamed(self, directory: str, parent: int | None) -> int:
        fd = super().create_unnamed(directory, parent)
        self._named.discard(fd)
        return fd

    def link(self, fd: int, name: str, parent: int | None) -> None:
        super().link(fd, name, parent)
        self._named.add(fd)

    def fsync(self, fd: int) -> None:
        if fd not in self._named:
            super().fsync(fd)


class ForgetfulDisk(SlowDisk):
    """Makes nothing durable."""

    def fsync(self, fd: int) -> None:
        pass

    def syncfs(self, fd: int) -> None:
        pass


def mailbox(root: Path, number: int) -> Delivery:
    """Whose turn it is."""
    return delivery(root, MAILBOXES[number % len(MAILBOXES)])


def body(number: int) -> bytes:
    """Of the message with this number, and of no other."""
    line = f"{number:07} " * 8 + "power cut\n"
    return b"Subject: power\n\n" + line.encode() * LINES[number % len(LINES)]


class Deliveries:
    """Messages for Maildirs, so many at a time."""

    def __init__(self, disk: SlowDisk, sessions: int) -> None:
        self.disk = disk
        self.sessions = sessions

    def prepare(self, tree: Path) -> None:
        for number in range(len(MAILBOXES)):
            each = mailbox(tree, number)
            parts = [f"{each.maildir}/{part}" for part in ("tmp", "new", "cur")]
            for part in parts:
                os.makedirs(part)
            for directory in (each.account.home, each.maildir, *parts):
                os.chown(directory, OWNER, GROUP)
            settle(each)

    def do(self, root: Path, turns: Turns) -> None:
        asyncio.run(self._deliver(root, turns))

    async def _deliver(self, root: Path, turns: Turns) -> None:
        writer = BatchWriter(HOST, 1, 1, self.disk)

        async def session() -> None:
            for number in turns:
                content = memory_content(TRACE, body(number), HeaderFacts(received=1))
                to = [mailbox(root, number)]
                outcome = await writer.deliver_all(envelope(number), content, to)
                assert isinstance(outcome, Delivered), outcome
                turns.promise(number)
                await asyncio.sleep(random.random() * 0.004)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.sessions):
                    group.create_task(session())
        finally:
            await writer.close()

    def found(self, root: Path) -> tuple[set[int], int]:
        whole, short = set[int](), 0
        for turn in range(len(MAILBOXES)):
            each = mailbox(root, turn)
            for name, octets in messages(each).items():
                match = _NUMBER.search(name)
                assert match, name
                number = int(match[1])
                if octets == expected(each, TRACE + body(number)):
                    whole.add(number)
                else:
                    short += 1
        return whole, short


def cut_while_delivering(
    system: FileSystem, disk: SlowDisk, sessions: int, cuts: int
) -> tuple[Found, set[str]]:
    """Deliver so many messages at a time, cut the power so often, look; and the disk's ways."""

    def task() -> tuple[Found, set[str]]:
        return cut_while(Deliveries(disk, sessions), system, cuts, seed=sessions), disk.ways

    return where_nobody_mounts(task)


pytestmark = pytest.mark.soak

each_system = pytest.mark.parametrize("system", [EXT4, EXT4_WITHOUT_JOURNAL, XFS, BTRFS], ids=str)


# Many share their writes: there are few cuts within as many messages.
@only_root
@pytest.mark.parametrize(
    ("system", "sessions", "cuts", "ways"),
    [
        (EXT4, SINGLE, CUTS, ["unnamed", "order"]),
        (EXT4, FEW, CUTS, ["unnamed", "order"]),
        (EXT4, MANY, CONTROLS, ["unnamed", "order"]),
        (EXT4_WITHOUT_JOURNAL, SINGLE, CUTS, ["unnamed", "names follow"]),
        (EXT4_WITHOUT_JOURNAL, FEW, CUTS, ["unnamed", "order_all"]),
        (EXT4_WITHOUT_JOURNAL, MANY, CONTROLS, ["unnamed", "order_all"]),
        (XFS, SINGLE, CUTS, ["unnamed", "order"]),
        (XFS, FEW, CUTS, ["unnamed", "order"]),
        (XFS, MANY, CONTROLS, ["unnamed", "order"]),
        (BTRFS, SINGLE, CUTS, ["named"]),
        (BTRFS, FEW, CUTS, ["named", "order_all"]),
        (BTRFS, MANY, CONTROLS, ["named", "order_all"]),
    ],
    ids=str,
)
def test_power_cuts(system: FileSystem, sessions: int, cuts: int, ways: list[str]) -> None:
    found, taken = cut_while_delivering(system, SlowDisk(), sessions, cuts)
    assert taken.issuperset(ways)
    assert found.whole > 0
    assert found.short == 0
    assert found.lost == 0, found.losses


@only_root
@each_system
def test_names_before_octets_would_be_noticed(system: FileSystem) -> None:
    # XFS hardly writes anything but its log then, and there are few moments for a cut.
    cuts = CONTROLS // 3 if system is XFS else CONTROLS
    found, _ = cut_while_delivering(system, HastyDisk(), FEW, cuts)
    assert found.short > 0


@only_root
@each_system
def test_answers_before_the_sync_would_be_noticed(system: FileSystem) -> None:
    found, _ = cut_while_delivering(system, ForgetfulDisk(), FEW, CONTROLS)
    assert found.lost > 0


@only_root
@pytest.mark.parametrize("sessions", [SINGLE, MANY])
def test_answers_before_any_sync_would_be_noticed(sessions: int) -> None:
    found, _ = cut_while_delivering(EXT4, ForgetfulDisk(), sessions, CONTROLS)
    assert found.lost > 0


@only_root
def test_names_that_do_not_follow_would_be_noticed() -> None:
    found, _ = cut_while_delivering(EXT4_WITHOUT_JOURNAL, NamelessDisk(), SINGLE, CONTROLS)
    assert found.lost > 0
