"""Who may have put something at a path: whoever can write to a directory on the way to it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

MAX_LINKS = 40
"""Symbolic links on one way, as for the kernel (path_resolution(7))."""


def is_roots_alone(directory: str) -> bool:
    """Whether nobody but root can put anything into the directory; raises OSError."""
    found = os.stat(directory)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def has_acl(path: str) -> bool:
    """Whether a POSIX ACL says who may do what; raises OSError.

    The group's bits are its mask then: what any user or group that it names may have (acl(5)).
    """
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
    return True


def directories_to(path: str) -> Iterator[str]:
    """The directories on the way to an absolute path, whose writers decide what is found there.

    Links are followed, and what is behind a missing name is not asked for. One that root shares
    with others (the sticky bit) is left out where its entry is root's: nobody else can replace
    that. Raises OSError.
    """
    names = path.split("/")[::-1]
    place, links = "/", 0
    while names:
        name = names.pop()
        if name == "..":
            place = os.path.dirname(place)
        if name in ("", ".", ".."):
            continue
        around, below = os.stat(place), os.path.join(place, name)
        found = _entry(below)
        if found is None or found.st_uid != 0 or not _is_shared_by_root(around):
            yield place
        if found is None:
            return
        if not stat.S_ISLNK(found.st_mode):
            place = below
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(below)
        names += target.split("/")[::-1]
        place = "/" if target.startswith("/") else place


def _entry(path: str) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path)
    return None


def _is_shared_by_root(directory: os.stat_result) -> bool:
    return directory.st_uid == 0 and bool(directory.st_mode & stat.S_ISVTX)
