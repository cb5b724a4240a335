"""What is synced, and when it counts; what follows where a sync fails."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from restante.mda import MailboxWriter
from restante.mda.batch import MANY
from restante.mda.durable import LocalDisk
from restante.mda.writer import BatchWriter
from restante.status import Delivered
from tests.support.deliveries import (
    CONTENT,
    GROUP,
    HOST,
    OWNER,
    delivery,
    envelope,
    expected,
    messages,
    settle,
)
from tests.support.faulty_disk import FaultyDisk
from tests.support.hanging import IS_POSSIBLE, far_file
from tests.support.instance import PATIENCE
from tests.support.mailbox_writers import (
    SYNCS,
    deliver_anew,
    fail_after,
    reply_of,
    writer_at_work,
)
from tests.support.owner import owners_rights


@pytest.mark.parametrize("number", [1, 4])
async def test_a_sync_that_fails_acknowledges_nothing(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, number: int
) -> None:
    """Whichever it is: they fail one after the other, until all have."""
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(number)]
    await writer.deliver_all(envelope(0), CONTENT, deliveries)
    settle(*deliveries)
    if number == 1:
        syncs = 2 if disk.in_order or disk.following else 3
    else:
        syncs = 2 if disk.named_only or not disk.in_order else 2 * number + 1
    for nth in range(syncs):
        left = fail_after(nth, disk)
        outcome = await writer.deliver_all(envelope(1), CONTENT, deliveries)
        assert left == []
        assert reply_of(outcome) == "451 4.3.0"
        assert [len(messages(each)) for each in deliveries] == [1] * number
    left = fail_after(syncs, disk)
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, deliveries), Delivered)
    assert left == [errno.EIO]


@pytest.mark.parametrize("operation", ["begin_order", "order"])
async def test_octets_that_cannot_be_written_fail_for_themselves(
    tmp_path: Path, operation: str
) -> None:
    deliveries = [delivery(tmp_path, name) for name in ("one", "two", "three")]
    disk = FaultyDisk(in_order=True)
    writer = BatchWriter(HOST, 1, 1, disk)
    await writer.deliver_all(envelope(0), CONTENT, deliveries)
    descriptors = len(os.listdir("/proc/self/fd"))
    disk.faults[operation] = lambda path: errno.EIO if "/two/" in path else 0
    outcomes = await writer.deliver_each(envelope(1), CONTENT, deliveries, again=False)
    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
    assert reply_of(outcomes[1]) == "451 4.3.0"
    assert [len(messages(each)) for each in deliveries] == [2, 1, 2]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    await writer.close()


async def test_a_new_maildir_counts_as_durable_once_the_last_sync_has_succeeded(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)
    disk.faults["syncfs"] = lambda _name: errno.EIO
    assert reply_of(await writer.deliver_all(envelope(0), CONTENT, [one])) == "451 4.3.0"
    disk.faults.clear()
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)
    disk.lose_power(entries_lost=True)
    assert list(messages(one).values()) == [expected(one)]


@pytest.mark.parametrize("number", [2, 9, MANY - 1])
async def test_what_is_ordered_file_by_file(tmp_path: Path, disk: FaultyDisk, number: int) -> None:
    """Files without names, in Maildirs that are durable, where that keeps them in order."""
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(number)]
    for delivered in (deliveries[1:], deliveries):
        await deliver_anew(disk, delivered)
        assert (disk.counts["order"], disk.counts["order_all"]) == (0, 1), "a Maildir is fresh"
        settle(*delivered)
    await deliver_anew(disk, deliveries)
    may_be = disk.in_order and not disk.named_only
    one_by_one = number if may_be else 0
    assert disk.counts["begin_order"] == disk.counts["order"] == one_by_one
    assert disk.counts["order_all"] == (0 if one_by_one else 1)
    one_for_all = (1, 0) if one_by_one else (0, 1)
    assert (disk.counts["fsync"], disk.counts["syncfs"]) == one_for_all


async def test_what_an_earlier_attempt_left_is_not_ordered_file_by_file(tmp_path: Path) -> None:
    disk = FaultyDisk(in_order=True)
    old, new = delivery(tmp_path, "old"), delivery(tmp_path, "new")
    await deliver_anew(disk, [old])
    await deliver_anew(disk, [new])
    settle(old, new)
    shutil.rmtree(f"{new.maildir}/new")
    os.mkdir(f"{new.maildir}/new")
    os.chown(f"{new.maildir}/new", OWNER, GROUP)
    settle(new)
    disk.counts.clear()
    writer = BatchWriter(HOST, 1, 1, disk)
    outcomes = await writer.deliver_each(envelope(), CONTENT, [old, new], again=True)
    await writer.close()
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert (disk.counts["order"], disk.counts["order_all"], disk.counts["syncfs"]) == (0, 1, 1)


async def test_where_an_earlier_attempt_left_nothing_the_look_syncs_nothing(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(MANY)]
    await deliver_anew(disk, deliveries)
    settle(*deliveries)
    writer = BatchWriter(HOST, 1, 1, disk)
    syncs = []
    for number, again in enumerate((False, True), 1):
        disk.counts.clear()
        await writer.deliver_each(envelope(number), CONTENT, deliveries, again=again)
        syncs.append((disk.counts["fsync"], disk.counts["syncfs"]))
    await writer.close()
    first, retry = syncs
    assert retry == first


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_a_sync_of_many_that_fails_acknowledges_nothing(
    tmp_path: Path,
    writer: MailboxWriter,
    disk: FaultyDisk,
    nth: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first and the third are begun early; whatever they report is reported once."""
    monkeypatch.setattr("restante.mda.batch.MANY", 4)
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(4)]
    fail_after(nth - 1, disk)
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, deliveries)) == "451 4.3.0"
    assert [len(messages(each)) for each in deliveries] == [0] * 4
    disk.faults.clear()
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    assert [len(messages(each)) for each in deliveries] == [1] * 4


