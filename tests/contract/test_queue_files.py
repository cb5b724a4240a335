"""What every queue store promises of its files: who has them, and what fails without harm."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TypeVar

import pytest

from restante.envelope import Content
from restante.queue import (
    Action,
    BackOff,
    QueuedMessage,
    QueueFailed,
    QueueFull,
    QueueTaken,
    QueueUnusable,
    QueueWithoutRoom,
    RecipientState,
    Submission,
    Target,
)
from restante.queue.bodies import IN_ROW, make_durable_directory
from restante.queue.reader import QueueReader
from restante.queue.retry import FIRST_BACK_OFF
from restante.queue.rows import Result
from restante.queue.schema import begin_life
from restante.queue.slots import lock_queue
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews
from restante.queue.writer import Bulk, GroupWriter, Item
from tests.support.contents import spooled_content
from tests.support.jumping_clock import START
from tests.support.queued import (
    LARGE,
    NEVER,
    NOT_NOW,
    body_files,
    content,
    delivered,
    due,
    envelope,
    from_nobody,
    record,
    reports,
    targets,
    the_only,
    waits,
)
from tests.support.small_disk import PAGE, small_disk

T = TypeVar("T")
NOW = START + 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[QueueStore]:
    opened = QueueStore.open(str(tmp_path), 0)
    yield opened
    await opened.close()


async def fail(store: QueueStore, message: QueuedMessage) -> None:
    """Its first recipient fails, and its sender is to be told; the others wait till later."""
    first, *rest = message.recipients
    failed = Result(first.id, RecipientState.FAILED, NEVER, notice=Action.FAILED)
    wait = [Result(each.id, RecipientState.WAITING, NOT_NOW, START + 50) for each in rest]
    await record(store, message, [failed, *wait])


async def test_one_process_has_the_queue(store: QueueStore, tmp_path: Path) -> None:
    with pytest.raises(QueueUnusable, match="another process has"):
        QueueStore.open(str(tmp_path), 0)
    other = QueueStore.open(str(tmp_path), 1)
    await other.close()


async def test_a_closed_queue_is_a_database_and_nothing_beside_it(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.add(envelope(), content(LARGE), targets())
    assert await due(store)  # by the connection that only reads
    await store.close()
    assert sorted(os.listdir(tmp_path / "0")) == ["bodies", "lock", "queue.db"]


async def test_an_empty_queue_can_be_removed(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.remove()
    assert os.listdir(tmp_path) == []
    again = QueueStore.open(str(tmp_path), 0)
    await again.add(envelope(), content(LARGE), targets())
    await again.remove()
    third = QueueStore.open(str(tmp_path), 0)
    assert (await the_only(third)).content.read() == content(LARGE).read(), "it was not empty"
    await third.close()


async def test_of_a_queue_that_holds_another_one_nothing_is_removed(tmp_path: Path) -> None:
    """It was copied or moved to a place that was not free."""
    other = QueueStore.open(str(tmp_path), 1)
    await other.add(envelope(), content(LARGE), targets())
    await other.close()
    store = QueueStore.open(str(tmp_path), 0)
    (tmp_path / "1").rename(tmp_path / "0" / "1")
    with pytest.raises(QueueUnusable, match="/0 is empty, and 1 in it is not its own"):
        await store.remove()
    assert sorted(os.listdir(tmp_path / "0")) == ["1", "bodies", "lock", "queue.db"]
    (tmp_path / "0" / "1").rename(tmp_path / "1")
    other = QueueStore.open(str(tmp_path), 1)
    assert (await the_only(other)).content.read() == content(LARGE).read()
    await other.close()
    await QueueStore.open(str(tmp_path), 0).remove()
    assert os.listdir(tmp_path) == ["1"]


def test_a_lock_on_a_queue_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes the queue between opening the lock's file and locking it."""
    original = fcntl.flock
    removals: list[str] = []

    def flock_too_late(file: IO[bytes], operation: int) -> None:
        if not removals:
            removals.append(file.name)
            shutil.rmtree(tmp_path / "0")
        original(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_too_late)
    store = QueueStore.open(str(tmp_path), 0)
    assert (tmp_path / "0" / "queue.db").exists()
    with pytest.raises(QueueUnusable):
        QueueStore.open(str(tmp_path), 0)
    asyncio.run(store.close())


