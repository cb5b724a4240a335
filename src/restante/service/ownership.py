"""What the workers write belongs to their user, also where root has copied or restored it.

Done by root, before any worker runs: at ``init``, and at each start. What a directory holds
may have been put there by somebody who hopes for root's help, so nothing is changed by its
name: every file is held by a descriptor first, no symbolic link is followed, no other file
system is entered, and a file that has a name elsewhere too (a hard link) is left as it is.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from restante.config import Settings
from restante.config.load import FILE_NAME
from restante.directory.engine import SQLiteLocation, parse_url
from restante.drop import DropPaths
from restante.errors import OperatorError, reason_of
from restante.service.user import ServerUser

RUN = "run"
"""Below the instance: what is of no worth when no server runs."""
PRIVATE, PASSABLE = 0o700, 0o711
_GROUP_READS = 0o640
"""The mode of a database of accounts: password hashes are nobody else's to read."""
_WRITE_AHEAD = (18, b"\x02\x02")
"""Where a database's file says that it has a write-ahead log (sqlite.org/fileformat.html §1.3)."""


def hand_over(settings: Settings, user: ServerUser) -> None:
    """See to it that ``user`` can use all that workers need; raises OperatorError.

    Trees inside the instance are made if they are missing; the queue's may lie elsewhere, and
    must then be the user's already. The owner of a tree's top changes last: it says that all of
    the tree was handed over.
    """
    _check_settings(settings.directory, user)
    queue = settings.path(settings.queue.root)
    for tree in (os.path.join(settings.directory, RUN), DropPaths.of(settings.directory).root):
        _take_care(tree, settings, user)
    _take_care(queue, settings, user)
    _hand_over_mail_root(settings)
    _show_database(settings, user)
    with user.rights():
        _check_reach(settings.directory, user)
        _check_reach(queue, user)


def _check_settings(directory: str, user: ServerUser) -> None:
    """Root obeys restante.toml: raise OperatorError if the server's user can change it."""
    path = os.path.join(directory, FILE_NAME)
    if user.can_change(path):
        raise OperatorError(
            f"the server's user {user.name} can change or replace {path}, which root obeys; "
            f"run: chown root: {directory} {path} && chmod go-w {directory} {path}"
        )


def _take_care(tree: str, settings: Settings, user: ServerUser) -> None:
    inside = _is_inside(tree, settings.directory)
    try:
        if inside:
            _make_directory(tree)
            give(tree, user.uid, user.gid)
            return
        owner = os.stat(tree).st_uid
    except OSError as error:
        raise OperatorError(f"{tree} cannot be used: {error.strerror}") from error
    if owner != user.uid:
        raise OperatorError(
            f"{tree} belongs to uid {owner} and lies outside of the instance; give it to the "
            f"server's user: chown -R --no-dereference {user.name}: {tree}"
        )


def give(tree: str, uid: int, gid: int) -> None:
    """Give a tree to ``uid`` and ``gid``, but for what others than its owner and root put there.

    If its top is that user's already, only directories that root has put right below it since
    then, as who restores a queue from elsewhere does. No plain files: one of root's may have come
    from another place that the user can move or link files from, to be read. Raises OSError.
    """
    top = _open_directory(tree, None)
    try:
        if os.fstat(top).st_uid != uid:
            _give_all(top, uid, gid)
            return
        for name in os.listdir(top):
            # What root may not look at is somebody's own file system (FUSE).
            with contextlib.suppress(FileNotFoundError, PermissionError):
                found = os.stat(name, dir_fd=top, follow_symlinks=False)
                here = found.st_dev == os.fstat(top).st_dev
                if found.st_uid == 0 and here and stat.S_ISDIR(found.st_mode):
                    _give_below(name, top, uid, gid)
    finally:
        os.close(top)


def _give_below(name: str, place: int, uid: int, gid: int) -> None:
    directory = _open_directory(name, place)
    try:
        _give_all(directory, uid, gid)
    finally:
        os.close(directory)


def _give_all(top: int, uid: int, gid: int) -> None:
    former = os.fstat(top)
    names: Counter[int] = Counter(found.st_ino for _, found in _below(top, former.st_dev))
    for descriptor, found in _below(top, former.st_dev):
        # A file all of whose names are in here is nobody else's.
        own = stat.S_ISDIR(found.st_mode) or names[found.st_ino] == found.st_nlink
        if own and found.st_uid in (0, former.st_uid):
            os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
    os.fchown(top, uid, gid)


