"""A disk that is full when a test wants it so."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.power import mounted

SIZE = 8 << 20
"""Octets that it has room for."""
INODES = 1000
"""Files and directories."""
PAGE = os.sysconf("SC_PAGE_SIZE")
"""Octets that anything takes at least."""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own, and what fills it."""

    directory: Path

    def fill(self, *, but: int = 0) -> None:
        """Leave room for so many octets more."""
        with self._filler.open("wb") as file:
            while not self._take_all(file.fileno(), but):
                pass  # a server has taken some of it meanwhile

    def _take_all(self, fd: int, but: int) -> bool:
        system = os.statvfs(self.directory)
        try:
            os.posix_fallocate(fd, 0, system.f_bavail * system.f_frsize - but)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        return True

    def fill_inodes(self) -> None:
        """Leave room for no file, nor for a directory."""
        self._files.mkdir()
        with contextlib.suppress(OSError):
            for number in range(INODES):
                (self._files / str(number)).touch()

    def make_room(self) -> None:
        """Take out what has filled it."""
        self._filler.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)

    @property
    def _filler(self) -> Path:
        return self.directory / "filler"

    @property
    def _files(self) -> Path:
        return self.directory / "files"


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[SmallDisk]:
    """One that is mounted at ``directory``, which root may do."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    directory.mkdir()
    options = f"size={SIZE},nr_inodes={INODES},mode=711"
    with mounted("-t", "tmpfs", "-o", options, "small", directory):
        yield SmallDisk(directory)
