"""Whatever the moment of a crash: an mbox keeps what it had, and a retry leaves one whole copy."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from restante.config.tree import Programs
from restante.envelope import Content, memory_content
from restante.mda import MboxDelivery
from restante.mda.acts import Actor
from restante.mda.answers import Policy
from restante.mda.durable import Disk
from restante.mda.mbox_lock import STALE_AFTER
from restante.mda.mboxrd import Letter
from restante.status import Delivered
from tests.support.deliveries import GROUP, HOST, OWNER, TRACE, envelope
from tests.support.faulty_disk import FaultyDisk, PowerCut
from tests.support.owner import ChildDied, as_owner, owner, owners_home, owners_rights
from tests.support.quiet_disk import QuietDisk

OTHERS = b"From x@y Tue Nov 14 22:13:20 2023\nSubject: other\n\nmail\n\n"
SMALL = memory_content(TRACE, b"Subject: small\n\nSmall.\n")
LARGE = memory_content(TRACE, b"Subject: large\n\n" + (b"From " + b"x" * 120 + b"\n") * 5_000)
"""It takes several writes."""
KILLED = f"ended with {-signal.SIGKILL}"


@dataclass
class DyingDisk(FaultyDisk):
    """Where the power would fail, the process is killed instead."""

    def _step(self, operation: str, name: str = "") -> None:
        if 0 <= self.cut_at <= self.counts.total():
            os.kill(os.getpid(), signal.SIGKILL)
        super()._step(operation, name)


@pytest.fixture
def home() -> Iterator[Path]:
    with owners_home() as found:
        yield found


def written(content: Content) -> bytes:
    return b"".join(Letter(envelope(), content, ("iain@example.com",)).pieces())


def append(
    home: Path, content: Content, disk: Disk, *, again: bool = False, number: int = 0
) -> bool:
    """Whether the message is acknowledged."""
    mbox = MboxDelivery(str(home / "Mailbox"), owner(home), ("iain@example.com",))
    never = os.eventfd(0)
    try:
        acting = Actor(Policy(HOST, 100, 1), Programs(), False, disk, never)
        return isinstance(
            acting.append(envelope(number), content, mbox, again=again, asked_at=time.monotonic()),
            Delivered,
        )
    finally:
        os.close(never)


def begin(home: Path, before: bytes | None) -> bytes:
    """A mailbox as it was before; None: there is none."""
    for path in home.iterdir():
        path.unlink()
    if before is not None:
        (home / "Mailbox").write_bytes(before)
        os.chown(home / "Mailbox", OWNER, GROUP)
    return before or b""


def forget_locks(home: Path) -> None:
    """Let time pass for a lock that bears no mark yet, or lost it with the power."""
    for lock in home.glob("*.lock"):
        os.utime(lock, (0, STALE_AFTER))


def check_after_crash(home: Path, before: bytes, content: Content, *, acknowledged: bool) -> None:
    text = (home / "Mailbox").read_bytes() if (home / "Mailbox").exists() else b""
    assert text.startswith(before)
    assert written(content).startswith(text.removeprefix(before))
    if acknowledged:
        assert text == before + written(content)


def check_retry(home: Path, before: bytes, content: Content) -> None:
    with owners_rights(home):
        assert append(home, content, QuietDisk(), again=True)
    assert (home / "Mailbox").read_bytes() == before + written(content)
    assert os.listdir(home) == ["Mailbox"]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("before", [None, b"", OTHERS], ids=["missing", "empty", "used"])
def test_killed_at_every_step(home: Path, before: bytes | None, content: Content) -> None:
    step = 0
    acknowledged = False
    while not acknowledged:
        mail = begin(home, before)
        disk = DyingDisk(cut_at=step)
        try:
            acknowledged = as_owner(lambda disk=disk: append(home, content, disk))  # type: ignore[misc]
        except ChildDied as died:
            if str(died) != KILLED:
                raise
        check_after_crash(home, mail, content, acknowledged=acknowledged)
        unmarked = any(not lock.read_bytes() for lock in home.glob("*.lock"))
        if unmarked:
            forget_locks(home)
        check_retry(home, mail, content)
        step += 1
    assert step > 5


@pytest.mark.parametrize("singly", [False, True], ids=["as a whole", "one by one"])
@pytest.mark.parametrize("entries_lost", [True, False])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("before", [None, b"", OTHERS], ids=["missing", "empty", "used"])
def test_power_cut_at_every_step(
    home: Path, before: bytes | None, content: Content, entries_lost: bool, singly: bool
) -> None:
    def append_and_lose_power(step: int) -> bool:
        acknowledged = False
        disk = FaultyDisk(cut_at=step, singly=singly)
        with contextlib.suppress(PowerCut):
            acknowledged = append(home, content, disk)
        disk.lose_power(entries_lost=entries_lost)
        return acknowledged

    step = 0
    acknowledged = False
    while not acknowledged:
        mail = begin(home, before)
        with owners_rights(home):
            acknowledged = append_and_lose_power(step)
        check_after_crash(home, mail, content, acknowledged=acknowledged)
        forget_locks(home)
        check_retry(home, mail, content)
        step += 1
    assert step > 5


def test_the_lossy_disk_loses_what_is_not_synced(home: Path) -> None:
    """The test above can fail: without fsync a power cut takes a part of the message away."""

    class Careless(FaultyDisk):
        def fsync(self, fd: int) -> None:
            pass

    def append_and_lose_power() -> bool:
        disk = Careless()
        acknowledged = append(home, SMALL, disk)
        disk.lose_power(entries_lost=False)
        return acknowledged

    begin(home, OTHERS)
    with owners_rights(home):
        assert append_and_lose_power()
    text = (home / "Mailbox").read_bytes()
    assert len(OTHERS) < len(text) < len(OTHERS + written(SMALL))


WRITERS = 3


def numbered(number: int) -> Content:
    """A message of its own, in its trace field as in a server."""
    trace = b"Received: from localhost\n\tby mx.example.com id %d\n" % number
    return memory_content(trace, b"Subject: %d\n\n" % number + b"From x\n" * (number % 7 * 9000))


def write_for_ever(home: Path, first: int, acknowledged: int) -> None:
    """Append message after message, and say which are acknowledged."""
    for number in itertools.count(first, WRITERS):
        if append(home, numbered(number), QuietDisk(), number=number):
            os.write(acknowledged, b"%d\n" % number)


def kill_after(home: Path, count: int) -> set[int]:
    """Which messages were acknowledged by several processes, killed after so many of them."""
    readable, writable = os.pipe()
    children = []
    for first in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            try:
                write_for_ever(home, first, writable)
            finally:
                os._exit(1)
        children.append(pid)
    os.close(writable)
    with open(readable, "rb") as answers:
        lines = [answers.readline() for _ in range(count)]
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        lines += answers.readlines()
    return {int(line) for line in lines}


@pytest.mark.parametrize("count", [1, 12, 25])
def test_killed_while_several_write(home: Path, count: int) -> None:
    acknowledged = as_owner(lambda: kill_after(home, count))
    before = (home / "Mailbox").read_bytes()
    for lock in home.glob("*.lock"):
        if not lock.read_bytes():
            forget_locks(home)
    begun = range(max(acknowledged) + 2 * WRITERS)

    with owners_rights(home):
        for number in begun:
            assert append(home, numbered(number), QuietDisk(), again=True, number=number)
    text = (home / "Mailbox").read_bytes()
    for number in begun:
        letter = Letter(envelope(number), numbered(number), ("iain@example.com",))
        whole = b"".join(letter.pieces())
        assert text.count(whole) == 1
        assert number not in acknowledged or whole in before
