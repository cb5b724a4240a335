"""A maildrop on a subvolume that has more than it may, by its limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from restante.store.lock import LOCK, STALE_AFTER
from restante.store.maildir import MaildirStore
from tests.support.maildrop_box import Box
from tests.support.other_disks import count_for_limits, limit, other_disk, subvolume


@pytest.mark.parametrize("is_due", [False, True], ids=["lately", "long ago"])
async def test_who_has_more_than_the_limit_can_delete(tmp_path: Path, *, is_due: bool) -> None:
    """Whenever the last session was: the lock file cannot be given another time there."""
    with other_disk(tmp_path / "btrfs", "btrfs") as disk:
        count_for_limits(disk)
        box = Box(subvolume(disk / "iain"))
        box.put("new/1.a.h")
        box.put("new/2.b.h")
        await box.listing()
        abandoned = box.put("tmp/0.abandoned")
        limit(disk / "iain", 4096)
        with pytest.raises(OSError, match="quota"):
            os.utime(box.path / LOCK)
        if is_due:
            box.store = MaildirStore(clock=lambda: time.time() + STALE_AFTER + 1)
        drop = await box.open()
        assert len(drop.messages) == 2
        await drop.remove([0])
        drop.close()
        assert abandoned.exists() == (not is_due)
        assert [uid for uid, _ in await box.listing()] == ["2.b.h"]
