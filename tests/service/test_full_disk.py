"""A server that starts on a full disk: who fetches and deletes mail is served, and makes room."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.support.dropping import sendmail
from tests.support.instance import Instance, until
from tests.support.other_disks import (
    fill,
    keeps_its_place,
    other_disk,
    spares_what_keeps_its_place,
    write_out,
)
from tests.support.serving import (
    IAIN,
    SAMPLE,
    configure,
    deliver,
    new_server,
    reload,
    start,
    workers,
)
from tests.support.small_disk import SmallDisk, small_disk

NO_ROOM = "452 4.3.1 "
FIGURES = {"metrics": {"listen": ["127.0.0.1:0"]}}


@contextlib.contextmanager
def server_on_a_small_disk(directory: Path) -> Iterator[tuple[Instance, SmallDisk]]:
    """All of its instance lies there but the log; it does not run yet."""
    place = directory / "disk"
    with small_disk(place) as disk, new_server(place / "instance") as instance:
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 1, "its lock is made"
        instance.stop()
        assert sendmail(instance.directory, IAIN, stdin=b"dropped\n").returncode == 0
        instance.log_directory = directory
        yield instance, disk


def test_it_serves_what_needs_no_room_and_all_else_when_there_is_some(tmp_path: Path) -> None:
    with server_on_a_small_disk(tmp_path) as (instance, disk):
        configure(instance, FIGURES)
        disk.fill()
        start(instance)
        for large in (b"", b"large\r\n" * 30_000):  # in memory, and in a file
            assert deliver(instance.smtp_port, IAIN, SAMPLE + large).startswith(NO_ROOM)
        assert "is full; mail is refused" in instance.run("check", check=False).stdout
        assert "event=metrics_failed" in instance.log()
        delete_and_make_room(instance, disk)


def test_a_disk_that_has_room_for_no_more_files_is_full(tmp_path: Path) -> None:
    with server_on_a_small_disk(tmp_path) as (instance, disk):
        configure(instance, FIGURES)  # for which there is no directory yet
        disk.fill_inodes()
        start(instance)
        assert "event=metrics_failed" in instance.log()
        delete_and_make_room(instance, disk)


def delete_and_make_room(instance: Instance, disk: SmallDisk) -> None:
    """POP3 works, and all else from then on."""
    assert failures(instance)
    with contextlib.closing(instance.pop3(IAIN)) as session:
        session.dele(1)
        assert session.quit().startswith(b"+OK")
    assert instance.messages(IAIN) == []
    disk.make_room()
    until(lambda: len(instance.messages(IAIN)) == 1, "what was dropped is picked up")
    assert deliver(instance.smtp_port, IAIN).startswith("250 ")
    assert "event=queue_opened" in instance.log()
    assert instance.stop() == 0
    assert len(set(failures(instance))) == len(failures(instance)), "nothing is told twice"
    assert "event=unplanned" not in instance.log()


def test_whoever_serves_without_need_of_room_is_not_replaced(tmp_path: Path) -> None:
    """New workers would have no queues, and what waits in the old ones' would not be tried."""
    with server_on_a_small_disk(tmp_path) as (instance, disk):
        start(instance)
        (worker,) = workers(instance, 1)
        disk.fill()
        assert "is full" in reload(instance)
        assert workers(instance, 1) == {worker}
        os.kill(worker, signal.SIGKILL)
        until(lambda: workers(instance, 1) != {worker}, "it has a successor")
        assert instance.messages(IAIN)

        def is_refused() -> bool:
            disk.fill()  # again, as a queue that cannot be used leaves the room of its log
            return deliver(instance.smtp_port, IAIN).startswith(NO_ROOM)

        until(is_refused, "mail is refused")
        disk.make_room()
        assert "event=server_reloaded" in reload(instance)
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")


def test_who_counts_is_not_killed_where_no_room_is_left(tmp_path: Path) -> None:
    """The figures are mapped into memory, and btrfs would write what changes elsewhere."""
    with (
        other_disk(tmp_path / "btrfs", "btrfs") as disk,
        new_server(disk / "instance", FIGURES) as instance,
    ):
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 1
        figures = list((disk / "instance" / "run" / "metrics").iterdir())
        assert figures
        assert all(map(keeps_its_place, figures))
        if not spares_what_keeps_its_place():
            return
        (worker,) = workers(instance, 1)
        filler = fill(disk)
        for large in (b"", b"large\r\n" * 30_000):
            assert deliver(instance.smtp_port, IAIN, SAMPLE + large).startswith(NO_ROOM)
        with contextlib.closing(instance.pop3(IAIN)) as session:
            session.dele(1)
            assert session.quit().startswith(b"+OK")
        assert workers(instance, 1) == {worker}
        filler.unlink()
        write_out(disk)
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 1
        assert instance.stop() == 0


def failures(instance: Instance) -> list[str]:
    """Why queues could not be opened."""
    return re.findall(r"event=queue_failed (.*)", instance.log())