def test_a_queue_that_is_removed_before_its_lock_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has it between making the directory and opening the lock's file."""
    made: list[str] = []

    def made_too_soon(path: str) -> None:
        made.append(path)
        if len(made) == 1:
            raise FileNotFoundError(path)  # removed before it could be synced
        make_durable_directory(path)
        if len(made) == 2:
            shutil.rmtree(path)

    monkeypatch.setattr("restante.queue.slots.make_durable_directory", made_too_soon)
    lock_queue(str(tmp_path / "0")).close()
    assert len(made) == 3


def test_a_queue_whose_name_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        lock_queue(str(tmp_path / "0"))


async def test_nobody_has_a_queue_of_which_anything_is_still_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it meanwhile has a new one, of which nothing is taken away."""
    store = QueueStore.open(str(tmp_path), 0)
    queue, unlink = tmp_path / "0", os.unlink
    removed: list[str] = []
    locks: list[IO[bytes]] = []

    def unlink_watched(path: str, **how: int) -> None:
        with pytest.raises(QueueTaken):
            lock_queue(str(queue))
        unlink(path, **how)
        removed.append(os.path.basename(path))
        if removed[-1] == "lock":
            assert os.listdir(queue) == []
            locks.append(lock_queue(str(queue)))

    monkeypatch.setattr(os, "unlink", unlink_watched)
    await store.remove()
    monkeypatch.undo()
    assert removed[-1] == "lock"
    assert "queue.db" in removed
    with pytest.raises(QueueTaken):
        QueueStore.open(str(tmp_path), 0)
    locks.pop().close()


async def test_a_queue_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "queue.db").write_bytes(b"this is no database, but a letter" * 100)
    with pytest.raises(QueueUnusable, match="not a database"):
        QueueStore.open(str(tmp_path), 0)
    (tmp_path / "1").write_text("a file")
    with pytest.raises(QueueUnusable, match="cannot be opened"):
        QueueStore.open(str(tmp_path), 1)


async def test_a_queue_that_cannot_be_opened_is_closed(tmp_path: Path) -> None:
    """Whoever tries again and again leaves nothing open."""
    await QueueStore.open(str(tmp_path), 0).close()
    (tmp_path / "0" / "wake").mkdir()
    with pytest.raises(QueueUnusable, match="cannot be opened") as failure:
        QueueStore.open(str(tmp_path), 0)
    assert not (tmp_path / "0" / "queue.db-wal").exists()
    assert failure.value.__traceback__, "which keeps what was half made"


async def test_a_queue_on_a_full_disk_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operator is to make room, not to look for a copy of it."""
    await QueueStore.open(str(tmp_path), 0).close()
    with monkeypatch.context() as patched:
        patched.setattr("restante.queue.store.begin_life", begin_life_without_room)
        with pytest.raises(QueueWithoutRoom, match="0 cannot be opened: database or disk is full"):
            QueueStore.open(str(tmp_path), 0)
    await QueueStore.open(str(tmp_path), 0).close()


@pytest.mark.parametrize("is_new", [True, False])
async def test_however_little_room_there_is_that_is_what_is_missing(
    tmp_path: Path, *, is_new: bool
) -> None:
    """SQLite calls a full disk by many names."""
    with small_disk(tmp_path / "disk") as disk:
        root = str(disk.directory / "queue")
        if not is_new:
            await QueueStore.open(root, 0).close()
        failures = []
        for pages in range(40):
            disk.fill(but=pages * PAGE)
            try:
                await QueueStore.open(root, 0).close()
            except QueueWithoutRoom as error:
                failures.append(str(error))
            if is_new:
                shutil.rmtree(root, ignore_errors=True)
        assert 0 < len(failures) < 40
        assert not any("rollback" in each for each in failures)


