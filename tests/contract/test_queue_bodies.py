"""Large bodies that no row names: never accepted, done with, or mail that came after a copy of the
database was made which has been put back."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from restante.queue.bodies import LEFT, LEFT_FOR, Bodies
from restante.queue.store import QueueStore
from tests.support.events import capture_logs
from tests.support.queued import LARGE, body_files, content, due, envelope, new_id, targets


async def queued(root: Path) -> str:
    """The id of a large message that is in the queue from now on."""
    store = QueueStore.open(str(root), 0)
    message = envelope()
    await store.add(message, content(LARGE), targets())
    await store.close()
    return message.queue_id


async def opened(root: Path) -> None:
    await QueueStore.open(str(root), 0).close()


def left_in(root: Path) -> set[str]:
    return set(os.listdir(root / LEFT)) if (root / LEFT).exists() else set()


async def test_what_was_never_accepted_is_removed(tmp_path: Path) -> None:
    """A client whose mail kills the worker, time and again, fills no disk."""
    accepted = await queued(tmp_path)
    Bodies(str(tmp_path / "0" / "bodies")).keep(new_id(), content(LARGE))
    await opened(tmp_path)
    assert body_files(tmp_path) == {accepted}
    assert left_in(tmp_path) == set()


async def test_what_an_older_copy_does_not_name_is_set_aside(tmp_path: Path) -> None:
    known = await queued(tmp_path)
    database = tmp_path / "0" / "queue.db"
    copy = shutil.copy(database, tmp_path / "copy")
    later = await queued(tmp_path)
    right = shutil.copy(database, tmp_path / "right")
    shutil.copy(copy, database)
    with capture_logs() as events:
        await opened(tmp_path)
    assert body_files(tmp_path) == {known}
    assert left_in(tmp_path) == {later}
    (told,) = (event for event in events if event["event"] == "bodies_left")
    assert (told["bodies"], told["left"]) == (1, str(tmp_path / LEFT))

    shutil.copy(right, database)
    store = QueueStore.open(str(tmp_path), 0)
    assert body_files(tmp_path) == {known, later}
    assert left_in(tmp_path) == set()
    assert [each.content.read() for each in await due(store)] == 2 * [content(LARGE).read()]
    await store.close()


async def test_a_body_that_vanishes_meanwhile_keeps_no_queue_from_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator needs no server to remove its message."""
    await opened(tmp_path)
    bodies = tmp_path / "0" / "bodies"
    for name in ("one", "other"):
        (bodies / name).touch()
    scandir = os.scandir

    @contextmanager
    def slowly(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as found:
            entries = list(found)
        (bodies / "one").unlink(missing_ok=True)
        yield iter(entries)

    monkeypatch.setattr(os, "scandir", slowly)
    await opened(tmp_path)
    assert left_in(tmp_path) == {"other"}


async def test_a_body_that_cannot_be_moved_stays(tmp_path: Path) -> None:
    """Its folder is on another file system than where it would wait."""
    await opened(tmp_path)
    bodies = tmp_path / "0" / "bodies"
    bodies.rmdir()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        bodies.symlink_to(elsewhere)
        (bodies / "left").touch()
        with capture_logs() as events:
            await opened(tmp_path)
        assert (bodies / "left").exists()
    assert [each["event"] for each in events] == ["queue_opened"]


async def test_an_acceptance_that_a_crash_kept_from_being_noted_is_noted_by_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(tmp_path)
    database = tmp_path / "0" / "queue.db"
    copy = shutil.copy(database, tmp_path / "copy")
    monkeypatch.setattr(Bodies, "accept", lambda *_: None)
    accepted = await queued(tmp_path)
    monkeypatch.undo()
    await opened(tmp_path)
    shutil.copy(copy, database)
    await opened(tmp_path)
    assert left_in(tmp_path) == {accepted}


async def test_what_nobody_has_asked_for_is_removed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(tmp_path)
    (tmp_path / "0" / "bodies" / "finished").touch()
    await opened(tmp_path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEFT_FOR - 60)
    await opened(tmp_path)
    assert left_in(tmp_path) == {"finished"}
    monkeypatch.setattr(time, "time", lambda: now + LEFT_FOR + 60)
    await opened(tmp_path)
    assert left_in(tmp_path) == set()
