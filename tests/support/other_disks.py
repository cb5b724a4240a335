"""File systems of other kinds than the tests' own, each in a file. For root, with loop devices."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.mda.durable import LocalDisk
from tests.support.power import mounted

SIZES = {"btrfs": 160 << 20, "xfs": 320 << 20}
"""Octets: hardly more than what their mkfs asks for."""
PAGE = 4096
CHUNKS = (1 << 20, PAGE, 1)
"""Octets written at a time to fill a disk."""
_GET_FLAGS, _NO_COPY_ON_WRITE = 0x80086601, 0x0080_0000
"""Of linux/fs.h."""


@contextlib.contextmanager
def other_disk(directory: Path, kind: str) -> Iterator[Path]:
    """A new file system that is mounted at ``directory``."""
    make = shutil.which(f"mkfs.{kind}")
    if os.geteuid() != 0 or not make:
        pytest.skip(f"only root mounts file systems, where there is mkfs.{kind}")
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        pytest.skip(f"this kernel has no {kind}")
    image = directory.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(SIZES[kind])
    _run(make, "-q", image)
    directory.mkdir()
    try:
        with mounted("-o", "loop", image, directory):
            directory.chmod(0o711)
            yield directory
    finally:
        image.unlink()


def subvolume(path: Path, owner: int = 0) -> Path:
    """A new one of a btrfs."""
    _run("btrfs", "-q", "subvolume", "create", path)
    os.chown(path, owner, owner)
    return path


def snapshot(path: Path, name: str) -> Path:
    """A subvolume as it is now, beside it, which nobody can write to."""
    _run("btrfs", "-q", "subvolume", "snapshot", "-r", path, path.with_name(name))
    return path.with_name(name)


def limit(subvolume: Path, octets: int | None) -> None:
    """What a subvolume may take, from now on; None: as much as it wants."""
    number = _run("btrfs", "inspect-internal", "rootid", subvolume).strip()
    # By way of the subvolume itself, one that is full could not be given more.
    _run("btrfs", "qgroup", "limit", str(octets or "none"), f"0/{number}", subvolume.parent)
    # Until something is committed, the kernel goes by what it knew before.
    _run("btrfs", "filesystem", "sync", subvolume)


def count_for_limits(disk: Path) -> None:
    """Without that, nobody has any."""
    _run("btrfs", "quota", "enable", disk)
    _run("btrfs", "quota", "rescan", "-w", disk)


def fill(disk: Path, *, but: int = 0) -> Path:
    """Take all of its room, also on the disk itself, but for some pages; the file that has it."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in CHUNKS:
            with contextlib.suppress(OSError):
                while True:
                    file.write(os.urandom(size))
        os.fsync(file.fileno())
        file.truncate(max(file.tell() - but * PAGE, 0))
    write_out(disk)
    return filler


def write_out(disk: Path) -> None:
    """Have all of it on the disk; no other is waited for."""
    fd = os.open(disk, os.O_RDONLY)
    try:
        LocalDisk().syncfs(fd)
    finally:
        os.close(fd)


def keeps_its_place(path: Path) -> bool:
    """Whether a file of a btrfs is changed in place."""
    with path.open("rb") as file:
        flags = fcntl.ioctl(file, _GET_FLAGS, bytes(8))
    return bool(int.from_bytes(flags, sys.byteorder) & _NO_COPY_ON_WRITE)


def spares_what_keeps_its_place() -> bool:
    """Whether this kernel needs no room elsewhere when such a file is mapped into memory."""
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 16)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
