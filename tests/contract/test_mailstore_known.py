"""A Maildir that is known is not read again, and nothing that has happened to it is missed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from restante.directory import Account, NoSystemFiles
from restante.helper import store as helper_store
from restante.helper.messages import Owner, read_opened, write_open
from restante.helper.pool import Helpers
from restante.helper.serving import Serving, Tools
from restante.helper.store import HelperStore
from restante.helper.wire import Kind, head
from restante.mda.writer import BatchWriter
from restante.store import Maildrop, MaildropInUse, MailStore, Messages, maildir
from restante.store.lock import LOCK, STALE_AFTER
from restante.store.maildir import MaildirDrop, MaildirStore
from restante.store.recollection import SETTLED, SHARES, Recollection
from restante.store.scan import NOTHING, Listing
from restante.store.unwaiting import Stamp, has_stamp, stamp_of
from tests.support.deliveries import HOST
from tests.support.hanging import IS_POSSIBLE, hanging
from tests.support.helpers import HereSupplier
from tests.support.instance import PATIENCE

TICK = 0.02
"""Seconds in which the clock of any local file system goes on."""
ASKING = """
import os, sys, threading
from restante.store.unwaiting import stamp_of
directory = os.open(sys.argv[1], os.O_PATH)
threading.Thread(target=stamp_of, args=(directory,), daemon=True).start()
print(input(), flush=True)
os._exit(0)
"""
"""A process of which one thread asks for a stamp, and another one repeats what it is told."""


def later() -> float:
    """A clock by which what was done just now was done some time ago."""
    return time.time() + 2 * SETTLED


class Box:
    """A Maildir with three messages, known to its store."""

    def __init__(self, root: Path) -> None:
        self.path = root / "Maildir"
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).mkdir(parents=True)
        for name in ("new/1.a,S=4,W=5", "new/2.b,S=4,W=5", "cur/3.c,S=4,W=5:2,S"):
            (self.path / name).write_bytes(b"abc\n")
        self.account = Account("iain", os.getuid(), os.getgid(), str(root))
        self.maildirs = MaildirStore(clock=later)
        self.store: MailStore = self.maildirs

    async def open(self, store: MailStore | None = None) -> Maildrop:
        return await (store or self.store).open(self.account)

    async def seen(self, store: MailStore | None = None) -> list[tuple[bytes, bytes]]:
        """UIDs and contents."""
        drop = await self.open(store)
        found = []
        for index, uid in enumerate(drop.messages.uids):
            found.append((uid, b"".join([block async for block in drop.read(index)])))
        drop.close()
        return found


@pytest.fixture(params=["in the worker", "by a helper"])
async def box(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Box]:
    known = Box(tmp_path)
    writer = BatchWriter(HOST, 1, 1)
    helpers = Helpers(HereSupplier(writer, known.maildirs), 60.0)
    if request.param == "by a helper":
        known.store = HelperStore(helpers)
    await known.seen()
    await asyncio.sleep(TICK)
    yield known
    await helpers.close()
    await writer.close()


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that a Maildir is read from now on."""
    found: list[None] = []
    original = maildir._open

    def counting(*args: object) -> MaildirDrop:
        found.append(None)
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(maildir, "_open", counting)
    return found


async def test_what_is_known_is_not_read_again(box: Box, readings: list[None]) -> None:
    assert [uid for uid, _ in await box.seen()] == [b"1.a,S=4,W=5", b"2.b,S=4,W=5", b"3.c,S=4,W=5"]
    assert readings == []