def _open_directory(name: str, place: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=place)


def _below(top: int, device: int) -> Iterator[tuple[int, os.stat_result]]:
    """All in a tree but symbolic links: a descriptor that is good until the next step, and what
    it is."""
    for _, directories, files, place in os.fwalk(".", dir_fd=top):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError), _held(name, place) as descriptor:
                found = os.fstat(descriptor)
                if found.st_dev == device and not stat.S_ISLNK(found.st_mode):
                    yield descriptor, found


@contextlib.contextmanager
def _held(name: str, place: int) -> Iterator[int]:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_inside(path: str, directory: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(directory) + "/")


def _make_directory(path: str) -> None:
    """With what leads to it, durably enough: it is empty, and made again if it is missing."""
    if os.path.lexists(path):
        return
    parent = os.path.dirname(path)
    if not os.path.lexists(parent):
        _make_directory(parent)
        os.chmod(parent, PASSABLE)
    os.mkdir(path, PRIVATE)


def _hand_over_mail_root(settings: Settings) -> None:
    """Homes of new accounts are made by these accounts' own user, in directories of its own.

    Only what root made for it: the root of the homes and a directory for each domain.
    """
    root = settings.path(settings.mail.root)
    if not settings.mail.user or not _is_inside(root, settings.directory):
        return
    try:
        owner = pwd.getpwnam(settings.mail.user)
        with contextlib.suppress(FileNotFoundError):
            _give_directories(root, owner.pw_uid, owner.pw_gid)
    except KeyError:
        return  # who adds an account hears of it
    except OSError as error:
        raise OperatorError(f"{root} cannot be handed over: {error.strerror}") from error


def _give_directories(root: str, uid: int, gid: int) -> None:
    top = _open_directory(root, None)
    try:
        former = os.fstat(top)
        if former.st_uid != 0:
            return
        for name in os.listdir(top):
            with _held(name, top) as descriptor:
                found = os.fstat(descriptor)
                roots = found.st_uid == 0 and found.st_dev == former.st_dev
                if roots and stat.S_ISDIR(found.st_mode):
                    os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
        os.fchown(top, uid, gid)
    finally:
        os.close(top)


def _show_database(settings: Settings, user: ServerUser) -> None:
    """The workers read an SQLite database of accounts, root alone writes it, and that is all.

    So nobody who took over a worker can make accounts. With a write-ahead log readers would
    have to write too, next to the file: it goes back to SQLite's usual journal. A database
    that does not belong to root is its owner's to arrange.
    """
    location = parse_url(settings.database.url, settings.directory)
    if not isinstance(location, SQLiteLocation):
        return
    try:
        file = os.open(location.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # the workers say that it is away, until it is there
    try:
        _show_file(file, location.path, user.gid)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(
            f"{location.path} cannot be shown to {user.name}: {reason_of(error)}"
        ) from error
    finally:
        os.close(file)


def _show_file(file: int, path: str, gid: int) -> None:
    found = os.fstat(file)
    if found.st_uid != 0 or found.st_nlink != 1 or not stat.S_ISREG(found.st_mode):
        return
    if found.st_gid != gid:
        os.fchown(file, 0, gid)
    if stat.S_IMODE(found.st_mode) != _GROUP_READS:
        os.fchmod(file, _GROUP_READS)
    place, mark = _WRITE_AHEAD
    if os.pread(file, len(mark), place) == mark or os.path.exists(f"{path}-journal"):
        _settle_journal(path)


def _settle_journal(path: str) -> None:
    """Undo what a command that was killed left half done, and change to a rollback journal."""
    with contextlib.closing(sqlite3.connect(f"file://{quote(path)}?mode=rw", uri=True)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("SELECT count(*) FROM sqlite_schema")


def _check_reach(path: str, user: ServerUser) -> None:
    """With the user's rights: raise OperatorError where a directory on the way is closed."""
    for directory in (*reversed(Path(path).parents), Path(path)):
        try:
            os.stat(os.path.join(directory, "."))
        except PermissionError:
            raise OperatorError(
                f"the server's user {user.name} cannot pass {directory}; move the instance to "
                f"where others may pass, or run: chmod o+x {directory}"
            ) from None
        except OSError:
            return  # whoever needs it says what is wrong
