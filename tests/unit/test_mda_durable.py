"""The real disk, where it differs from a single system call."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.mda.durable import LocalDisk
from restante.mda.ext4 import Ext4


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP])
def test_copying_where_file_systems_cannot(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "source").write_bytes(b"0123456789")
    disk = LocalDisk()
    fd = disk.create("target", directory)
    disk.copy(str(tmp_path / "source"), fd, 9)
    disk.close(fd)
    assert (tmp_path / "target").read_bytes() == b"012345678"


def test_copying_from_a_descriptor(tmp_path: Path, directory: int) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    disk = LocalDisk()
    fd = disk.create("target", directory)
    with open(tmp_path / "source", "rb") as source:
        source.seek(5)
        disk.copy(source.fileno(), fd, 9)
        disk.copy(source.fileno(), fd, 2)
    disk.close(fd)
    assert (tmp_path / "target").read_bytes() == b"01234567801"


def test_a_short_write_goes_on(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "writev", lambda fd, buffers: os.write(fd, b"".join(buffers)[:3]))
    disk = LocalDisk()
    fd = disk.create("target", directory)
    disk.write(fd, [b"01", b"23", b"", b"45"])
    disk.close(fd)
    assert (tmp_path / "target").read_bytes() == b"012345"


@pytest.mark.parametrize("operation", ["syncfs", "order_all", "begin_order", "order"])
def test_syncs_report_their_errors(operation: str) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        getattr(LocalDisk(), operation)(-1)


def test_where_a_sync_of_the_whole_is_known_to_reach_the_disk(directory: int) -> None:
    disk = LocalDisk()
    elsewhere = os.open("/proc", os.O_RDONLY)
    try:
        assert [disk.syncs_all(fd) for fd in (directory, elsewhere, -1)] == [True, False, False]
    finally:
        os.close(elsewhere)


@pytest.mark.parametrize("operation", ["begin_order", "order"])
def test_files_are_ordered_while_they_are_written(
    tmp_path: Path, directory: int, operation: str
) -> None:
    disk = LocalDisk()
    fd = disk.create("target", directory)
    disk.write(fd, [b"0123"])
    getattr(disk, operation)(fd)
    disk.write(fd, [b"4567"])
    getattr(disk, operation)(fd)
    disk.close(fd)
    assert (tmp_path / "target").read_bytes() == b"01234567"


def test_ordering_waits_for_all_that_is_written_and_leaves_nothing_out(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without all three flags the kernel may pass over what it is writing already."""
    asked: list[tuple[int, ...]] = []

    class Library:
        def sync_file_range(self, *arguments: int) -> int:
            asked.append(arguments)
            return 0

    monkeypatch.setattr("restante.mda.durable._libc", Library())
    LocalDisk().order(directory)
    assert asked == [(directory, 0, 0, 1 | 2 | 4)]


@pytest.mark.parametrize("flushes_early", [True, False])
def test_syncfs_flushes_where_the_kernel_has_not(
    directory: int, monkeypatch: pytest.MonkeyPatch, flushes_early: bool
) -> None:
    synced: list[int] = []

    class Known(Ext4):
        def flushes_early(self, fd: int) -> bool:
            return flushes_early and fd == directory

    monkeypatch.setattr(os, "fsync", synced.append)
    disk = LocalDisk(Known())
    disk.order_all(directory)
    assert synced == []
    disk.syncfs(directory)
    assert synced == [directory] * flushes_early
