"""Secrets of an instance: random octets in a file, which whoever needs them first makes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets


def read_or_make(path: str, size: int, *, may_be_link: bool = False) -> bytes:
    """What the file has, ``size`` random octets if it is new; at most one octet more is read.

    Durable, and the same for all processes that ask. A file without content is a new one: programs
    that synced less may have lost it in a power cut. Raises OSError.
    """
    how = os.O_RDONLY | os.O_CLOEXEC | (0 if may_be_link else os.O_NOFOLLOW)
    return _read(path, size, how) or _made(path, size, how)


def _read(path: str, size: int, how: int) -> bytes:
    try:
        descriptor = os.open(path, how)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)


def _made(path: str, size: int, how: int) -> bytes:
    """Several processes may do this at once: the first one's stands, whole or not at all."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not _read(path, size, how):
            _make(path, size)
            os.fsync(directory)
    finally:
        os.close(directory)
    return _read(path, size, how)


def _make(path: str, size: int) -> None:
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):  # of a process that was killed
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(size))
        file.flush()
        os.fsync(descriptor)
    os.rename(temporary, path)
