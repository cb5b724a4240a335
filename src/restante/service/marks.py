"""Which settings a running server serves by, for ``restante check``: marks in ``run``.

They are a digest and times, and no words: who has taken over a worker can change them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from restante.config.load import FILE_NAME
from restante.service.ownership import PRIVATE, RUN

_READ = "settings.read"
"""Holds the digest of the file that was read when it was made."""
_REFUSED = "settings.refused"
"""Made when a reload was refused; gone when one succeeds."""
_DIGITS = 64
"""Of a digest."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a server has left. Times are in seconds since the epoch."""

    digest: str
    read_at: float
    refused_at: float | None


def digest_of(directory: str) -> str:
    """Stands for restante.toml as it is now; empty where there is none that can be read."""
    try:
        with open(os.path.join(directory, FILE_NAME), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@contextlib.contextmanager
def marks_counting(directory: str) -> Iterator[None]:
    """Meanwhile a server runs, whose marks count; raises OSError.

    However it ends: what a killed one has left counts for as long as its children run.
    """
    run = os.path.join(directory, RUN)
    os.makedirs(run, mode=PRIVATE, exist_ok=True)
    with _opened(run) as descriptor:
        # Shared, for children of one that was killed just before may still have it.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def mark_read(directory: str, digest: str) -> None:
    """The settings of a file with this digest are in force; raises OSError."""
    forget_marks(directory)
    _make(directory, _READ, digest)


def mark_refused(directory: str) -> None:
    """A reload was refused; raises OSError."""
    _remove(directory, _REFUSED)
    _make(directory, _REFUSED, "")


def forget_marks(directory: str) -> None:
    """No server serves; raises OSError."""
    _remove(directory, _READ)
    _remove(directory, _REFUSED)


def marks_of(directory: str) -> Marks | None:
    """Those of the server that runs; None where there are none. Raises OSError."""
    if not _are_counting(directory):
        return None
    try:
        read = os.open(_path(directory, _READ), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        digest, read_at = os.read(read, _DIGITS).decode("ascii", "replace"), os.fstat(read).st_mtime
    finally:
        os.close(read)
    refused_at = None
    with contextlib.suppress(FileNotFoundError):
        refused_at = os.lstat(_path(directory, _REFUSED)).st_mtime
    return Marks(digest, read_at, refused_at)


def _are_counting(directory: str) -> bool:
    with _opened(os.path.join(directory, RUN)) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _opened(run: str) -> Iterator[int]:
    descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _path(directory: str, name: str) -> str:
    return os.path.join(directory, RUN, name)


def _make(directory: str, name: str, text: str) -> None:
    """What cannot be written whole is not there: it would say what is not so."""
    try:
        with open(_path(directory, name), "x") as file:
            file.write(text)
    except OSError:
        _remove(directory, name)
        raise


def _remove(directory: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(directory, name))