@pytest.mark.parametrize("box", ["by a helper"], indirect=True)
async def test_what_a_worker_knows_is_not_sent_again(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def counting(octets: bytes) -> tuple[bytes, Messages]:
        sent.append(octets)
        return read_opened(octets)

    monkeypatch.setattr(helper_store, "read_opened", counting)
    first = await box.seen()
    assert await box.seen() == first
    assert sent == []
    arrive(box.path)
    assert len(await box.seen()) == len(first) + 1
    assert len(sent) == 1


async def test_what_is_known_is_held_by_one_session(box: Box) -> None:
    drop = await box.open()
    with pytest.raises(MaildropInUse):
        await box.open()
    drop.close()
    (await box.open()).close()


async def test_a_worker_that_is_gone_before_it_is_answered(tmp_path: Path) -> None:
    """What it had is given back, and it is told of once that the connection has ended."""
    known = Box(tmp_path)
    await known.seen()
    writer = BatchWriter(HOST, 1, 1)
    ended: list[Serving] = []
    ours, its = socket.socketpair()
    tools = Tools(writer, known.maildirs, NoSystemFiles())
    serving = Serving(its, Owner(known.account.uid, known.account.gid), tools, ended.append)
    request = write_open(known.account, (await version_of(known)))
    ours.sendall(head(1, Kind.OPEN, [request]) + request)
    ours.shutdown(socket.SHUT_RD)
    while serving.is_open:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    assert ended == [serving]
    (await known.open()).close()
    ours.close()
    await writer.close()


async def version_of(box: Box) -> bytes:
    drop = await box.maildirs.open(box.account)
    drop.close()
    return drop.version


def arrive(path: Path) -> None:
    (path / "tmp" / "4.d").write_bytes(b"new\n")
    (path / "tmp" / "4.d").rename(path / "new" / "4.d")


def vanish(path: Path) -> None:
    (path / "new" / "1.a,S=4,W=5").unlink()


def mark(path: Path) -> None:
    (path / "cur" / "3.c,S=4,W=5:2,S").rename(path / "cur" / "3.c,S=4,W=5:2,RS")


def move(path: Path) -> None:
    (path / "new" / "2.b,S=4,W=5").rename(path / "cur" / "2.b,S=4,W=5:2,")


def replace(path: Path) -> None:
    (path / "cur").rename(path / "old")
    (path / "cur").mkdir()


def remove(path: Path) -> None:
    vanish(path)
    (path / "new" / "2.b,S=4,W=5").unlink()
    (path / "new").rmdir()


def set_back(path: Path) -> None:
    """As a copying program does that keeps times."""
    before = (path / "new").stat()
    arrive(path)
    os.utime(path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [arrive, vanish, mark, move, replace, remove, set_back])
async def test_a_change_is_seen_at_once(box: Box, change: Callable[[Path], None]) -> None:
    change(box.path)
    now = await box.seen(MaildirStore())
    assert await box.seen() == now


async def test_deletions_of_a_session_are_seen_by_the_next(box: Box) -> None:
    drop = await box.open()
    await drop.remove([0, 2])
    drop.close()
    assert [uid for uid, _ in await box.seen()] == [b"2.b,S=4,W=5"]


async def test_what_is_being_changed_is_not_trusted(tmp_path: Path, readings: list[None]) -> None:
    box = Box(tmp_path)
    store = MaildirStore()
    await box.seen(store)
    await box.seen(store)
    assert len(readings) == 2


async def test_a_maildir_without_a_lock_file_is_read(box: Box, readings: list[None]) -> None:
    (box.path / LOCK).unlink()
    assert len(await box.seen()) == 3
    assert len(readings) == 1


@pytest.mark.parametrize("looked", [-2 * STALE_AFTER, 100 * STALE_AFTER], ids=["long ago", "ahead"])
async def test_what_crashed_deliveries_left_is_cleaned_all_the_same(box: Box, looked: int) -> None:
    """Also where the last look was while the clock was ahead."""
    left = box.path / "tmp" / "5.e"
    left.write_bytes(b"half")
    moment = time.time() + looked
    os.utime(box.path / LOCK, (moment, moment))
    box.maildirs._clock = lambda: time.time() + 2 * STALE_AFTER
    await box.seen()
    assert not left.exists()


def listing(octets: int, changed: float = 0.0) -> Listing:
    stamp = Stamp(1, 1, int(changed * 1e9))
    return Listing(NOTHING.messages, NOTHING.places, {}, (stamp, stamp), octets)


@pytest.mark.parametrize("part", ["device", "inode", "changed"])
def test_a_directory_is_known_by_all_of_its_stamp(tmp_path: Path, part: str) -> None:
    """Two that were made within one tick of the clock differ in the inode alone."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    stamp = stamp_of(descriptor)
    os.close(descriptor)
    assert stamp is not None
    assert has_stamp(os.fsencode(tmp_path), stamp)
    another = dataclasses.replace(stamp, **{part: getattr(stamp, part) + 1})
    assert not has_stamp(os.fsencode(tmp_path), another)


@pytest.mark.skipif(not IS_POSSIBLE, reason="only root can mount a file system that hangs")
def test_other_threads_go_on_while_a_file_server_is_asked(tmp_path: Path) -> None:
    with hanging(tmp_path / "far") as far:
        asking = [sys.executable, "-c", ASKING, str(far.place)]
        pipe = subprocess.PIPE
        with subprocess.Popen(asking, stdin=pipe, stdout=pipe, bufsize=0) as process:
            try:
                far.wait_until_asked()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(b"hello\n")
                assert select.select([process.stdout], [], [], PATIENCE)[0], "all threads wait"
            finally:
                far.end()
                process.kill()


def test_what_was_not_asked_for_the_longest_is_forgotten_first() -> None:
    memory = Recollection(max_octets=100)
    for name in (b"a", b"b", b"c", b"d"):
        memory.keep(name, listing(25), 10.0)
    assert memory.of(b"a") is not None
    memory.keep(b"e", listing(25), 10.0)
    assert [name for name in (b"a", b"b", b"c", b"d", b"e") if memory.of(name) is None] == [b"b"]


def test_one_that_would_drive_out_the_others_is_not_kept() -> None:
    memory = Recollection(max_octets=100)
    memory.keep(b"a", listing(25), 10.0)
    memory.keep(b"b", listing(100 // SHARES + 1), 10.0)
    assert memory.of(b"a") is not None
    assert memory.of(b"b") is None


def test_a_listing_takes_the_place_of_its_predecessor() -> None:
    memory = Recollection(max_octets=100)
    memory.keep(b"a", listing(25), 10.0)
    for _ in range(5):
        memory.keep(b"b", listing(25), 10.0)
    assert memory.of(b"a") is not None
    memory.keep(b"b", listing(25, changed=9.0), 10.0)
    assert memory.of(b"b") is None


def test_a_listing_without_stamps_is_not_kept() -> None:
    memory = Recollection()
    memory.keep(b"a", NOTHING, 10.0)
    assert memory.of(b"a") is None
