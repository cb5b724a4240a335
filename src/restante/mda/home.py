"""The way to a place in the file system of which others may control a part.

Directories are entered one by one, and a symbolic link is followed only out of a
directory into which nobody else can have put it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from restante.directory import Account
from restante.errors import TemporaryError
from restante.mda.durable import Disk

PASSABLE = 0o711
"""The mode of directories above homes: who knows a name may go on."""


class UnsafePlace(TemporaryError):
    """A file or directory, or the way to it, belongs to somebody else or cannot be trusted."""


def check_path(path: str) -> None:
    """Raise UnsafePlace where a path is not absolute, or leads upwards."""
    if not path.startswith("/"):
        raise UnsafePlace(f"{path!r} is not an absolute path")
    if ".." in path.split("/"):
        raise UnsafePlace(f"{path!r} leads upwards")


def components(path: str) -> Iterator[str]:
    """The names in an absolute path; raises UnsafePlace where it is none, or leads upwards."""
    check_path(path)
    return (name for name in path.split("/") if name not in ("", "."))


def is_trusted(directory: os.stat_result, uid: int = 0) -> bool:
    """Whether nobody but root, and ``uid``, can have put a symbolic link into the directory."""
    return directory.st_uid in (0, uid) and not directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def enter(disk: Disk, path: str, uid: int, *, make: bool = False) -> int:
    """A descriptor (O_PATH) of the directory at ``path``, for a process that has uid's rights.

    Links of root's and of ``uid``'s own are followed. ``make``: what is missing is made, the last
    of mode 0700, others passable. Raises UnsafePlace and OSError.
    """
    names = list(components(path))
    place = disk.open_path("/", None, follow=True)
    for number, name in enumerate(names, start=1):
        try:
            if make:
                _make(disk, place, name, path, uid, private=number == len(names))
            below = _step(disk, place, name, path, uid)
        finally:
            disk.close(place)
        place = below
    return place


def _step(disk: Disk, place: int, name: str, path: str, uid: int) -> int:
    try:
        return disk.open_path(name, place, follow=is_trusted(os.fstat(place), uid))
    except NotADirectoryError as error:
        raise UnsafePlace(
            f"{path}: {name} is not a directory, or a symbolic link where others could have put one"
        ) from error


def _make(disk: Disk, place: int, name: str, path: str, uid: int, *, private: bool) -> None:
    """Make a directory unless there is something of this name."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=place, follow_symlinks=False)
        return
    around = os.fstat(place).st_uid
    refused = UnsafePlace(
        f"{path}: {name} is missing, and uid {uid} may not make it in a directory of uid {around}"
    )
    if around not in (0, uid):
        raise refused
    try:
        if private:
            disk.make_directory(name, place, 0o700)
        else:
            make_passable(disk, name, place)
    except FileExistsError:
        return  # another process is here for the first time too
    except PermissionError as error:
        raise refused from error


def make_passable(disk: Disk, name: str, place: int) -> None:
    """A directory above homes, in which accounts of other uids may have theirs; raises OSError.

    Mode 0711, whatever the umask. Not for root, who might find another directory in its place.
    """
    disk.make_directory(name, place, PASSABLE)
    made = disk.open_directory(name, place)
    try:
        os.fchmod(made, PASSABLE)
    finally:
        disk.close(made)


def open_home(disk: Disk, account: Account) -> int:
    """A descriptor (O_PATH) of the account's home, made if it is missing, as by a Maildir delivery.

    Raises UnsafePlace where it belongs to another uid or anybody can write to it, and OSError.
    """
    home = enter(disk, account.home, account.uid, make=True)
    try:
        _check_home(account, os.fstat(home))
    except BaseException:
        disk.close(home)
        raise
    return home


def _check_home(account: Account, found: os.stat_result) -> None:
    if found.st_uid != account.uid:
        raise UnsafePlace(
            f"the home {account.home} belongs to uid {found.st_uid},"
            f" the account's uid is {account.uid}"
        )
    if found.st_mode & stat.S_IWOTH:
        raise UnsafePlace(f"the home {account.home} can be written by everybody")