async def test_a_file_that_cannot_be_synced_with_its_name_is_taken_back(tmp_path: Path) -> None:
    one = delivery(tmp_path)
    first = BatchWriter(HOST, 1, 1)
    await first.deliver_all(envelope(0), CONTENT, [one])
    await first.close()
    settle(one)
    before = messages(one)
    disk = FaultyDisk()
    disk.faults = {"fsync": lambda _: errno.EIO if disk.counts["rename"] else 0}
    writer = BatchWriter(HOST, 1, 1, disk)
    descriptors = len(os.listdir("/proc/self/fd"))
    assert reply_of(await writer.deliver_all(envelope(1), CONTENT, [one])) == "451 4.3.0"
    await writer.close()
    assert messages(one) == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_fifty_messages_share_their_syncs(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)
    all_wait = threading.Event()
    disk.faults["create"] = lambda _name: 0 if all_wait.wait() else errno.EINTR
    tasks = [
        asyncio.create_task(writer.deliver_all(envelope(i), CONTENT, [one])) for i in range(50)
    ]
    await asyncio.sleep(0)
    all_wait.set()
    assert all(isinstance(outcome, Delivered) for outcome in await asyncio.gather(*tasks))
    assert len(messages(one)) == 50
    # Two batches at the most: what the thread had taken before, and all that waited then.
    assert sum(disk.counts[sync] for sync in SYNCS) <= 4


@pytest.mark.parametrize("part", ["Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"])
async def test_a_part_that_is_missing_is_made_again(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, part: str
) -> None:
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(0), CONTENT, [one])
    await writer.close()
    shutil.rmtree(Path(one.maildir).parent / part)
    async with writer_at_work(disk, "here") as later:
        outcome = await later.deliver_all(envelope(1), CONTENT, [one])
    assert isinstance(outcome, Delivered)
    assert sorted(os.listdir(one.maildir)) == ["cur", "new", "tmp"]
    assert expected(one) in messages(one).values()


@pytest.mark.parametrize(
    ("disk", "fsyncs", "orders"),
    [
        (FaultyDisk(named_only=True), 2, 0),
        (FaultyDisk(), 3, 0),
        (FaultyDisk(following=True), 2, 0),
        (FaultyDisk(in_order=True), 1, 1),
    ],
    ids=["names in tmp", "files without names", "names follow", "in order"],
)
async def test_one_message_is_synced_for_itself(
    tmp_path: Path, disk: FaultyDisk, fsyncs: int, orders: int
) -> None:
    one = delivery(tmp_path)
    first = BatchWriter(HOST, 1, 1)
    await first.deliver_all(envelope(0), CONTENT, [one])
    await first.close()
    settle(one)
    second = BatchWriter(HOST, 1, 1, disk)
    await second.deliver_all(envelope(1), CONTENT, [one])
    await second.close()
    assert (disk.counts["fsync"], disk.counts["order"]) == (fsyncs, orders)
    assert disk.counts["syncfs"] == disk.counts["order_all"] == disk.counts["begin_order"] == 0


