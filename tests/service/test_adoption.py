"""Queues that no worker of this server has made: copied from a dead machine."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from restante.address import Address
from restante.queue.store import QueueStore
from tests.support.instance import Instance, until
from tests.support.queued import LARGE, content, envelope, from_nobody, targets
from tests.support.serving import IAIN, new_server, start


def write_queue(directory: Path) -> None:
    """Make ``directory`` a queue with mail of iain's that must fail, and a large one for him."""

    async def write() -> None:
        store = QueueStore.open(str(directory.parent), int(directory.name))
        sender, to, at = Address.parse(IAIN), "nobody@example.com", time.time()
        failing = envelope(to, sender=sender, at=at, queue_id="m1")
        await store.add(failing, content(), targets(to))
        await store.add(from_nobody(IAIN, at=at), content(LARGE), targets(IAIN))
        await store.close()

    asyncio.run(write())


def test_a_queue_of_another_machine_is_adopted(tmp_path: Path) -> None:
    """Its directory is copied below any number; it is delivered, reported, and removed."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        copied = instance.directory / "queue" / "4711"
        write_queue(copied)
        for name in ("007", "notes"):
            (instance.directory / "queue" / name).mkdir()
        start(instance)
        until(lambda: len(instance.messages(IAIN)) == 2, "its message, and a report on the other")
        until(lambda: not copied.exists(), "it is empty, and removed")
        report = next(text for text in instance.messages(IAIN) if b"multipart/report" in text)
        assert b"Final-Log-Id: m1" in report
        assert b"nobody@example.com" in report
        assert instance.stop() == os.EX_OK
        assert {each.name for each in (instance.directory / "queue").iterdir()} >= {"007", "notes"}
        assert "event=unplanned" not in instance.log()


def test_a_left_queue_that_cannot_be_opened_is_told_of_once(tmp_path: Path) -> None:
    """Its mail waits until somebody helps; nobody would, of what nobody hears."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        left = instance.directory / "queue" / "4711"
        write_queue(left)
        with closing(sqlite3.connect(left / "queue.db")) as database:
            database.execute("PRAGMA user_version = 99")
        torn = instance.directory / "queue" / "4712"
        write_queue(torn)
        whole = (torn / "queue.db").read_bytes()
        (torn / "queue.db").write_bytes(whole[:4096] + bytes(len(whole) - 4096))
        held = instance.directory / "queue" / "4713"
        held.mkdir()
        mended = instance.directory / "queue" / "4714"
        mended.mkdir()
        (mended / "queue.db").write_bytes(b"this is no database, but a letter" * 100)
        with open(held / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            start(instance)
            until(lambda: len(set(failures(instance))) == 3, "all three are told of")
            (mended / "queue.db").unlink()
            until(lambda: not mended.exists(), "the next look finds it in order, and empty")
            instance.stop()
        # What is mended while it is looked at may fail in another way, and is told of again then.
        told = [name for name in failures(instance) if name != mended.name]
        assert told == ["4711", "4712"], instance.log()
        assert "newer version" in instance.log()


def test_a_queue_that_lies_in_another_one_is_told_of_once_and_left(tmp_path: Path) -> None:
    """Somebody copied a second one to where the first was still: the first is not removed."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        queues = instance.directory / "queue"
        outer, held = queues / "4711", queues / "4712"
        for each in (outer, held):
            each.mkdir()
        write_queue(outer / "0")
        before = (outer / "0" / "queue.db").read_bytes()
        with open(held / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            start(instance)
            until(lambda: failures(instance) == ["4711"], "it is told of")
        until(lambda: not held.exists(), "there is another look")
        assert instance.stop() == os.EX_OK
        assert failures(instance) == ["4711"]
        assert (outer / "0" / "queue.db").read_bytes() == before


def test_a_queue_whose_pick_up_cannot_be_settled_keeps_no_other_from_being_adopted(
    tmp_path: Path,
) -> None:
    """It is opened and told of once, and adopted when it can be."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        queues = instance.directory / "queue"
        claimed = instance.directory / "drop" / "claimed"
        ahead, good, behind, held = (queues / str(slot) for slot in range(4710, 4714))
        for each in (ahead, good, behind, held):
            each.mkdir()
        for each in (ahead, behind):
            (claimed / each.name).write_bytes(b"no directory")
        with open(held / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            start(instance)
            until(lambda: not good.exists(), "it is adopted, empty, and removed")
        until(lambda: not held.exists(), "there is another look")
        for each in (ahead, behind):
            (claimed / each.name).unlink()
        until(lambda: not (ahead.exists() or behind.exists()), "they can be adopted")
        assert instance.stop() == os.EX_OK
        assert failures(instance) == ["4710", "4712"]
        opened = re.findall(r"event=queue_opened path=\S+/(47\d+) ", instance.log())
        assert sorted(opened) == ["4710", "4711", "4712", "4713"]


def failures(instance: Instance) -> list[str]:
    """The names of the queues that were said to fail."""
    return sorted(re.findall(r"event=queue_failed path=\S+/(\d+) ", instance.log()))
