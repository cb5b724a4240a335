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
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise NotRegular(f"{os.fsdecode(path)} is not a regular file")

    def read(self) -> bytes:
        """The next block, empty at the end or once closed."""
        with self._lock:
            return os.read(self._descriptor, BLOCK) if self._descriptor >= 0 else b""

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


def blocks(path: bytes) -> Iterator[bytes]:
    """The file in pieces; raises OSError."""
    with contextlib.closing(Reader(path)) as reader:
        while block := reader.read():
            yield block


def wire_size(path: bytes) -> int:
    """The octets of the file when every lone LF is sent as CRLF and the last line has an end.

    Reads the file once; raises OSError.
    """
    size = 0
    last = b""
    for block in blocks(path):
        crlf = block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
        size += len(block) + block.count(b"\n") - crlf
        last = block[-1:]
    return size if last in (b"", b"\n") else size + len(b"\r\n")


def read_bounded(path: bytes, limit: int) -> bytes | None:
    """The file, or None if it is larger than ``limit`` octets; raises OSError."""
    content = bytearray()
    for block in blocks(path):
        content += block
        if len(content) > limit:
            return None
    return bytes(content)


def fsync_directory(path: bytes) -> None:
    """Make the directory's changes durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
