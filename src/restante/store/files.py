"""The file operations of a Maildir that is read: every open of a message or a list is here."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator

BLOCK = 256 * 1024
"""Octets read at a time."""

_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegular(OSError):
    """The name is not that of a regular file: a FIFO, a link, a directory."""


class Reader:
    """An open file, read in any thread; ``close`` may come while a read is under way."""

    def __init__(self, path: bytes) -> None:
        """Open without following a link or waiting for a writer; raises OSError."""
        self._lock = threading.Lock()
        self._descriptor = os.open(path, _READ_ONLY)
        status = os.fstat(self._descriptor)
        # Room for a whole block would cost more than to read a small file.
        self._wanted = min(status.st_size + 1, BLOCK)
        self._left = status.st_size
        self.is_done = False
        """The end was read."""
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise NotRegular(f"{os.fsdecode(path)} is not a regular file")

    def read(self) -> bytes:
        """The next block, empty beyond the end or once closed."""
        with self._lock:
            block = os.read(self._descriptor, self._wanted) if self._descriptor >= 0 else b""
        self._left -= len(block)
        # Before the end, too, less may come than was wanted: a disk that cannot read on gives what
        # it could read, and its error the next time.
        self.is_done = not block or (len(block) < self._wanted and self._left <= 0)
        return block

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


def blocks(path: bytes) -> Iterator[bytes]:
    """The file in pieces; raises OSError."""
    with contextlib.closing(Reader(path)) as reader:
        while not reader.is_done:
            yield reader.read()


def wire_size(path: bytes) -> int:
    """The octets of the file when every lone LF is sent as CRLF and the last line has an end.

    Reads the file once; raises OSError.
    """
    size = 0
    last = b""
    for block in blocks(path):
        crlf = block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
        size += len(block) + block.count(b"\n") - crlf
        last = block[-1:] or last
    return size if last in (b"", b"\n") else size + len(b"\r\n")


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
        os.close(descriptor)
