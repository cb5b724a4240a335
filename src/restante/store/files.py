"""The file operations of a Maildir that is read: every open of a message or a list is here."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence

BLOCK = 256 * 1024
"""Octets read at a time."""
COUNTED = 64 * 1024
"""The same where they are only counted: they do not leave the processor's own memory."""
TOGETHER = 16
"""Files that are open at the same time to be counted: a disk reads so many in a fifth of the time
that it takes for one after another, and more in hardly less."""

_GET_FLAGS, _IMMUTABLE = 0x8008_6601, 0x10
"""``FS_IOC_GETFLAGS`` and ``FS_IMMUTABLE_FL`` (ioctl_iflags(2))."""
_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def close(descriptor: int) -> None:
    """Give back what was only read or locked: it is, whatever a file system says of it.

    FUSE and NFS ask their servers at each close(2), which may be away by then.
    """
    try:
        os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise


class NotRegular(OSError):
    """The name is not that of a regular file: a FIFO, a link, a directory."""


class Reader:
    """An open file, read in any thread; ``close`` may come while a read is under way.

    It does not wait for that one, which may hang for as long as a file server is away.
    """

    def __init__(self, path: bytes) -> None:
        """Open without following a link or waiting for a writer; raises OSError."""
        self._lock = threading.Lock()
        self._descriptor, self._left = _open(path)
        self._wanted = _room(self._left, BLOCK)
        self._is_closed = False
        self.is_done = False
        """The end was read."""

    def read(self) -> bytes:
        """The next block, empty beyond the end or once closed."""
        try:
            with self._lock:
                block = os.read(self._descriptor, self._wanted) if self._descriptor >= 0 else b""
        finally:
            if self._is_closed:
                self._give_back()
        self._left -= len(block)
        self.is_done = _is_last(block, self._wanted, self._left)
        return block

    def close(self) -> None:
        """Give the descriptor back: now, or as soon as nobody reads."""
        self._is_closed = True
        self._give_back()

    def _give_back(self) -> None:
        """Whoever has the lock does it afterwards."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._descriptor >= 0:
                close(self._descriptor)
                self._descriptor = -1
        finally:
            self._lock.release()


def blocks(path: bytes) -> Iterator[bytes]:
    """The file in pieces, the last of which may be empty; raises OSError."""
    descriptor, size = _open(path)
    try:
        yield from _pieces(descriptor, size, BLOCK)
    finally:
        close(descriptor)


def _open(path: bytes) -> tuple[int, int]:
    """The descriptor of a regular file, and its size.

    Follows no link and waits for no writer; raises OSError.
    """
    descriptor = os.open(path, _READ_ONLY)
    try:
        return descriptor, _size_of_regular(descriptor, path)
    except BaseException:
        close(descriptor)
        raise


def _size_of_regular(descriptor: int, path: bytes) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(f"{os.fsdecode(path)} is not a regular file")
    return status.st_size


def _pieces(descriptor: int, left: int, most: int) -> Iterator[bytes]:
    """What a Reader gives, for one thread alone, in pieces of up to so many octets."""
    wanted = _room(left, most)
    is_done = False
    while not is_done:
        block = os.read(descriptor, wanted)
        left -= len(block)
        is_done = _is_last(block, wanted, left)
        yield block


def _room(size: int, most: int) -> int:
    """Octets to ask for: room for a whole block would cost more than to read a small file."""
    return min(size + 1, most)


def _is_last(block: bytes, wanted: int, left: int) -> bool:
    """Whether the file ends with a block, when so many octets were wanted and are left of it.

    Before the end, too, less may come than was wanted: a disk that cannot read on gives what it
    could read, and its error the next time.
    """
    return not block or (len(block) < wanted and left <= 0)


def wire_sizes(paths: Sequence[bytes]) -> list[int | OSError]:
    """The octets of each file when every lone LF is sent as CRLF and the last line has an end.

    Or why it cannot be read. Reads each file once. All of them are open at the same time, and the
    kernel is told of all before it is asked for the first, so that a disk has much to do at once:
    the caller names about TOGETHER of them. Those for which no descriptor is left come one by one.
    """
    return [
        _wire_sizes_together([path])[0] if _lacks_descriptors(size) else size
        for path, size in zip(paths, _wire_sizes_together(paths), strict=True)
    ]


def _lacks_descriptors(size: int | OSError) -> bool:
    return isinstance(size, OSError) and size.errno in (errno.EMFILE, errno.ENFILE)


def _wire_sizes_together(paths: Iterable[bytes]) -> list[int | OSError]:
    opened: list[tuple[int, int] | OSError] = []
    try:
        opened += map(_open_ahead, paths)
        return [each if isinstance(each, OSError) else _wire_size(*each) for each in opened]
    finally:
        for each in opened:
            if not isinstance(each, OSError):
                close(each[0])


def _open_ahead(path: bytes) -> tuple[int, int] | OSError:
    try:
        descriptor, size = _open(path)
    except OSError as error:
        return error
    with contextlib.suppress(OSError):  # a file system that knows of no such thing
        os.posix_fadvise(descriptor, 0, BLOCK, os.POSIX_FADV_WILLNEED)
    return descriptor, size


def _wire_size(descriptor: int, size: int) -> int | OSError:
    on_wire = 0
    last = b""
    try:
        for block in _pieces(descriptor, size, COUNTED):
            on_wire += _with_crlf(block, last)
            last = block[-1:] or last
    except OSError as error:
        return error
    return on_wire if last in (b"", b"\n") else on_wire + len(b"\r\n")


def _with_crlf(block: bytes, before: bytes) -> int:
    """The octets of a block when every lone LF is sent as CRLF; ``before`` is the octet before."""
    if b"\r" not in block and before != b"\r":
        # CPython looks at each octet when it counts, but goes from LF to LF when it replaces.
        return len(block.replace(b"\n", b"\r\n"))
    crlf = block.count(b"\r\n") + (before == b"\r" and block.startswith(b"\n"))
    return len(block) + block.count(b"\n") - crlf


def read_bounded(path: bytes, limit: int) -> bytes | None:
    """The file, or None if it is larger than ``limit`` octets; raises OSError."""
    found: list[bytes] = []
    for block in blocks(path):
        found.append(block)
        limit -= len(block)
        if limit < 0:
            return None
    return b"".join(found)


def fsync_directory(path: bytes) -> None:
    """Make the directory's changes durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)


def is_immutable(directory: str) -> bool:
    """Whether nobody can make anything in it (chattr(1), +i); False where that cannot be known."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4))
    except OSError:
        return False  # a file system that knows of no such thing
    finally:
        close(descriptor)
    return bool(int.from_bytes(flags, sys.byteorder) & _IMMUTABLE)
