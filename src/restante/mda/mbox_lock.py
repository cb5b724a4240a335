"""The locks of an mbox: what other programs on this host wait for, and what this one waits for.

Three of them, since programs differ in which they respect: flock(2) (qmail), fcntl(2)
(what Debian asks for) and the dot-lock, a file beside the mbox with ``.lock`` behind its
name. The two of the kernel come first; whoever cannot have all of them at once gives back
what it has and tries again, so that no order of taking them can make two programs wait for
each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass

from restante.errors import TemporaryError
from restante.mda.durable import Disk

STALE_AFTER = 300.0
"""Seconds after which a dot-lock of another program counts as forgotten, as in liblockfile."""
AHEAD = 3600.0
"""Seconds by which a dot-lock may be from a time to come: one from later than that was made
before the clock was set back."""
MAX_MARK = 512
"""Octets of a dot-lock that are read."""

_WITHOUT_DOT_LOCK = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG})
"""Where the directory takes no dot-lock, other programs of this user can make none either."""
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""struct flock (fcntl(2)) for a lock to write on all of a file, however it grows."""
_HELD_ERRORS = frozenset({errno.EAGAIN, errno.EACCES})


class Held(TemporaryError):
    """Another program has one of the locks; the text says which."""


@dataclass(frozen=True, slots=True)
class DotLock:
    """A dot-lock that this process has made."""

    name: str
    identity: tuple[int, int]
    """Device and inode."""


def take(disk: Disk, fd: int, directory: int, name: str, mark: bytes) -> DotLock | None:
    """Lock the mbox ``name`` in ``directory``, open as ``fd``; raises Held and OSError.

    None: the directory takes no dot-lock, and the locks of the kernel have to do. Those are
    given back when ``fd`` is closed, the dot-lock by ``release``. ``mark`` names this host: a
    dot-lock that bears it was made by a process that held flock(2) as this one does now, and
    is dead therefore.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock of an open file, not of a process: it keeps threads apart as well.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except OSError as error:
        if error.errno in _HELD_ERRORS:
            raise Held("another program has locked it (flock or fcntl)") from error
        raise
    return _make(disk, directory, f"{name}.lock", mark)


def release(disk: Disk, directory: int, lock: DotLock) -> None:
    """Remove the dot-lock, unless it is another's by now; raises OSError."""
    if _identity(directory, lock.name) == lock.identity:
        disk.unlink(lock.name, directory)


def _make(disk: Disk, directory: int, name: str, mark: bytes) -> DotLock | None:
    try:
        fd = _create(disk, directory, name, mark)
    except OSError as error:
        if error.errno in _WITHOUT_DOT_LOCK:
            return None
        raise
    try:
        lock = DotLock(name, _identity_of(os.fstat(fd)))
    except OSError:
        disk.close(fd)
        disk.unlink(name, directory)  # made this moment: nobody takes it for left behind yet
        raise
    try:
        # liblockfile asks whether the process lives that stands at the beginning.
        disk.write(fd, [b"%d %s\n" % (os.getpid(), mark)])
    except OSError:
        release(disk, directory, lock)
        raise
    finally:
        disk.close(fd)
    return lock


def _create(disk: Disk, directory: int, name: str, mark: bytes) -> int:
    """A new file; raises Held where there is one and whoever made it may live."""
    try:
        return disk.create(name, directory)
    except FileExistsError:
        _remove_forgotten(disk, directory, name, mark)
    try:
        return disk.create(name, directory)
    except FileExistsError as error:
        raise Held(f"another program has made {name}") from error


def _remove_forgotten(disk: Disk, directory: int, name: str, mark: bytes) -> None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    age = time.time() - found.st_mtime
    # A file server gives files their times, and its clock counts: this host's may be far off it.
    if not _is_heeded(age):
        age = _time_in(disk, directory) - found.st_mtime
    if not _is_heeded(age) or _read(directory, name).rstrip().endswith(b" " + mark):
        if _identity(directory, name) == _identity_of(found):
            disk.unlink(name, directory)
        return
    raise Held(f"{name} was made {max(age, 0):.0f} seconds ago by another program")


def _is_heeded(age: float) -> bool:
    return -AHEAD <= age <= STALE_AFTER


def _time_in(disk: Disk, directory: int) -> float:
    """The time that a file gets which is made there now."""
    name = f".restante-{os.urandom(8).hex()}"
    fd = disk.create(name, directory)
    try:
        return os.fstat(fd).st_mtime
    finally:
        disk.close(fd)
        disk.unlink(name, directory)


def _read(directory: int, name: str) -> bytes:
    """The beginning of a dot-lock; nothing where it cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.read(fd, MAX_MARK)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _identity(directory: int, name: str) -> tuple[int, int] | None:
    try:
        return _identity_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _identity_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
