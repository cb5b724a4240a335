"""What is particular about btrfs: devices that are one file system."""

from __future__ import annotations

import fcntl
import os

_FS_INFO = 0x8400941F
"""BTRFS_IOC_FS_INFO of linux/btrfs.h; anybody may ask."""
_FS_INFO_SIZE = 1024
"""Octets of a ``struct btrfs_ioctl_fs_info_args``."""
_FSID = slice(16, 32)
"""Where the file system's own number is in it."""
_DEVICE_BITS = 64
"""Of a device's number: no file system's is taken for one."""


def is_whole(device: int) -> bool:
    """Whether all of a file system has this device: it lies on a disk, and takes its number."""
    return os.major(device) != 0


def file_system(fd: int) -> int:
    """The same number for all open files of one file system; their device if it is no btrfs.

    Each subvolume of a btrfs has a device of its own (stat(2)), and syncfs(2) of one writes all.
    """
    device = os.fstat(fd).st_dev
    return device if is_whole(device) else _number(fd) << _DEVICE_BITS or device


def _number(fd: int) -> int:
    """Of the btrfs on which an open file lies; 0 if it is none."""
    info = bytearray(_FS_INFO_SIZE)
    try:
        fcntl.ioctl(fd, _FS_INFO, info)
    except OSError:
        return 0
    return int.from_bytes(info[_FSID])