def begin_life_without_room(connection: sqlite3.Connection) -> int:
    """Ask for one page more than there is room for."""
    connection.execute("PRAGMA max_page_count = 1")
    connection.execute("CREATE TABLE more (number INTEGER)")
    return begin_life(connection)


async def test_a_torn_database_is_called_damaged(tmp_path: Path) -> None:
    await QueueStore.open(str(tmp_path), 0).close()
    database = tmp_path / "0" / "queue.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(QueueUnusable, match="0 is damaged: database disk image is malformed"):
        QueueStore.open(str(tmp_path), 0)


@pytest.mark.parametrize("left", [None, b""], ids=["gone", "empty"])
async def test_bodies_without_their_database_are_kept(tmp_path: Path, left: bytes | None) -> None:
    """As where somebody has moved it away because it was damaged, or a repair has emptied it."""
    store = QueueStore.open(str(tmp_path), 0)
    await store.add(envelope(), content(LARGE), targets())
    await store.close()
    database, bodies = tmp_path / "0" / "queue.db", tmp_path / "0" / "bodies"
    kept, names = database.read_bytes(), os.listdir(bodies)
    database.unlink()
    if left is not None:
        database.write_bytes(left)
    with pytest.raises(QueueUnusable, match="0 has bodies and no database: put its"):
        QueueStore.open(str(tmp_path), 0)
    assert os.listdir(bodies) == names != []
    database.write_bytes(kept)
    reopened = QueueStore.open(str(tmp_path), 0)
    assert (await the_only(reopened)).content.read() == content(LARGE).read()
    await reopened.close()


async def test_a_removal_that_is_cut_short_leaves_no_bodies_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a body is one that could not be removed with its message."""
    store = QueueStore.open(str(tmp_path), 0)
    (tmp_path / "0" / "bodies" / "left").touch()
    monkeypatch.setattr(os, "listdir", lambda _: ["queue.db", "lock", "bodies"])
    monkeypatch.setattr(shutil, "rmtree", refused)
    await store.remove()
    monkeypatch.undo()
    await QueueStore.open(str(tmp_path), 0).close()


def refused(path: str) -> None:
    raise PermissionError(path)


async def test_a_full_queue_refuses_mail_but_not_reports(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0, max_waiting=1)
    await store.add(envelope(), content(), targets("a@x", "b@x"))
    with pytest.raises(QueueFull):
        await store.add(envelope(), content(), targets())
    await fail(store, await the_only(store))
    (pending,) = await reports(store)
    report = Submission(from_nobody("s@x"), content(), targets("s@x"))
    assert not (await store.tell(pending, report, NOW)).finished
    assert store.waiting == 2
    await store.close()


async def test_a_watcher_hears_of_every_message_that_is_durable(store: QueueStore) -> None:
    heard: list[int] = []
    store.watch(lambda: heard.append(store.waiting))
    await store.add(envelope(), content(), targets())
    message = await the_only(store)
    await record(store, message, waits(message, START))
    assert heard == [1]
    await fail(store, await the_only(store))
    (pending,) = await reports(store)
    await store.tell(pending, Submission(from_nobody("s@x"), content(), targets("s@x")), NOW)
    assert heard == [1, 1]


async def test_a_caller_that_is_cancelled_leaves_nothing_half_done(
    store: QueueStore, tmp_path: Path
) -> None:
    adding = asyncio.ensure_future(store.add(envelope(), content(LARGE), targets()))
    await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await store.close()
    reopened = QueueStore.open(str(tmp_path), 0)
    assert (await the_only(reopened)).content.read() == content(LARGE).read()
    await reopened.close()


async def test_nothing_is_taken_after_close(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 0)
    await store.close()
    with pytest.raises(QueueFailed):
        await store.add(envelope(), content(), targets())


@contextmanager
def no_file_longer_than(octets: int) -> Iterator[None]:
    """A full disk as the kernel can play it: writes beyond the limit fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def spooled(tmp_path: Path, body: bytes) -> Content:
    (tmp_path / "spooled").write_bytes(body)
    given = content(body)
    return spooled_content(given.trace, str(tmp_path / "spooled"), given.body_lines, given.facts)


