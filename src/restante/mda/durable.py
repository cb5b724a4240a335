"""The one place that knows how files are made durable.

Whoever writes mail does it through a ``Disk``, so that a test can make any
single operation fail, count them, or cut the power after each.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import Protocol

from restante import btrfs
from restante.mda import ext4, unnamed, xfs
from restante.mda.ext4 import Ext4
from restante.mda.xfs import Xfs

_NO_COPY_HERE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What copy_file_range(2) says where the file systems cannot copy among themselves."""

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
"""Flags of sync_file_range(2)."""

_SYNCED_AS_A_WHOLE = {
    ext4.KIND: "ext4",
    xfs.KIND: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x6969: "nfs",
    0x00C36400: "ceph",
}
"""File systems whose syncfs(2) is known to bring all of it to the disk. FUSE's says that it has,
and asks nothing of the process behind it (GlusterFS, ceph-fuse, sshfs); the server of CIFS is not
told to flush."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class Disk(Protocol):
    """The operations of which durable delivery consists; every one raises OSError.

    Names are single components, relative to an open directory, or paths where there is none.
    """

    def open_path(self, name: str, parent: int | None, *, follow: bool) -> int:
        """A descriptor by which a directory is passed through; needs no right to read it."""
        ...

    def open_directory(self, name: str, parent: int | None) -> int:
        """A directory for listing and syncing; a symbolic link is refused (ENOTDIR)."""
        ...

    def make_directory(self, name: str, parent: int, mode: int) -> None:
        """A new directory."""
        ...

    def create(self, name: str, parent: int | None) -> int:
        """A new file, mode 0600, open for writing; EEXIST if there is one."""
        ...

    def create_unnamed(self, directory: str, parent: int | None) -> int:
        """A new file that is in no directory, mode 0600, open for writing.

        It lies on the file system of ``directory``, and is gone when it is closed without having
        got a name. EOPNOTSUPP where the file system has no such files.
        """
        ...

    def link(self, fd: int, name: str, parent: int | None) -> None:
        """Give a file of ``create_unnamed`` its name; EEXIST if another bears it."""
        ...

    def open_file(self, name: str, parent: int, *, new: bool, follow: bool) -> int:
        """A file for reading and appending, or a ``new`` one, mode 0600 (EEXIST if there is one).

        Without ``follow`` a symbolic link is refused (ELOOP).
        """
        ...

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        """Append the buffers, all of them."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file off after ``size`` octets."""
        ...

    def copy(self, source: str | int, fd: int, count: int) -> None:
        """Append the first ``count`` octets of a file, which is a path or a descriptor."""
        ...

    def chown(self, fd: int, uid: int, gid: int) -> None:
        """Give an open file or directory away."""
        ...

    def fsync(self, fd: int) -> None:
        """Make one file, or the entries of one directory, survive a power cut."""
        ...

    def file_system(self, fd: int) -> int:
        """What ``syncfs`` and ``order_all`` reach: the same number for all files of which they do.

        Unknown is the device.
        """
        ...

    def syncfs(self, fd: int) -> None:
        """Make all of the file system that holds ``fd`` survive a power cut."""
        ...

    def syncs_all(self, fd: int) -> bool:
        """Whether ``syncfs`` keeps its promise on the file system that holds ``fd``.

        Unknown is "no".
        """
        ...

    def order_all(self, fd: int) -> None:
        """Bring the octets of all files on the file system that holds ``fd`` to the disk.

        So none of them is found cut short by a name that it gets later; ``syncfs`` must follow
        before anything is acknowledged.
        """
        ...

    def keeps_order(self, fd: int) -> bool:
        """Whether ``order`` does for one file on this file system what ``order_all`` does for all.

        A file and the name that it gets are written together there, and not before what was done
        earlier: ``fsync`` of a directory makes the last file that got a name in it durable, and all
        others that had theirs before, if their octets are in order. Unknown is "no".
        """
        ...

    def names_follow(self, fd: int) -> bool:
        """Whether ``fsync`` of a file on this file system makes the name durable that it got last.

        Unknown is "no".
        """
        ...

    def begin_order(self, fd: int) -> None:
        """Have the octets of a file written soon, without waiting for it."""
        ...

    def order(self, fd: int) -> None:
        """Have the octets of a file written, and wait until they are.

        Nothing survives a power cut by that alone; ``fsync`` or ``syncfs`` must follow before
        anything is acknowledged.
        """
        ...

    def rename(self, old: str, source: int | None, new: str, target: int | None) -> None:
        """Move a file from one directory to another, replacing what bears the new name there."""
        ...

    def unlink(self, name: str, parent: int | None) -> None:
        """Remove a file."""
        ...

    def close(self, fd: int) -> None:
        """Give a descriptor back."""
        ...


