"""Whose a maildrop is, what crashes leave in it, and what its deletions come to."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import os
import struct
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from restante.store import MaildropInUse, MaildropUnavailable, files, lock, scan
from restante.store.lock import LOCK, STALE_AFTER
from restante.store.maildir import MaildirDrop, MaildirStore
from tests.support.few_inodes import few_inodes, use_up
from tests.support.hanging import IS_POSSIBLE, far_file
from tests.support.instance import PATIENCE
from tests.support.maildrop_box import Box

HOUR = 3600
_TO_WRITE, _NO_LOCK = (
    struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK)
)
"""struct flock (fcntl(2)) for all of a file."""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


async def test_what_crashed_deliveries_left_is_cleaned_after_36_hours(box: Box) -> None:
    left = box.put("tmp/1.crashed")
    (box.path / "tmp" / "directory").mkdir()
    await box.listing()
    assert left.exists()
    box.store = MaildirStore(clock=lambda: time.time() + STALE_AFTER - HOUR)
    await box.listing()
    assert left.exists()
    box.store = MaildirStore(clock=lambda: time.time() + STALE_AFTER + HOUR)
    await box.listing()
    assert os.listdir(box.path / "tmp") == ["directory"]


def _hold(path: str, ready: Connection) -> None:
    """Another process that has the lock until it is killed."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready.send(True)
        threading.Event().wait()


