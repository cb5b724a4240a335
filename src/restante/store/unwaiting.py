"""Questions to the file system that no disk and no server is needed to answer.

The event loop may ask them itself: whatever the kernel has not in memory is refused.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from dataclasses import dataclass

_OPENAT2 = 437
"""Its number, on every architecture."""
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20
"""``openat2(2)``: fail with EAGAIN rather than read a directory or an inode (Linux 5.12)."""
_LOCAL = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
}
"""File systems that this kernel alone changes, and whose files it opens by itself."""


class _How(ctypes.Structure):
    """``struct open_how``."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW_SIZE = ctypes.sizeof(_How)


@functools.cache
def _how(flags: int) -> _How:
    """One of each serves all calls, for the kernel only reads it."""
    return _How(flags | os.O_CLOEXEC, 0, _RESOLVE_CACHED)


_kernel = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: there is no wait
_syscall = _kernel.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_How),
    ctypes.c_size_t,
)
_fstatfs = ctypes.CDLL(None).fstatfs  # a file server may have to answer: other threads go on
_STATFS_SIZE = 256
"""Octets that hold a ``struct statfs``, whose first member is the type."""


def open_known(path: bytes, flags: int) -> int:
    """A descriptor of a file that is there; raises OSError, and that also where it would wait.

    Only for local file systems: others may ask a server when a file is opened.
    """
    descriptor: int = _syscall(_OPENAT2, _AT_FDCWD, path, _how(flags), _HOW_SIZE)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return descriptor


def read_known(path: bytes, limit: int) -> bytes:
    """A regular file of up to ``limit`` octets; raises OSError, and that also where it would wait.

    Only for local file systems.
    """
    descriptor = open_known(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        room = bytearray(status.st_size + 1)
        length = os.preadv(descriptor, [room], 0, os.RWF_NOWAIT)
    finally:
        os.close(descriptor)
    if length != status.st_size:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return bytes(memoryview(room)[:length])


@dataclass(frozen=True, slots=True)
class Stamp:
    """A directory, and when its entries were last changed."""

    device: int
    inode: int
    changed: int
    """In nanoseconds since the epoch (st_ctime, which nobody can set)."""


def stamp_of(descriptor: int) -> Stamp | None:
    """The stamp of an open directory; None where it is worth nothing; raises OSError."""
    if not is_local(descriptor):
        return None
    found = os.fstat(descriptor)
    return Stamp(found.st_dev, found.st_ino, found.st_ctime_ns)


def has_stamp(path: bytes, known: Stamp) -> bool:
    """Whether a directory is what it was; raises OSError, and that also where it would wait."""
    descriptor = open_known(path, os.O_PATH | os.O_DIRECTORY)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return (
        found.st_ctime_ns == known.changed
        and found.st_ino == known.inode
        and found.st_dev == known.device
    )


def is_local(descriptor: int) -> bool:
    """Whether this kernel alone changes the file system of an open file.

    Where it does not, a file server is asked, and waited for.
    """
    room = ctypes.create_string_buffer(_STATFS_SIZE)
    if _fstatfs(descriptor, room) != 0:
        return False
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF in _LOCAL