class LocalDisk:
    """The real disk. All calls release the interpreter lock while they wait."""

    def __init__(self, ext4: Ext4 | None = None) -> None:
        self._ext4 = ext4 or Ext4()
        self._xfs = Xfs()

    def open_path(self, name: str, parent: int | None, *, follow: bool) -> int:
        """See Disk."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(name, flags if follow else flags | os.O_NOFOLLOW, dir_fd=parent)

    def open_directory(self, name: str, parent: int | None) -> int:
        """See Disk."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=parent)

    def make_directory(self, name: str, parent: int, mode: int) -> None:
        """See Disk."""
        os.mkdir(name, mode, dir_fd=parent)

    def create(self, name: str, parent: int | None) -> int:
        """See Disk."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=parent)

    def create_unnamed(self, directory: str, parent: int | None) -> int:
        """See Disk."""
        flags = os.O_TMPFILE | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(directory, flags, 0o600, dir_fd=parent)

    def link(self, fd: int, name: str, parent: int | None) -> None:
        """See Disk."""
        # A descriptor of any directory makes it linkat(2), which alone follows the link.
        source = f"{unnamed.LINKS}/{fd}"
        os.link(source, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=True)

    def open_file(self, name: str, parent: int, *, new: bool, follow: bool) -> int:
        """See Disk."""
        flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        flags |= os.O_CREAT | os.O_EXCL if new else 0
        return os.open(name, flags if follow else flags | os.O_NOFOLLOW, 0o600, dir_fd=parent)

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        """See Disk."""
        missing = sum(map(len, buffers)) - os.writev(fd, buffers)
        if missing:
            rest = memoryview(b"".join(buffers))[-missing:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    def truncate(self, fd: int, size: int) -> None:
        """See Disk."""
        os.ftruncate(fd, size)

    def copy(self, source: str | int, fd: int, count: int) -> None:
        """See Disk."""
        if isinstance(source, int):
            _copy(source, fd, count)
            return
        origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy(origin, fd, count)
        finally:
            os.close(origin)

    def chown(self, fd: int, uid: int, gid: int) -> None:
        """See Disk."""
        os.fchown(fd, uid, gid)

    def fsync(self, fd: int) -> None:
        """See Disk."""
        os.fsync(fd)

    def file_system(self, fd: int) -> int:
        """See Disk."""
        return btrfs.file_system(fd)

    def syncfs(self, fd: int) -> None:
        """See Disk."""
        _check(_libc.syncfs(fd))
        if self._ext4.flushes_early(fd):
            os.fsync(fd)  # there is hardly anything to write, but the device's cache is flushed

    def syncs_all(self, fd: int) -> bool:
        """See Disk."""
        return ext4.kind(fd) in _SYNCED_AS_A_WHOLE

    def order_all(self, fd: int) -> None:
        """See Disk."""
        _check(_libc.syncfs(fd))

    def keeps_order(self, fd: int) -> bool:
        """See Disk."""
        return self._ext4.keeps_order(fd) or self._xfs.keeps_order(fd)

    def names_follow(self, fd: int) -> bool:
        """See Disk."""
        return self._ext4.names_follow(fd)

    def begin_order(self, fd: int) -> None:
        """See Disk."""
        _check(_libc.sync_file_range(fd, 0, 0, _WRITE))

    def order(self, fd: int) -> None:
        """See Disk."""
        # All three: what the kernel itself is writing already counts, and nothing is passed over.
        _check(_libc.sync_file_range(fd, 0, 0, _WAIT_BEFORE | _WRITE | _WAIT_AFTER))

    def rename(self, old: str, source: int | None, new: str, target: int | None) -> None:
        """See Disk."""
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)

    def unlink(self, name: str, parent: int | None) -> None:
        """See Disk."""
        os.unlink(name, dir_fd=parent)

    def close(self, fd: int) -> None:
        """See Disk."""
        os.close(fd)


def sync_way(disk: Disk, directory: int) -> None:
    """Make a directory's names durable, and those by which it is reached on its file system.

    As far up as this process may read: it has made nothing above. Raises OSError.
    """
    below = os.fstat(directory)
    way = directory, "."
    held: list[int] = []
    try:
        while True:
            held.append(disk.open_directory(way[1], way[0]))
            found = os.fstat(held[-1])
            is_root = way[1] == ".." and found.st_ino == below.st_ino
            if found.st_dev != below.st_dev or is_root:
                return
            disk.fsync(held[-1])
            below, way = found, (held[-1], "..")
    except PermissionError:
        return
    finally:
        for fd in held:
            disk.close(fd)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _copy(source: int, target: int, count: int) -> None:
    done = 0
    inside_kernel = True
    while done < count:
        try:
            step = _copy_some(source, target, count - done, done, inside_kernel)
        except OSError as error:
            if not inside_kernel or error.errno not in _NO_COPY_HERE:
                raise
            inside_kernel = False
            continue
        if step == 0:
            raise OSError(errno.EIO, f"a spooled body ends after {done} of {count} octets")
        done += step


def _copy_some(source: int, target: int, count: int, offset: int, inside_kernel: bool) -> int:
    if inside_kernel:
        return os.copy_file_range(source, target, count, offset_src=offset)
    return os.sendfile(target, source, offset, count)
