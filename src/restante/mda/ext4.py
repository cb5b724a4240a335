"""What is known of ext4: in which order it writes, and what its fsync(2) and syncfs(2) do.

Learned from the kernel's pages about each file system. What they do not say is unknown, and unknown
is never "yes".
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable

from restante.mda.remembered import Clock, Remembered

KIND = 0xEF53
"""Of ext4, and of ext2 and ext3 (statfs(2))."""
_PROC = "/proc"
_SYS = "/sys"
WRITES_ALL = (5, 2)
"""The version of Linux from which on sync_file_range(2) passes nothing over there is to write."""
SYNCS_PARENTS = (4, 4)
"""The version of Linux from which on, without a journal, fsync(2) of a file writes the directory
too in which it has got a name; older ones do so for small directories only, or not at all."""
_NUMBER = re.compile(r"\d+")
_NO_TASK = [b"<none>"]
_STATFS_SIZE = 256
"""Octets that hold a ``struct statfs``, whose first member is the type."""

_libc = ctypes.CDLL(None, use_errno=True)


class Ext4:
    """The file systems of that kind, by their devices; may be asked by several threads."""

    def __init__(
        self,
        proc: str = _PROC,
        sys: str = _SYS,
        release: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        """``release``: of Linux, as uname(2) has it; empty for the one that runs."""
        self._proc = proc
        self._sys = sys
        self._linux = linux(release)
        self._in_order = Remembered(clock)
        self._following = Remembered(clock)
        self._flushing_early = Remembered(clock)

    def keeps_order(self, fd: int) -> bool:
        """Whether octets that a device has taken are on the disk before any name given later.

        So it is where the journal lies on the device itself: its commit record is written after
        the device's cache was flushed (but for ``journal_async_commit``). With a journal
        elsewhere, it is that other device that is flushed; without one, nothing is in order.
        What link(2) changes of the file and of the directory is one transaction of the journal:
        fsync(2) of either brings both, and all that was done before.
        """
        return self._once(self._in_order, fd, self._has_ordering_journal)

    def names_follow(self, fd: int) -> bool:
        """Whether fsync(2) of a file writes the directory too that has got a name for it.

        That is done where there is no journal that would bring both.
        """
        return self._once(self._following, fd, self._syncs_parents)

    def flushes_early(self, fd: int) -> bool:
        """Whether syncfs(2) may leave octets in the device's volatile cache.

        It flushes the cache before it has waited for the blocks of directories and inodes, which
        are all in the journal where there is one.
        """
        return self._once(self._flushing_early, fd, self._may_have_no_journal)

    def lacks_journal(self, fd: int) -> bool:
        """Whether the kernel says so; names of a directory may be lost at a power cut there."""
        return kind(fd) == KIND and self._has_no_journal(self._name(os.fstat(fd).st_dev))

    def _once(self, known: Remembered, fd: int, find: Callable[[str], bool]) -> bool:
        device = os.fstat(fd).st_dev
        return known.about(device, lambda: kind(fd) == KIND and find(self._name(device)))

    def _name(self, device: int) -> str:
        """What the kernel calls a block device; empty if it does not say."""
        place = f"{self._sys}/dev/block/{os.major(device)}:{os.minor(device)}"
        try:
            return os.path.basename(os.readlink(place))
        except OSError:
            return ""

    def _has_ordering_journal(self, name: str) -> bool:
        if self._linux < WRITES_ALL:
            return False
        try:
            # A journal is called by its device, and by its inode if it lies in the file system.
            journals = [each.rpartition("-")[0] for each in os.listdir(f"{self._proc}/fs/jbd2")]
            options = _words(f"{self._proc}/fs/ext4/{name}/options")
        except OSError:
            return False
        return name in journals and b"journal_async_commit" not in options

    def _syncs_parents(self, name: str) -> bool:
        return self._linux >= SYNCS_PARENTS and self._has_no_journal(name)

    def _has_no_journal(self, name: str) -> bool:
        return self._journal_task(name) == _NO_TASK

    def _may_have_no_journal(self, name: str) -> bool:
        return self._journal_task(name) in ([], _NO_TASK)

    def _journal_task(self, name: str) -> list[bytes]:
        """The number of the thread that commits, or ``<none>``; nothing if nobody says."""
        try:
            return _words(f"{self._sys}/fs/ext4/{name}/journal_task")
        except OSError:
            return []


def linux(release: str) -> tuple[int, ...]:
    """The version of Linux, two numbers of it: of a release; empty: of the one that runs."""
    return tuple(map(int, _NUMBER.findall(release or os.uname().release)[:2]))


def kind(fd: int) -> int:
    """The type of the file system that an open file lies on (statfs(2)); 0 if nobody says."""
    room = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(fd, room) != 0:
        return 0
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF


def _words(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read().split()
