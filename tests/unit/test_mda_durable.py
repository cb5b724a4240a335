"""The real disk, where it differs from a single system call."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.mda.durable import LocalDisk


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


def test_syncfs_reports_its_errors() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        LocalDisk().syncfs(-1)
