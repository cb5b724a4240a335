"""Whether a disk has room for what is written when a queue is opened."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile

from restante.queue.schema import primary_code

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk, or a quota on it, says that has no room."""
NEEDED = 64 * 1024
"""Octets: the index of a write-ahead log has 32 KiB from the first, the log a few pages."""


def is_full(error: BaseException | None) -> bool:
    """Whether this is what a disk without room says."""
    return getattr(error, "errno", None) in FULL or primary_code(error) == sqlite3.SQLITE_FULL


def lacks_room(directory: str) -> bool:
    """Whether the disk has no room for what opening a queue in ``directory`` may write.

    The disk itself is asked, for to SQLite it is often any failure.
    """
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    try:
        try_room(directory)
    except OSError as error:
        return is_full(error)
    return False


def try_room(directory: str) -> None:
    """Write so much into a file without a name; raises what the disk says, OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, NEEDED)
