"""A disk on which nothing is to survive a real power cut."""

from __future__ import annotations

import errno
import fcntl
import os

from restante.mda.durable import LocalDisk


class QuietDisk(LocalDisk):
    """The real disk, which waits for no sync: it refuses what the real one does, and that is all.

    A sync lets other threads go on meanwhile, and so does this.
    """

    def fsync(self, fd: int) -> None:
        _check(fd)

    def syncfs(self, fd: int) -> None:
        _check(fd)

    def order_all(self, fd: int) -> None:
        _check(fd)

    def begin_order(self, fd: int) -> None:
        _check(fd)

    def order(self, fd: int) -> None:
        _check(fd)


def _check(fd: int) -> None:
    """What a directory is only passed through by cannot be synced."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