@pytest.mark.parametrize("linkable", [True, False])
async def test_no_room_for_a_body_is_temporary_and_leaves_nothing(
    store: QueueStore, tmp_path: Path, linkable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = LARGE * 40
    given = content(body)
    if linkable:  # a spool file on another file system must be copied
        given = spooled(tmp_path, body)
        monkeypatch.setattr(os, "link", _refuse_link)
    with no_file_longer_than(len(body) // 2), pytest.raises(QueueFailed, match="File too large"):
        await store.add(envelope(), given, targets())
    assert body_files(tmp_path) == set()
    assert store.waiting == 0
    await store.add(envelope(), given, targets())
    assert (await the_only(store)).content.read() == given.read()


def _refuse_link(source: str, path: str) -> None:
    raise OSError(18, "Invalid cross-device link", source, None, path)


@pytest.mark.parametrize("part", ["m1", ""], ids=["the body", "its name"])
async def test_a_body_that_cannot_be_made_durable_is_temporary_and_leaves_nothing(
    store: QueueStore, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = str(tmp_path / "0" / "bodies" / part)

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(QueueFailed, match="m1 cannot be made durable: Input/output error"):
        await store.add(envelope(queue_id="m1"), content(LARGE), targets())
    assert body_files(tmp_path) == set()
    assert store.waiting == 0


async def test_no_room_for_a_row_is_temporary_and_leaves_nothing(
    store: QueueStore, tmp_path: Path
) -> None:
    await store.add(envelope(), content(), targets())
    log = (tmp_path / "0" / "queue.db-wal").stat().st_size
    with no_file_longer_than(log):
        failures = await asyncio.gather(
            *(store.add(envelope(), content(LARGE[:IN_ROW]), targets()) for _ in range(3)),
            return_exceptions=True,
        )
        message = await the_only(store)
        with pytest.raises(QueueFailed):
            await record(store, message, delivered(message))
    assert {type(failure) for failure in failures} == {QueueFailed}
    assert store.waiting == 1
    assert await record(store, message, delivered(message)), "there is room again"
    await store.add(envelope(), content(), targets())
    assert len(await due(store)) == 1


class LateNews(GroupWriter):
    """It tells of a commit only when that is allowed: its thread may have had no turn so long."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.allowed = asyncio.Event()

    def submit_item(
        self, bulk: Bulk[Item, T], item: Item, then: Callable[[T], None]
    ) -> asyncio.Future[T]:
        async def later(done: asyncio.Future[T]) -> T:
            result = await done
            await self.allowed.wait()
            then(result)
            return result

        return asyncio.ensure_future(later(super().submit_item(bulk, item, lambda _: None)))


async def test_what_is_read_before_its_writer_tells_of_it_is_handed_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.queue.store.GroupWriter", LateNews)
    store = QueueStore.open(str(tmp_path), 0)
    store.watch(lambda: None)
    sent = envelope()
    adding = asyncio.create_task(store.add(sent, content(), targets()))
    while not QueueReader(str(tmp_path)).message(sent.queue_id):  # noqa: ASYNC110 - a thread commits
        await asyncio.sleep(0.001)
    handed_out = await due(store)
    assert isinstance(store._writer, LateNews)
    store._writer.allowed.set()
    await adding
    assert await due(store) == [], "it is in flight"
    assert await record(store, handed_out[0], delivered(handed_out[0]))
    await store.close()


async def test_what_is_due_is_handed_out_though_nothing_can_be_written(
    store: QueueStore, tmp_path: Path
) -> None:
    """The lane that was left alone has nobody any more: its row is to be removed, and cannot be."""
    await store.add(envelope(), content(), [Target("ann@dead", lane="dead")])
    message = await the_only(store)
    await store.record(message, delivered(message), START, LaneNews(START, BackOff("down")))
    await store.add(envelope(), content(), targets())
    later = START + FIRST_BACK_OFF
    with no_file_longer_than((tmp_path / "0" / "queue.db-wal").stat().st_size):
        (handed_out,) = await due(store, later)
    assert await due(store, later) == [], "it is in flight"
    assert await record(store, handed_out, delivered(handed_out))
