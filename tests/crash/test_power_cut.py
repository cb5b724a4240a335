"""Power cuts on a disk that loses what it was not told to flush.

Whole messages alone are visible after one, and all of those that were acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from tests.support.power import (
    BTRFS,
    EXT4,
    EXT4_WITHOUT_JOURNAL,
    XFS,
    Cut,
    FileSystem,
    Place,
    cuts_of,
    make_file_system,
    missing,
    mounted_after,
    place_in,
    power,
)

CUTS = 120
CONTROLS = 60
"""Cuts that are enough where there are faults: they leave dozens of messages short or lost."""
MAILBOXES = [f"user{number}" for number in range(60)]
"""So many that what is delivered to one fits into the first block of its directory: ext4 without a
journal may lose all of it, whatever is synced, when that is divided (docs/internals.md)."""
MOST = 2500
"""Messages within which there are enough cuts, and for which the disk has room."""
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


@dataclass(slots=True)
class Found:
    """What was found after the cuts."""

    whole: int = 0
    short: int = 0
    """Or garbled."""
    lost: int = 0
    """Though acknowledged."""
    losses: list[str] = field(default_factory=list)
    """In which cuts: one whose Maildirs are not there is another matter than a single message."""


def mailbox(root: Path, number: int) -> Delivery:
    """Whose turn it is."""
    return delivery(root, MAILBOXES[number % len(MAILBOXES)])


def body(number: int) -> bytes:
    """Of the message with this number, and of no other."""
    line = f"{number:07} " * 8 + "power cut\n"
    return b"Subject: power\n\n" + line.encode() * LINES[number % len(LINES)]


def make_homes(place: Place, system: FileSystem, tree: Path) -> None:
    """The file system, with a Maildir for each mailbox that has been there for long."""
    for number in range(len(MAILBOXES)):
        each = mailbox(tree, number)
        parts = [f"{each.maildir}/{part}" for part in ("tmp", "new", "cur")]
        for part in parts:
            os.makedirs(part)
        for directory in (each.account.home, each.maildir, *parts):
            os.chown(directory, OWNER, GROUP)
        settle(each)
    make_file_system(place, system, tree)


@contextmanager
def somebody_else(root: Path, system: FileSystem) -> Iterator[None]:
    """Who syncs a file every few milliseconds, and commits whatever the journal holds."""
    done = threading.Event()

    def write() -> None:
        with open(root / "other", "wb", buffering=0) as file:
            while not done.wait(random.uniform(0.01, 0.09)):
                file.write(b"x")
                system.commit(file.fileno())

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


async def deliver(place: Place, disk: SlowDisk, sessions: int) -> None:
    """Messages, so many at a time, until there are enough cuts; what is acknowledged is noted."""
    writer = BatchWriter(HOST, 1, 1, disk)
    numbers = itertools.count()
    with place.note.open("ab", buffering=0) as note:

        async def session() -> None:
            while not place.cuts.exists():
                number = next(numbers)
                assert number < MOST, "the disk takes no cuts"
                content = memory_content(TRACE, body(number), HeaderFacts(received=1))
                to = [mailbox(place.live, number)]
                outcome = await writer.deliver_all(envelope(number), content, to)
                assert isinstance(outcome, Delivered), outcome
                note.write(b"%d\n" % number)
                await asyncio.sleep(random.random() * 0.004)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(sessions):
                    group.create_task(session())
        finally:
            await writer.close()


def find_all(place: Place, system: FileSystem) -> Found:
    """Look at all that the cuts have left."""
    noted = place.note.read_bytes()
    found = Found()
    for number, cut in enumerate(cuts_of(place)):
        acknowledged = {int(line) for line in noted[: cut.noted].split()}
        whole, short = found_after(place, system, cut)
        found.whole += len(whole)
        found.short += short
        if lost := acknowledged - whole:
            found.lost += len(lost)
            found.losses.append(f"cut {number}: {len(lost)} of {len(acknowledged)}")
    return found


def found_after(place: Place, system: FileSystem, cut: Cut) -> tuple[set[int], int]:
    """The numbers of the whole messages, and how many others there are."""
    whole, short = set[int](), 0
    with mounted_after(place, system, cut) as root:
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
    directory: Path, system: FileSystem, disk: SlowDisk, sessions: int, cuts: int
) -> Found:
    """Deliver so many messages at a time, cut the power so often, look."""
    assert not missing(system), f"power cuts need {', '.join(missing(system))}"
    with place_in(directory / "power") as place:
        make_homes(place, system, directory / "tree")
        with power(place, system, cuts, seed=sessions), somebody_else(place.live, system):
            asyncio.run(deliver(place, disk, sessions))
        return find_all(place, system)


if os.geteuid() == 0:
    pytestmark = pytest.mark.soak

    each_system = pytest.mark.parametrize(
        "system", [EXT4, EXT4_WITHOUT_JOURNAL, XFS, BTRFS], ids=str
    )

    # Many share their writes: there are few cuts within as many messages.
    @pytest.mark.parametrize(
        ("system", "sessions", "cuts", "ways"),
        [
            (EXT4, SINGLE, CUTS, ["unnamed", "order"]),
            (EXT4, FEW, CUTS, ["unnamed", "order"]),
            (EXT4, MANY, CONTROLS, ["unnamed", "order"]),
            (EXT4_WITHOUT_JOURNAL, SINGLE, CUTS, ["unnamed", "names follow"]),
            (EXT4_WITHOUT_JOURNAL, FEW, CUTS, ["unnamed", "order_all"]),
            (EXT4_WITHOUT_JOURNAL, MANY, CONTROLS, ["unnamed", "order_all"]),
            (XFS, SINGLE, CUTS, ["unnamed"]),
            (XFS, FEW, CUTS, ["unnamed", "order_all"]),
            (XFS, MANY, CONTROLS, ["unnamed", "order_all"]),
            (BTRFS, SINGLE, CUTS, ["named"]),
            (BTRFS, FEW, CUTS, ["named", "order_all"]),
            (BTRFS, MANY, CONTROLS, ["named", "order_all"]),
        ],
        ids=str,
    )
    def test_power_cuts(
        tmp_path: Path, system: FileSystem, sessions: int, cuts: int, ways: list[str]
    ) -> None:
        disk = SlowDisk()
        found = cut_while_delivering(tmp_path, system, disk, sessions, cuts)
        assert disk.ways.issuperset(ways)
        assert found.whole > 0
        assert found.short == 0
        assert found.lost == 0, found.losses

    @each_system
    def test_names_before_octets_would_be_noticed(tmp_path: Path, system: FileSystem) -> None:
        assert cut_while_delivering(tmp_path, system, HastyDisk(), FEW, CONTROLS).short > 0

    @each_system
    def test_answers_before_the_sync_would_be_noticed(tmp_path: Path, system: FileSystem) -> None:
        assert cut_while_delivering(tmp_path, system, ForgetfulDisk(), FEW, CONTROLS).lost > 0

    @pytest.mark.parametrize("sessions", [SINGLE, MANY])
    def test_answers_before_any_sync_would_be_noticed(tmp_path: Path, sessions: int) -> None:
        assert cut_while_delivering(tmp_path, EXT4, ForgetfulDisk(), sessions, CONTROLS).lost > 0

    def test_names_that_do_not_follow_would_be_noticed(tmp_path: Path) -> None:
        disk, system = NamelessDisk(), EXT4_WITHOUT_JOURNAL
        assert cut_while_delivering(tmp_path, system, disk, SINGLE, CONTROLS).lost > 0
