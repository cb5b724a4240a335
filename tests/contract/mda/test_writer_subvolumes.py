"""Each subvolume of a btrfs has a device of its own, and all of them are one file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.mda import Delivery
from restante.mda.writer import BatchWriter
from restante.status import Delivered
from tests.support.deliveries import CONTENT, HOST, OWNER, delivery, envelope, messages, settle
from tests.support.faulty_disk import FaultyDisk
from tests.support.mailbox_writers import deliver_anew, reply_of
from tests.support.other_disks import count_for_limits, limit, other_disk, snapshot, subvolume
from tests.support.owner import owners_rights

NAMES = ("ann", "bob", "iain")


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[dict[str, Delivery]]:
    """Of three mailboxes, a subvolume each."""
    with other_disk(tmp_path / "btrfs", "btrfs") as disk:
        count_for_limits(disk)
        (disk / "example.com").mkdir()
        for name in NAMES:
            subvolume(disk / "example.com" / name, OWNER)
        yield {name: delivery(disk, name) for name in NAMES}


@pytest.mark.parametrize("rights", [contextlib.nullcontext, owners_rights], ids=["root", "owner"])
async def test_they_share_their_syncs(
    tmp_path: Path, homes: dict[str, Delivery], rights: type[contextlib.nullcontext[Path]]
) -> None:
    deliveries = list(homes.values())
    assert len({os.stat(Path(each.maildir).parent).st_dev for each in deliveries}) == len(NAMES)
    with rights(tmp_path):
        disk = FaultyDisk()
        for _ in range(2):
            await deliver_anew(disk, deliveries)
            assert (disk.counts["order_all"], disk.counts["syncfs"]) == (1, 1)
            assert disk.counts["fsync"] == 0
            settle(*deliveries)
        await deliver_anew(disk, deliveries[:1])
        assert (disk.counts["order_all"], disk.counts["syncfs"], disk.counts["fsync"]) == (0, 0, 2)


async def test_one_that_has_become_a_link_is_synced_where_it_is(
    tmp_path: Path, homes: dict[str, Delivery]
) -> None:
    """To another file system, between a batch's first step and the second."""
    elsewhere = tmp_path / "elsewhere" / "Maildir"
    first = FaultyDisk()
    moving = homes["iain"]
    with owners_rights(tmp_path):
        await deliver_anew(first, list(homes.values()))
        settle(*homes.values())
        await deliver_anew(first, [delivery(elsewhere.parents[1], "iain")])
        there = Path(delivery(elsewhere.parents[1], "iain").maildir)
        settle(delivery(elsewhere.parents[1], "iain"))

        def move(_name: str) -> int:
            if not os.path.islink(moving.maildir):
                os.rename(moving.maildir, f"{moving.maildir}.aside")
                os.symlink(there, moving.maildir)
            return 0

        disk = FaultyDisk(faults={"create": move})
        writer = BatchWriter(HOST, 1, 1, disk)
        outcome = await writer.deliver_all(envelope(1), CONTENT, list(homes.values()))
        await writer.close()
    assert isinstance(outcome, Delivered)
    assert len(list((there / "new").iterdir())) == 2
    assert disk.counts["syncfs"] == 1
    assert disk.counts["fsync"] == 3, "it is alone over there"


async def test_one_at_its_limit_fails_for_itself(homes: dict[str, Delivery]) -> None:
    deliveries = list(homes.values())
    disk = FaultyDisk()
    await deliver_anew(disk, deliveries)
    limit(Path(homes["bob"].maildir).parent, 4096)
    writer = BatchWriter(HOST, 1, 1, disk)
    for number in (1, 2):
        outcomes = await writer.deliver_each(envelope(number), CONTENT, deliveries, again=False)
        assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
        assert reply_of(outcomes[1]) == "452 4.2.2"
    limit(Path(homes["bob"].maildir).parent, None)
    outcomes = await writer.deliver_each(envelope(2), CONTENT, deliveries, again=True)
    await writer.close()
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert [len(messages(each)) for each in deliveries] == [3, 2, 3]
    assert [len(messages(each, "tmp")) for each in deliveries] == [0] * len(NAMES)


async def test_a_snapshot_that_is_read_only_fails_for_itself(
    tmp_path: Path, homes: dict[str, Delivery]
) -> None:
    disk = FaultyDisk()
    await deliver_anew(disk, list(homes.values()))
    snapshot(Path(homes["bob"].maildir).parent, "old")
    deliveries = [homes["ann"], delivery(tmp_path / "btrfs", "old"), homes["iain"]]
    writer = BatchWriter(HOST, 1, 1, disk)
    outcomes = await writer.deliver_each(envelope(1), CONTENT, deliveries, again=False)
    await writer.close()
    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
    assert reply_of(outcomes[1]) == "451 4.3.0"