async def test_the_lock_holds_across_processes_and_ends_with_them(box: Box) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    holder = context.Process(target=_hold, args=(str(box.path / LOCK), there), daemon=True)
    holder.start()
    await asyncio.to_thread(here.recv)
    with pytest.raises(MaildropInUse):
        await box.open()
    holder.kill()
    await asyncio.to_thread(holder.join)
    holder.close()
    here.close()
    there.close()
    assert await box.listing() == []


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_session_of_a_machine_that_mounts_this_disk_by_nfs_has_the_maildrop(
    box: Box, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Its flock(2) is a lock of fcntl(2)'s kind here."""
    box.put("new/1.a.h,S=13,W=16")
    box.store = MaildirStore(clock=lambda: time.time() + HOUR)
    if is_known:
        assert len(await box.listing()) == 1
    monkeypatch.setattr(lock, "_serves_nfs", lambda _: True)
    client = os.open(box.path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.fcntl(client, fcntl.F_OFD_SETLK, _TO_WRITE)
    with pytest.raises(MaildropInUse):
        await box.open()
    os.close(client)
    drop = await box.open()
    client = os.open(box.path / LOCK, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(client, fcntl.F_OFD_SETLK, _TO_WRITE)
    await drop.remove([0])
    drop.close()
    fcntl.fcntl(client, fcntl.F_OFD_SETLK, _TO_WRITE)
    os.close(client)


async def test_a_session_from_before_others_could_mount_this_disk_deletes_nothing_of_theirs(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put("new/1.a.h")
    monkeypatch.setattr(lock, "_serves_nfs", lambda _: False)
    drop = await box.open()
    monkeypatch.setattr(lock, "_serves_nfs", lambda _: True)
    client = os.open(box.path / LOCK, os.O_RDWR)
    fcntl.fcntl(client, fcntl.F_OFD_SETLK, _TO_WRITE)
    with pytest.raises(MaildropUnavailable, match="cannot keep the lock"):
        await drop.remove([0])
    drop.close()
    os.close(client)
    assert [uid for uid, _ in await box.listing()] == ["1.a.h"]


async def test_a_session_that_has_lost_its_lock_deletes_nothing(box: Box) -> None:
    """As a file server takes it from a machine that was cut off from it for long."""
    box.put("new/1.a.h")
    drop = await box.open()
    _take_away(box.path / LOCK)
    other = await box.open()
    await _check_who_deletes(box, drop, other)


@pytest.mark.parametrize("is_moved", [False, True])
async def test_a_session_whose_lock_was_removed_deletes_nothing(box: Box, is_moved: bool) -> None:
    """The next session makes and locks a file of its own."""
    box.put("new/1.a.h")
    drop = await box.open()
    if is_moved:
        (box.path / LOCK).rename(box.path / "elsewhere")
    else:
        (box.path / LOCK).unlink()
    with pytest.raises(MaildropUnavailable, match="cannot keep the lock"):
        await drop.remove([0])
    await _check_who_deletes(box, drop, await box.open())


async def _check_who_deletes(box: Box, drop: MaildirDrop, other: MaildirDrop) -> None:
    """The only message: not who has lost the lock, but who has it."""
    with pytest.raises(MaildropUnavailable, match="cannot keep the lock"):
        await drop.remove([0])
    drop.close()
    assert len(os.listdir(box.path / "new")) == 1
    await other.remove([0])
    other.close()
    assert os.listdir(box.path / "new") == []


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_lock_that_is_removed_while_it_is_taken_is_none(
    box: Box, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    box.put("new/1.a.h,S=13,W=16")
    box.store = MaildirStore(clock=lambda: time.time() + HOUR)
    if is_known:
        assert len(await box.listing()) == 1
    original = fcntl.flock

    def removed_first(lock: int, operation: int) -> None:
        (box.path / LOCK).unlink(missing_ok=True)
        original(lock, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", removed_first)
        with pytest.raises(MaildropUnavailable, match="cannot read"):
            await box.open()
    assert len(await box.listing()) == 1


def _take_away(lock: Path) -> None:
    """Unlock a file that this process has locked, behind the back of whoever did."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/self/fd/{name}"), lock.stat()):
                fcntl.flock(int(name), fcntl.LOCK_UN)
                fcntl.fcntl(int(name), fcntl.F_OFD_SETLK, _NO_LOCK)  # where NFS is served here


async def test_a_failed_open_gives_the_lock_back(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scan, "listing", _fails)
        with pytest.raises(MaildropUnavailable, match=r"cannot read .*Maildir: "):
            await box.open()
    assert await box.listing() == []


def _fails(path: bytes, **options: bool) -> None:
    raise OSError(5, "Input/output error")


async def test_a_cancelled_open_gives_the_lock_back(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, started, released = threading.Event(), threading.Event(), asyncio.Event()
    original, release = scan.listing, MaildirDrop.close
    loop = asyncio.get_running_loop()

    def slow(path: bytes, **options: bool) -> object:
        started.set()
        go_on.wait()
        return original(path, **options)

    def noticed(drop: MaildirDrop) -> None:
        release(drop)
        loop.call_soon_threadsafe(released.set)

    with monkeypatch.context() as patched:
        patched.setattr(scan, "listing", slow)
        patched.setattr(MaildirDrop, "close", noticed)
        opening = asyncio.create_task(box.open())
        await asyncio.to_thread(started.wait)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()
        await released.wait()
    assert await box.listing() == []


def test_a_read_that_hangs_keeps_nobody_who_closes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file server that is away; closing is the event loop's."""
    started, go_on = threading.Event(), threading.Event()
    original = os.read

    def hangs(descriptor: int, wanted: int) -> bytes:
        started.set()
        assert go_on.wait(PATIENCE)
        return original(descriptor, wanted)

    before = len(os.listdir("/proc/self/fd"))
    reader = files.Reader(os.fsencode(box.put("new/1.a")))
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", hangs)
        reading = threading.Thread(target=reader.read)
        reading.start()
        assert started.wait(PATIENCE)
        closing = threading.Thread(target=reader.close)
        closing.start()
        closing.join(PATIENCE / 4)
        has_closed = not closing.is_alive()
        go_on.set()
        reading.join()
        closing.join()
    assert has_closed
    assert reader.read() == b""
    assert len(os.listdir("/proc/self/fd")) == before


async def test_deletions_are_made_durable_once_per_directory(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new/1.a", "new/2.b", "cur/3.c:2,S", "new/4.d"):
        box.put(name)
    synced: list[bytes] = []
    original = files.fsync_directory

    def counting(path: bytes) -> None:
        assert not (box.path / "new" / "1.a").exists()
        synced.append(os.path.basename(path))
        original(path)

    monkeypatch.setattr(files, "fsync_directory", counting)
    drop = await box.open()
    await drop.remove([0, 1])
    assert synced == [b"new"]
    await drop.remove([2, 3])
    assert synced == [b"new", b"cur", b"new"]
    drop.close()


async def test_what_cannot_be_deleted_is_said_and_the_rest_deleted(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new/1.a", "new/2.b", "new/3.c"):
        box.put(name)
    original = os.unlink

    def unlink(path: bytes) -> None:
        if path.endswith(b"2.b"):
            raise PermissionError(1, "Operation not permitted")
        original(path)

    drop = await box.open()
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(MaildropUnavailable, match="Operation not permitted"):
        await drop.remove([0, 1, 2])
    drop.close()
    assert os.listdir(box.path / "new") == ["2.b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_without_room_for_the_lock_messages_can_be_deleted(tmp_path: Path) -> None:
    """A mailbox that is full, and was never opened by POP3, is for its owner to make room in."""
    with few_inodes(tmp_path / "full") as root:
        box = Box(root)
        box.put("new/1.a.h")
        box.put("new/2.b.h")
        use_up(root)
        drop = await box.open()
        assert len(drop.messages) == 2
        with pytest.raises(MaildropInUse):
            await box.open()
        await drop.remove([0])
        drop.close()
        assert [uid for uid, _ in await box.listing()] == ["2.b.h"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_who_had_no_room_for_the_lock_deletes_nothing_once_there_is_one(
    tmp_path: Path,
) -> None:
    with few_inodes(tmp_path / "full") as root:
        box = Box(root)
        box.put("new/1.a.h")
        fillers = use_up(root)
        drop = await box.open()
        fillers[0].unlink()
        other = await box.open()
        assert (box.path / LOCK).exists()
        await _check_who_deletes(box, drop, other)


@pytest.mark.skipif(not IS_POSSIBLE, reason="only root mounts, and by FUSE")
async def test_a_maildrop_is_let_go_though_its_file_system_is_gone(tmp_path: Path) -> None:
    """close(2) of the lock says that it is not connected: it is closed all the same."""
    box = Box(tmp_path)
    box.put("new/1.a.h")
    (box.path / LOCK).touch()
    begun = len(os.listdir("/proc/self/fd"))
    with far_file(tmp_path / "far", box.path / LOCK) as end:
        drop = await box.open()
        end()
        drop.close()
        with pytest.raises(MaildropUnavailable, match="Transport endpoint is not connected"):
            await box.open()
    assert len(os.listdir("/proc/self/fd")) == begun
