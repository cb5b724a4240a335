"""What ``check`` says of the directories that mail, queues and the log lie in."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from restante.cli.check.findings import Findings
from restante.cli.check.reach import answers
from restante.cli.homes import mail_owner
from restante.cli.output import human_size
from restante.config.tree import Settings
from restante.errors import OperatorError
from restante.mda.home import is_trusted
from restante.queue.room import is_full, try_room
from restante.service.user import ServerUser, starters_rights, starting_uid

MINIMUM_SPACE = 1 << 20
"""Octets of a file system with which it counts as full."""
_DISCONNECTED = (errno.ENOTCONN, errno.ESHUTDOWN)
"""What FUSE says whose process is gone, or has no servers, and ceph-fuse that was evicted."""
FEW = 10
"""Directories of which one complaint tells at the most."""


def examine_places(settings: Settings, findings: Findings) -> None:
    """Each is there, has space, and can be used by whoever works in it."""
    if settings.control is not None and settings.control.alone:
        return  # the server makes what it needs
    for name, path in (("mail.root", settings.mail.root), ("queue.root", settings.queue.root)):
        problem = _unusable(settings.path(path), settings)
        if problem:
            findings.problems.append(f"{name}: {problem}")
        else:
            _examine_space(name, settings.path(path), settings, findings)
    findings.problems += _closed_to_owner(settings)
    if settings.log.target not in ("stderr", "syslog"):
        problem = _unusable(os.path.dirname(settings.path(settings.log.target)), settings)
        if problem:
            findings.problems.append(f"log.target: {problem}")


def silent_places(settings: Settings, findings: Findings) -> set[str]:
    """The settings of directories whose file systems do not answer."""
    silent = set()
    for name, path in (("mail.root", settings.mail.root), ("queue.root", settings.queue.root)):
        if not answers(settings.path(path)):
            findings.problems.append(
                f"{name}: the file system of {settings.path(path)} does not answer; nothing else "
                "is said of it"
            )
            silent.add(name)
    return silent


def _unusable(path: str, settings: Settings) -> str:
    """Why a directory cannot be used by who starts the server; empty if it can."""
    with starters_rights(settings):
        return _objection(path)


def _objection(path: str) -> str:
    """Why this process cannot use a directory; empty if it can."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no directory {path}; make it with: mkdir -p {path}"
    except OSError as error:
        return f"{path} cannot be reached: {error.strerror}{_remedy(error)}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a directory"
    try:
        is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:  # where stat(2) answers from memory
        return _failing(path, str(error.strerror))
    if is_read_only:
        return _failing(path, "its file system is read-only")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return f"{path} cannot be read and written by {name_of(os.geteuid())}"
    return ""


def _failing(path: str, why: str) -> str:
    return f"nothing can be written in {path}: {why}; dmesg may tell of a disk that fails"


def _remedy(error: OSError) -> str:
    if error.errno not in _DISCONNECTED:
        return ""
    return (
        " (FUSE: the process that serves it has ended, or its servers are away, or have shut it "
        "out); unless it comes back by itself, unmount it with umount --lazy, and mount it again"
    )


def _examine_space(name: str, path: str, settings: Settings, findings: Findings) -> None:
    try:
        system = os.statvfs(path)
    except OSError:
        return  # named as a problem of the directory already
    free = system.f_bavail * system.f_frsize
    if free < MINIMUM_SPACE:
        findings.problems.append(f"{name}: the file system of {path} is full; mail is refused")
    elif system.f_files and not system.f_favail:
        findings.problems.append(
            f"{name}: the file system of {path} has no inode left (df -i), whatever room it has; "
            "mail is refused until there are fewer files"
        )
    elif refusal := _refusal(path, settings):
        findings.problems.append(f"{name}: {refusal}")
    elif free < settings.smtp.databytes:
        findings.advice.append(
            f"{name}: the file system of {path} has {human_size(free)}B left, less than the "
            "largest message that smtp.databytes allows"
        )


def _refusal(path: str, settings: Settings) -> str:
    """What the disk says to whoever starts the server and writes there; empty if nothing.

    Nothing else tells of some that fail: Linux lets nobody write, and shows it nowhere.
    """
    try:
        with starters_rights(settings):
            try_room(path)
    except OSError as error:
        if is_full(error):
            return f"a quota leaves no room in {path}; mail is refused"
        return _failing(path, error.strerror or str(error))
    return ""


def name_of(uid: int) -> str:
    """A user, by name if there is one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _closed_to_owner(settings: Settings) -> Iterator[str]:
    """Why homes of new accounts cannot be made, where root starts the server and others do it."""
    root = settings.path(settings.mail.root)
    if os.geteuid() != 0 or starting_uid(settings) != 0 or not os.path.isdir(root):
        return
    try:
        owner = mail_owner(settings)
    except OperatorError:
        return  # named as a problem of mail.user
    user = ServerUser(settings.mail.user, owner.uid, owner.gid, (owner.gid,))
    closed = _first_closed(root, user)
    if closed:
        yield (
            f"mail.root: {user.name} (mail.user), to whom new accounts belong, cannot pass "
            f"{closed}; run: chmod o+x {closed}"
        )
    foreign = _foreign(root, user)
    if foreign:
        yield (
            f"mail.root: {foreign[0]} is neither root's alone nor {user.name}'s (mail.user), to "
            "whom new accounts belong: their homes are not made there; "
            f"run: chown --no-dereference {user.name}: {' '.join(foreign)}"
        )


def _first_closed(root: str, user: ServerUser) -> str:
    with user.rights():
        for directory in (*reversed(Path(root).parents), Path(root)):
            if not os.access(directory, os.X_OK, effective_ids=True):
                return str(directory)
    return ""


def _foreign(root: str, user: ServerUser) -> list[str]:
    """The root of the homes and the directories of domains in it, a few of them."""
    found = [root] if _is_foreign(os.stat(root), user) else []
    with os.scandir(root) as entries:
        for entry in entries:
            below = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(below.st_mode) and _is_foreign(below, user):
                found.append(entry.path)
            if len(found) == FEW:
                break
    return found


def _is_foreign(directory: os.stat_result, user: ServerUser) -> bool:
    return directory.st_uid != user.uid and not is_trusted(directory)
