"""Mail on a file system that has become read-only, as a disk that fails makes it: it is shown."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.store import MaildropInUse, MaildropUnavailable, lock
from restante.store.lock import LOCK, STALE_AFTER
from restante.store.maildir import MaildirDrop
from tests.support.maildrop_box import Box, read
from tests.support.power import mounted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


class ReadOnly(Box):
    """A Maildir of which there is a view, too, that lets nothing be changed."""

    def __init__(self, root: Path, view: Path) -> None:
        super().__init__(root)
        self._there = replace(self.account, home=str(view))

    async def open_there(self) -> MaildirDrop:
        return await self.store.open(self._there)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ReadOnly]:
    root, view = tmp_path / "root", tmp_path / "view"
    view.mkdir()
    box = ReadOnly(root, view)
    box.put("new/1.a.h")
    with mounted("-o", "bind,ro", root, view):
        yield box


@pytest.mark.parametrize(
    "age", [0, 2 * STALE_AFTER, None], ids=["used lately", "long ago", "never"]
)
async def test_mail_is_read_and_none_deleted(box: ReadOnly, age: int | None) -> None:
    lock = box.path / LOCK
    if age is not None:
        lock.touch()
        then = lock.stat().st_mtime - age
        os.utime(lock, (then, then))
    drop = await box.open_there()
    assert await read(drop, 0) == b"A: 1\n\nHello\n"
    with pytest.raises(MaildropInUse):
        await box.open_there()
    with pytest.raises(MaildropUnavailable, match=r"\(0 are gone\).*Read-only file system"):
        await drop.remove([0])
    drop.close()
    assert [uid for uid, _ in await box.listing()] == ["1.a.h"]


async def test_a_session_that_came_before_keeps_the_maildrop(box: ReadOnly) -> None:
    drop = await box.open()
    with pytest.raises(MaildropInUse):
        await box.open_there()
    drop.close()
    other = await box.open_there()
    with pytest.raises(MaildropInUse):
        await box.open()  # nor does one that comes when it can be written to again
    other.close()


async def test_on_nfs_mail_is_read_and_none_deleted(
    box: ReadOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, what is open to be read alone cannot be locked for oneself (flock(2))."""
    flock = fcntl.flock

    def as_on_nfs(descriptor: int, how: int) -> None:
        reads_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if reads_only and how & fcntl.LOCK_EX:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    before = await box.open()
    with pytest.raises(MaildropInUse):
        await box.open_there()
    before.close()
    drop = await box.open_there()
    assert await read(drop, 0) == b"A: 1\n\nHello\n"
    with pytest.raises(MaildropUnavailable):
        await drop.remove([0])
    drop.close()
    assert [uid for uid, _ in await box.listing()] == ["1.a.h"]


async def test_where_other_machines_mount_the_disk_mail_is_read_and_none_deleted(
    box: ReadOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_serves_nfs", lambda _: True)
    for _ in ("without the file", "with it"):
        drop = await box.open_there()
        assert await read(drop, 0) == b"A: 1\n\nHello\n"
        with pytest.raises(MaildropUnavailable):
            await drop.remove([0])
        drop.close()
        assert [uid for uid, _ in await box.listing()] == ["1.a.h"]


async def test_who_locked_the_maildir_deletes_nothing_once_there_is_a_file(box: ReadOnly) -> None:
    drop = await box.open_there()
    other = await box.open()
    with pytest.raises(MaildropUnavailable, match="cannot keep the lock"):
        await drop.remove([0])
    drop.close()
    await other.remove([0])
    other.close()
    assert await box.listing() == []
