"""Maildirs whose mail is read for its sizes: many at once, after a move from Postfix or qmail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from restante.directory import Account
from restante.store import MaildropInUse, MaildropUnavailable, files, maildir, scan
from restante.store.maildir import MaildirDrop, MaildirStore
from restante.threads import ThreadPool
from tests.support.maildrop_box import Box, read

PLACES = 2
MESSAGES = scan.FEW + 1
PATIENCE = 20.0
"""Seconds that a test may take."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MaildirStore:
    monkeypatch.setattr(maildir, "READINGS", PLACES)
    return MaildirStore()


class SlowDisk:
    """Whoever reads messages for their sizes waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.readers: set[int] = set()
        """The threads that have waited, or do."""
        self.read = files.wire_sizes
        monkeypatch.setattr(files, "wire_sizes", self)

    def __call__(self, paths: Sequence[bytes]) -> Sequence[int | OSError]:
        self.readers.add(threading.get_ident())
        assert self.answers.wait(PATIENCE)
        return self.read(paths)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.answers.set()


def mailbox(root: Path, number: int, messages: int = MESSAGES) -> Account:
    """One with names that tell no sizes."""
    (root / str(number)).mkdir()
    box = Box(root / str(number))
    for each in range(messages):
        box.put(f"new/{1_700_000_000 + each}.a")
    return box.account


Openings = list[asyncio.Task[MaildirDrop]]


async def begin(store: MaildirStore, accounts: Sequence[Account]) -> Openings:
    opening = [asyncio.create_task(store.open(each)) for each in accounts]
    await asyncio.sleep(0.2)
    return opening


async def test_others_find_threads(store: MaildirStore, disk: SlowDisk, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPool(PLACES + 1))
    (tmp_path / "other").mkdir()
    box = Box(tmp_path / "other")
    content = b"x" * (2 * files.BLOCK)
    box.put(f"new/1.a,S={len(content)},W={len(content) + 2}", content)
    opening = await begin(store, [mailbox(tmp_path, number) for number in range(3 * PLACES)])
    async with asyncio.timeout(10):
        drop = await store.open(box.account)
        assert await read(drop, 0) == content
        await drop.remove([0])
    assert len(disk.readers) == PLACES
    assert not any(each.done() for each in opening)
    disk.answers.set()
    assert {len((await each).messages) for each in opening} == {MESSAGES}


async def test_few_messages_are_read_in_passing(
    store: MaildirStore, disk: SlowDisk, tmp_path: Path
) -> None:
    large = [mailbox(tmp_path, number) for number in range(PLACES)]
    opening = await begin(store, large)
    opening += await begin(store, [mailbox(tmp_path, PLACES, scan.FEW)])
    assert len(disk.readers) == PLACES + 1
    disk.answers.set()
    await asyncio.gather(*opening)


async def test_clients_that_go_leave_their_places_to_others_when_the_threads_are_done(
    store: MaildirStore, disk: SlowDisk, tmp_path: Path
) -> None:
    accounts = [mailbox(tmp_path, number) for number in range(2 * PLACES)]
    first, second = accounts[:PLACES], accounts[PLACES:]
    opening = [*await begin(store, first), *await begin(store, second)]
    for each in opening:
        each.cancel()
    await asyncio.gather(*opening, return_exceptions=True)
    for each in await begin(store, first):
        with pytest.raises(MaildropInUse):  # it is being read
            await each
    again = await begin(store, second)
    assert len(disk.readers) == PLACES
    disk.answers.set()
    assert {len((await each).messages) for each in again} == {MESSAGES}
    for each in await begin(store, first):
        assert len((await each).messages) == MESSAGES


async def test_what_no_thread_could_be_started_for_has_no_place(
    store: MaildirStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = mailbox(tmp_path, 0)
    attempts = 0

    class NoSecondThread(ThreadPool):
        def submit(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal attempts
            attempts += 1
            if attempts % 2 == 0:
                raise RuntimeError("can't start new thread")
            return super().submit(*args, **kwargs)

    loop = asyncio.get_running_loop()
    loop.set_default_executor(NoSecondThread(1))
    for _ in range(PLACES + 1):
        async with asyncio.timeout(10):
            with pytest.raises(MaildropUnavailable, match="thread"):
                await store.open(account)
