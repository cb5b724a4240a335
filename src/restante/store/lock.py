"""``restante.lock`` in a Maildir: who holds it has the maildrop, and its time is of use too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from restante.store import MaildropInUse, MaildropUnavailable, files, unwaiting

LOCK = "restante.lock"
CLOCK_TOLERANCE = 3600
"""Seconds that a lock file's time may lie ahead: machines that share Maildirs differ a little."""
STALE_AFTER = 36 * 3600
"""Seconds after which a file in ``tmp`` was abandoned (maildir(5)), and between two looks for such
files: the time of the lock file says when the last one was."""

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLAGS_READ_ONLY = _FLAGS & ~os.O_ACCMODE | os.O_RDONLY
_BELOW = b"/" + LOCK.encode()
"""What follows a Maildir's path in that of its lock."""
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""struct flock (fcntl(2)) for a lock to write on all of a file."""
_NFS_SERVER = "/proc/net/rpc/nfsd"
"""Is there where the kernel's NFS server is loaded."""
_REMEMBERED = 10.0
"""Seconds for which it counts as loaded or not."""
_UNCHANGEABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a file system says that is full, or has become read-only, as a disk that fails makes it."""


def take_lock(maildir: str, name: str) -> int | None:
    """The descriptor that holds the lock, or None if there is no Maildir.

    Raises PermissionError too.
    """
    try:
        lock = _open_lock(maildir)
    except FileNotFoundError:
        check_missing(maildir)
        return None
    except PermissionError:
        raise
    except OSError as error:
        raise unavailable("lock", os.path.join(name, LOCK), error) from error
    try:
        _lock(lock)
        _keep_clients_out(lock)
    except BlockingIOError:
        files.close(lock)
        raise MaildropInUse(f"{name} is in use by another session") from None
    except OSError as error:
        files.close(lock)
        raise unavailable("lock", os.path.join(name, LOCK), error) from error
    return lock


def _open_lock(maildir: str) -> int:
    """The file; the Maildir itself where there is none and none can be made; raises OSError.

    Else nobody could make room who has no other way to his mail, nor read what is on a disk that
    lets nothing be changed.
    """
    path = os.path.join(maildir, LOCK)
    try:
        return os.open(path, _FLAGS | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in _UNCHANGEABLE:
            raise
    with contextlib.suppress(FileNotFoundError):  # whoever came before the change has the file
        return os.open(path, _FLAGS_READ_ONLY)
    return os.open(maildir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _lock(descriptor: int) -> None:
    """Keep others out; raises OSError.

    NFS lets nobody have for himself what he can only read (flock(2)). Shared, it heeds a session
    from before the file system became read-only, and is good for reading: ``keep_lock`` fails.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def take_known_lock(
    maildir: bytes, stale_before: float, is_unchanged: Callable[[], bool]
) -> int | None:
    """The lock of what still is what is known of it, if nothing is to be waited for or done."""
    try:
        lock = unwaiting.open_known(maildir + _BELOW, _FLAGS)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _keep_clients_out(lock)
        status = os.fstat(lock)
        has_name = status.st_nlink > 0
        if has_name and not _is_due(status, stale_before) and is_unchanged():
            return lock
    except OSError:
        pass  # whoever opens it in earnest says what is wrong
    files.close(lock)
    return None


def _keep_clients_out(lock: int) -> None:
    """Lock for machines that mount a disk of this one by NFS as well; raises OSError.

    Their flock(2) is fcntl(2)'s lock here, and one kind does not see the other. What is open to be
    read alone cannot be locked so: on a file system that is read-only nothing is deleted then, and
    on a full one the lock of a Maildir itself is this machine's alone.
    """
    if _serves_nfs(time.monotonic() // _REMEMBERED) and unwaiting.is_local(lock):
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


@functools.lru_cache(maxsize=1)
def _serves_nfs(_: float) -> bool:
    return os.path.exists(_NFS_SERVER)


def keep_lock(lock: int, maildir: bytes, name: str) -> None:
    """Ask for the lock once more, which changes nothing where it is still held.

    A file server that has not heard of this machine for long gives its locks to others
    (NFSv4's lease, CephFS's eviction), and nobody says so before the next request for one.
    And this machine may serve NFS only since the lock was taken.
    Where somebody has removed the file, others may have made and locked another one.
    Raises MaildropUnavailable.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _keep_clients_out(lock)
        check_name(lock, maildir + _BELOW)
    except OSError as error:
        raise unavailable("keep the lock on", name, error) from error


def check_name(lock: int, path: str | bytes) -> None:
    """Raises OSError if the name of a locked file leads elsewhere, so that it keeps nobody out.

    A Maildir that is locked itself keeps nobody out once somebody has made the file.
    """
    held = os.fstat(lock)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        if not stat.S_ISDIR(held.st_mode):
            raise
        found = os.stat(os.path.dirname(path))
    if not os.path.samestat(held, found):
        raise OSError(errno.ESTALE, f"{LOCK} is another file now")


def check_missing(maildir: str) -> None:
    """Raise MaildropUnavailable where it is not only this Maildir that is missing.

    Without the file system there is a link that leads nowhere on the way to it, or a directory that
    was made immutable before it was mounted upon (docs/cluster.md).
    """
    way = (maildir, *map(str, Path(maildir).parents))
    last = next(filter(os.path.lexists, way), "/")
    if not os.path.exists(last):
        raise MaildropUnavailable(f"cannot follow the link {last}: it leads nowhere")
    if files.is_immutable(last):
        raise MaildropUnavailable(
            f"cannot find {maildir}: {last} is immutable, as a directory that nothing is mounted on"
        )


def of_others(places: Mapping[str, str], uid: int) -> str:
    """The first of the places, by name and path, that is not this uid's; empty if all are."""
    for name, path in places.items():
        with contextlib.suppress(OSError):
            owner = os.stat(path).st_uid
            if owner != uid:
                return f"{name}, which belongs to uid {owner}, not to {uid}"
    return ""


def clean_if_due(lock: int, maildir: str, stale_before: float) -> bool:
    """Look for abandoned files in ``tmp`` if nobody has for long: whether that was so.

    Raises OSError.
    """
    is_due = _is_due(os.fstat(lock), stale_before)
    if is_due:
        _clean_tmp(os.path.join(maildir, "tmp"), stale_before)
        _note_the_look(lock)
    return is_due


def _is_due(lock: os.stat_result, stale_before: float) -> bool:
    """Whether ``tmp`` is to be looked at: not if it was lately, unless the clock was ahead then."""
    return not stale_before <= lock.st_mtime <= stale_before + STALE_AFTER + CLOCK_TOLERANCE


def _clean_tmp(tmp: str, stale_before: float) -> None:
    """Delete what deliveries left that never ended; what cannot be deleted stays."""
    with contextlib.suppress(OSError), os.scandir(tmp) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False) and _last_used(entry) < stale_before:
                    os.unlink(entry.path)


def _note_the_look(lock: int) -> None:
    """Give the lock file the time of this look; where that takes room and there is none (btrfs), or
    nothing can be changed, the next session looks again. Raises OSError."""
    try:
        os.utime(lock)
    except OSError as error:
        if error.errno not in _UNCHANGEABLE:
            raise


def _last_used(entry: os.DirEntry[str]) -> float:
    status = entry.stat(follow_symlinks=False)
    return max(status.st_atime, status.st_mtime, status.st_ctime)


def unavailable(doing: str, maildir: str, error: OSError) -> MaildropUnavailable:
    return MaildropUnavailable(f"cannot {doing} {maildir}: {error.strerror or error}")
