"""What is particular about btrfs: devices that are one file system, and files that move as they
are changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

_FS_INFO = 0x8400941F
"""BTRFS_IOC_FS_INFO of linux/btrfs.h; anybody may ask."""
_FS_INFO_SIZE = 1024
"""Octets of a ``struct btrfs_ioctl_fs_info_args``."""
_FSID = slice(16, 32)
"""Where the file system's own number is in it."""
_DEVICE_BITS = 64
"""Of a device's number: no file system's is taken for one."""
_SET_FLAGS = 0x40086602
"""FS_IOC_SETFLAGS of linux/fs.h."""
_NO_COPY_ON_WRITE = struct.pack("=l", 0x0080_0000)
"""FS_NOCOW_FL."""
_INDEX = "-shm"
"""What follows a database's name in that of the index of its write-ahead log."""


def is_whole(device: int) -> bool:
    """Whether all of a file system has this device: it lies on a disk, and takes its number."""
    return os.major(device) != 0


def file_system(fd: int) -> int:
    """The same number for all open files of one file system; their device if it is no btrfs.

    Each subvolume of a btrfs has a device of its own (stat(2)), and syncfs(2) of one writes all.
    """
    device = os.fstat(fd).st_dev
    return device if is_whole(device) else _number(fd) << _DEVICE_BITS or device


def prepare_index(database: str) -> None:
    """Have an SQLite database's write-ahead log an index that is changed in place.

    SQLite takes what is there when it opens the database. On other file systems, or if there is an
    index, nothing is done.
    """
    directory, name = os.path.split(database)
    with contextlib.suppress(OSError), _opened(directory or ".", os.O_DIRECTORY) as place:
        if _number(place):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            with _opened(name + _INDEX, flags, place) as index:
                change_in_place(index)


def change_in_place(fd: int) -> None:
    """Have an empty file keep its place on the disk; on other file systems it does anyway.

    For files that are mapped into memory. Where a change needs room elsewhere first and there is
    none, the process is killed (SIGBUS); Linux before 6.16 does so nevertheless.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _SET_FLAGS, _NO_COPY_ON_WRITE)


def _number(fd: int) -> int:
    """Of the btrfs on which an open file lies; 0 if it is none."""
    info = bytearray(_FS_INFO_SIZE)
    try:
        fcntl.ioctl(fd, _FS_INFO, info)
    except OSError:
        return 0
    return int.from_bytes(info[_FSID])


@contextlib.contextmanager
def _opened(name: str, flags: int, place: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        yield fd
    finally:
        os.close(fd)