async def test_a_directory_that_may_not_be_read_is_no_refusal_of_links(tmp_path: Path) -> None:
    disk = FaultyDisk(in_order=True)
    with owners_rights(tmp_path):
        deliveries = [delivery(tmp_path, f"user{i}") for i in range(3)]
        await deliver_anew(disk, deliveries)
        settle(*deliveries)
        writer = BatchWriter(HOST, 1, 1, disk)
        for number, mode, syncs in ((1, 0o300, (0, 1)), (2, 0o700, (1, 0))):
            os.chmod(f"{deliveries[-1].maildir}/new", mode)
            disk.counts.clear()
            outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
            assert isinstance(outcome, Delivered)
            assert disk.counts["order"] == len(deliveries)
            assert (disk.counts["fsync"], disk.counts["syncfs"]) == syncs
        await writer.close()


async def test_a_single_message_is_refused_where_its_directory_may_not_be_read(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    """Nobody could sync it for itself; where the file's sync will do, nobody has to read it."""
    with owners_rights(tmp_path):
        one = delivery(tmp_path)
        await deliver_anew(disk, [one])
        settle(one)
        os.chmod(f"{one.maildir}/new", 0o300)
        writer = BatchWriter(HOST, 1, 1, disk)
        begun = len(os.listdir("/proc/self/fd"))
        outcome = await writer.deliver_all(envelope(1), CONTENT, [one])
        assert len(os.listdir("/proc/self/fd")) == begun
        await writer.close()
        os.chmod(f"{one.maildir}/new", 0o700)
    assert isinstance(outcome, Delivered) == disk.following
    assert len(messages(one)) == 1 + disk.following


class Patient(FaultyDisk):
    """A far disk, on which no sync ends before all four of a batch have begun."""

    def __init__(self) -> None:
        super().__init__(singly=True, named_only=True)
        self.together = threading.Barrier(4, timeout=PATIENCE)

    def fsync(self, fd: int) -> None:
        self.together.wait()
        super().fsync(fd)


async def test_what_is_synced_one_by_one_is_waited_for_together(tmp_path: Path) -> None:
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(4)]
    await deliver_anew(FaultyDisk(), deliveries)
    settle(*deliveries)
    disk = Patient()
    await deliver_anew(disk, deliveries)
    assert (disk.counts["fsync"], disk.counts["syncfs"]) == (2 * len(deliveries), 0)


async def test_where_no_threads_can_be_started_they_are_synced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(3)]
    disk = FaultyDisk(singly=True, named_only=True)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("restante.mda.together.ThreadPoolExecutor", refuse)
    await deliver_anew(disk, deliveries)
    disk.lose_power(entries_lost=True)
    assert [list(messages(each).values()) for each in deliveries] == [
        [expected(each)] for each in deliveries
    ]


async def test_an_error_told_before_threads_ran_out_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once: another fsync of the same file reports nothing."""
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(3)]
    disk = FaultyDisk(singly=True, named_only=True)
    errors = [errno.EIO]
    disk.faults["fsync"] = lambda _path: errors.pop() if errors else 0
    start, started = threading.Thread.start, []

    def start_one(thread: threading.Thread) -> None:
        if thread.name.startswith("sync"):
            started.append(thread.name)
            if len(started) > 1:
                raise RuntimeError("can't start new thread")
        start(thread)
        while errors and thread.name.startswith("sync"):
            time.sleep(0.001)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    writer = BatchWriter(HOST, 1, 1, disk)
    outcomes = await writer.deliver_each(envelope(), CONTENT, deliveries, again=False)
    await writer.close()
    assert len(started) > 1
    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [False, True, True]


@pytest.mark.parametrize("far", ["a new Maildir", "one that is there"])
async def test_one_that_cannot_be_synced_fails_for_itself(tmp_path: Path, far: str) -> None:
    deliveries = [delivery(tmp_path, name) for name in ("one", "two", "three")]
    disk = FaultyDisk(singly=True, named_only=True)
    if far == "one that is there":
        await deliver_anew(FaultyDisk(), deliveries)
        settle(*deliveries)
    writer = BatchWriter(HOST, 1, 1, disk)
    before = len(messages(deliveries[1]))
    descriptors = set()
    for number, part in ((7, "/two/Maildir/tmp/"), (8, "/two/Maildir/new")):
        disk.faults["fsync"] = lambda path, part=part: errno.EIO if part in path else 0  # type: ignore[misc]
        outcomes = await writer.deliver_each(envelope(number), CONTENT, deliveries, again=False)
        assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
        assert reply_of(outcomes[1]) == "451 4.3.0"
        assert len(messages(deliveries[1])) == before
        descriptors.add(len(os.listdir("/proc/self/fd")))
    await writer.close()
    assert len(descriptors) == 1


@pytest.mark.skipif(not IS_POSSIBLE, reason="only root mounts, and by FUSE")
def test_the_sync_of_a_whole_fuse_is_not_trusted(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    with far_file(tmp_path / "far", place), place.open("rb") as file:
        assert not LocalDisk().syncs_all(file.fileno())
