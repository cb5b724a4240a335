"""What no thread could be started for is not done later, when it was given up."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import pytest

from restante.auth.hashing import Hashing, HashingBusy
from restante.config.tree import Auth
from restante.queue import QueueFailed
from restante.queue.store import QueueStore
from restante.spool import BLOCK, Spool, SpoolFailed
from restante.store import MaildropUnavailable
from restante.threads import NoThread, ThreadPool
from restante.usage import Counts, Limits, UsageUnusable
from restante.usage.ledger import UsageLedger
from tests.support.deliveries import GROUP, OWNER
from tests.support.events import capture_logs
from tests.support.maildrop_box import Box
from tests.support.no_threads import no_more_threads
from tests.support.owner import as_owner, owners_home
from tests.support.queued import (
    LARGE,
    body_files,
    content,
    delivered,
    due,
    envelope,
    record,
    targets,
)


def test_results_and_errors() -> None:
    with ThreadPool(2) as threads:
        assert threads.submit(pow, 2, exp=3).result() == 8
        assert isinstance(threads.submit(int, "x").exception(), ValueError)


def test_work_that_could_not_be_begun_is_never_done() -> None:
    def work() -> list[str]:
        done: list[str] = []
        with ThreadPool(2) as threads:
            with no_more_threads(), pytest.raises(RuntimeError):
                threads.submit(done.append, "given up")
            threads.submit(done.append, "wanted").result()
        return done

    assert as_owner(work) == ["wanted"]


def test_work_that_was_cancelled_is_never_done() -> None:
    done: list[str] = []
    go = threading.Event()
    with ThreadPool(1) as threads:
        first = threads.submit(go.wait)
        second = threads.submit(done.append, "cancelled")
        assert second.cancel()
        go.set()
        assert first.result()
    assert done == []
    with pytest.raises(CancelledError):
        second.result()


def test_a_maildrop_that_could_not_be_opened_is_locked_by_nobody() -> None:
    async def session(root: Path) -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPool(2))
        box = Box(root)
        box.put("new/1.a.h")
        with no_more_threads(), pytest.raises(MaildropUnavailable, match="thread"):
            await box.open()
        return len(await box.listing())

    with owners_home() as home:
        assert (os.stat(home).st_uid, os.stat(home).st_gid) == (OWNER, GROUP)
        assert as_owner(lambda: asyncio.run(session(home))) == 1


def test_a_spool_that_no_thread_writes_is_temporary() -> None:
    async def write(root: Path) -> int:
        spool = Spool(str(root), 0, 1000)
        with no_more_threads(), pytest.raises(SpoolFailed, match="thread"):
            await spool.write(b"x" * BLOCK)
        spool.close()
        return len(os.listdir(root))

    with owners_home() as home:
        assert as_owner(lambda: asyncio.run(write(home))) == 0


def test_a_message_and_deletions_that_no_thread_could_be_started_for() -> None:
    """The rest of a large message, above all: nothing but [SYS/TEMP] is to come of it."""

    async def session(root: Path) -> int:
        loop = asyncio.get_running_loop()
        box = Box(root)
        box.put("new/1.a,S=600000,W=600001", b"x" * 600_000)
        drop = await box.open()
        fetched = await drop.fetch(0, 0)
        for work in (fetched.next_block, partial(drop.remove, [0])):
            loop.set_default_executor(ThreadPool(2))  # of which no thread is there yet
            with no_more_threads(), pytest.raises(MaildropUnavailable, match="thread"):
                await work()
        fetched.release()
        drop.close()
        return len(await box.listing())

    with owners_home() as home:
        assert as_owner(lambda: asyncio.run(session(home))) == 1


def test_what_could_not_be_counted_is_an_error_and_counts_never() -> None:
    limits = Limits(Counts(messages_per_hour=2))

    async def session(root: Path) -> list[str]:
        ledger = UsageLedger(str(root))
        with capture_logs() as events:
            for _ in range(2):
                with no_more_threads(), pytest.raises(UsageUnusable, match="thread"):
                    await ledger.take("ann", 1, limits, 0.0)
        taken = [await ledger.take("ann", 1, limits, 0.0) for _ in range(3)]
        await ledger.close()
        return [event["event"] for event in events] + taken

    with owners_home() as home:
        done = as_owner(lambda: asyncio.run(session(home)))
    assert done == ["usage_failed", "", "", "messages_per_hour"]


def test_a_password_that_no_thread_could_hash_is_hashed_for_nobody_later() -> None:
    async def logins() -> list[str]:
        hashed: list[str] = []
        hashing = Hashing(Auth(hashing_threads=1, hashing_queue=0), lambda *_: True, None)
        for _ in range(3):
            with no_more_threads(), pytest.raises(HashingBusy, match="thread"):
                await hashing.run("192.0.2.1", lambda: hashed.append("given up"))
        await hashing.run("192.0.2.1", lambda: hashed.append("wanted"))
        await hashing.close()
        return hashed

    assert as_owner(lambda: asyncio.run(logins())) == ["wanted"]


def test_a_large_message_that_no_thread_could_keep_is_refused_for_now() -> None:
    async def queue(root: Path) -> int:
        store = QueueStore.open(str(root), 0)
        with no_more_threads():
            with pytest.raises(QueueFailed, match="thread"):
                await store.add(envelope(), content(LARGE), targets())
            with pytest.raises(QueueFailed, match="thread"):
                await due(store)
        await store.add(envelope(), content(LARGE), targets())
        left = len(await due(store))
        await store.close()
        return left

    with owners_home() as home:
        assert as_owner(lambda: asyncio.run(queue(home))) == 1


def test_a_large_message_is_delivered_though_no_thread_removes_its_body() -> None:
    """What is recorded is recorded; the body's file goes at the next start."""

    async def queue(root: Path) -> list[int]:
        store = QueueStore.open(str(root), 0)
        await store.add(envelope(), content(LARGE), targets())
        await store.close()
        store = QueueStore.open(str(root), 0)  # with no thread for files yet
        (message,) = await due(store)
        with no_more_threads():
            assert await record(store, message, delivered(message))
        files = [store.waiting, len(body_files(root))]
        await store.close()
        await QueueStore.open(str(root), 0).close()
        return [*files, len(body_files(root))]

    with owners_home() as home:
        assert as_owner(lambda: asyncio.run(queue(home))) == [0, 1, 0]


def test_a_queue_is_closed_and_removed_without_a_thread_and_opened_only_with_one() -> None:
    async def queues(root: Path) -> tuple[list[str], int]:
        first, second = (QueueStore.open(str(root), slot) for slot in (0, 1))
        with no_more_threads():
            await first.close()
            await second.remove()
            with pytest.raises(NoThread):
                QueueStore.open(str(root), 0)
        await QueueStore.open(str(root), 0).close()  # nothing of the first attempt has it
        return os.listdir(root), len(os.listdir("/proc/self/fd"))

    async def descriptors(root: Path) -> int:
        return (await queues(root))[1] - (await queues(root))[1]

    with owners_home() as home:
        assert as_owner(lambda: asyncio.run(queues(home)))[0] == ["0"]
        assert as_owner(lambda: asyncio.run(descriptors(home))) == 0


def test_logins_are_ended_without_a_thread() -> None:
    async def logins() -> bool:
        hashing = Hashing(Auth(), lambda *_: True, None)
        with no_more_threads():
            await hashing.close()
        return True

    assert as_owner(lambda: asyncio.run(logins()))
