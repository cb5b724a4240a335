"""Who the server is, where root has started it: the user that its workers become."""

from __future__ import annotations

import ctypes
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

from restante.config import Settings
from restante.config.load import FILE_NAME
from restante.drop import DropPaths
from restante.errors import OperatorError
from restante.paths import directories_to, has_acl
from restante.tls.files import HandedFiles, open_pem

DEFAULT_USERS = ("restante", "nobody")
"""Whom ``server.user`` means when it is empty: the first of them that the system has."""

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user whom workers run as and who owns what they write; never root."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = field(compare=False)
    """The user's groups, the primary one among them: in another one it is the same user yet."""

    def become(self) -> None:
        """Be this user from now on, for ever; raises OperatorError unless the kernel says so.

        Other processes of the same user can neither trace this one nor read its memory
        (PR_SET_DUMPABLE), and no program that it starts gains rights (PR_SET_NO_NEW_PRIVS).
        """
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise OperatorError(f"this process cannot become {self.name}: {error.strerror}") from (
                error
            )
        for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
            if _libc.prctl(option, value, 0, 0, 0) != 0:
                raise OperatorError(f"prctl({option}): {os.strerror(ctypes.get_errno())}")
        self._verify()

    def _verify(self) -> None:
        ids = (os.getresuid(), os.getresgid(), set(os.getgroups()))
        if ids != ((self.uid,) * 3, (self.gid,) * 3, set(self.groups)) or _can_be_root():
            raise OperatorError(f"this process did not become {self.name} for good")

    def decides(self, path: str) -> bool:
        """Whether this user may have put what lies at a path, or what a link to it says."""
        try:
            return any(map(self._can_write_to, directories_to(path)))
        except OSError:
            return True

    def can_write(self, path: str) -> bool:
        """Whether this user can write to what is there, or allow it."""
        with suppress(FileNotFoundError):
            return self._can_write_to(path)
        return False

    def can_change(self, path: str) -> bool:
        """Whether this user can write to what is there, allow it, or put something else there."""
        return self.decides(path) or self.can_write(path)

    def _can_write_to(self, path: str) -> bool:
        found = os.stat(path)
        if found.st_uid == self.uid or found.st_mode & stat.S_IWOTH:
            return True
        by_group = bool(found.st_mode & stat.S_IWGRP)
        return by_group and (found.st_gid in self.groups or has_acl(path))

    @contextmanager
    def rights(self) -> Iterator[None]:
        """Work with this user's rights, in a root process of one thread, and root's again after.

        For files in directories that belong to the user: what lies there may be a trap for root.
        """
        groups = os.getgroups()
        try:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def open_pem_for(user: ServerUser, path: str) -> int:
    """As ``open_pem``, by root for the server's user: with root's rights unless the user decides
    what lies there, who could have put a link to any file of root's."""
    with user.rights() if user.decides(path) else nullcontext():
        return open_pem(path)


def handed_files(paths: Iterable[str], user: ServerUser) -> HandedFiles:
    """Certificates and keys, read by root for a process that is to be the server's user."""
    return HandedFiles.opened(paths, partial(open_pem_for, user))


def server_user(settings: Settings) -> ServerUser | None:
    """Whom the workers become: None where this process is not root, and they stay who they are.

    Raises OperatorError if there is no such user, or if it is root.
    """
    return _named_user(settings) if os.geteuid() == 0 else None


def _named_user(settings: Settings) -> ServerUser:
    entry = _entry(settings.server.user)
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        raise OperatorError(
            f"server.user: {entry.pw_name!r} has root's uid or gid; name an unprivileged user"
        )
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    if 0 in groups:
        raise OperatorError(f"server.user: {entry.pw_name!r} is in root's group; take it out")
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)


def starting_uid(settings: Settings) -> int:
    """The uid of who starts the server, whoever asks: root's, or that of the instance's own user.

    Root's server refuses an instance whose restante.toml the server's user could change, and gives
    the drop directory to that user; so whose that is starts it, if that user could. This process
    where neither is known yet.
    """
    try:
        drop = os.stat(DropPaths.of(settings.directory).root)
    except OSError:
        return os.geteuid()
    could = _owner_of(drop).can_change(os.path.join(settings.directory, FILE_NAME))
    return drop.st_uid if could else 0


def starters_rights(settings: Settings) -> AbstractContextManager[None]:
    """What is open to who starts the server is to this process, if that or root runs it."""
    if os.geteuid() != 0 or starting_uid(settings) == 0:
        return nullcontext()
    return _owner_of(os.stat(DropPaths.of(settings.directory).root)).rights()


def _owner_of(drop: os.stat_result) -> ServerUser:
    """Its group is one of the user's: the user, or root for it, has made it."""
    try:
        entry = pwd.getpwuid(drop.st_uid)
    except KeyError:  # as in containers
        return ServerUser(f"uid {drop.st_uid}", drop.st_uid, drop.st_gid, (drop.st_gid,))
    groups = {drop.st_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(sorted(groups)))


def serving_uid(settings: Settings) -> int:
    """The uid of those that serve: of workers, or of who starts the server where that is not root.

    Raises OperatorError as ``server_user``.
    """
    return starting_uid(settings) or _named_user(settings).uid


def is_user(name: str) -> bool:
    """Whether this system has a user of that name."""
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _entry(name: str) -> pwd.struct_passwd:
    for candidate in (name,) if name else DEFAULT_USERS:
        try:
            return pwd.getpwnam(candidate)
        except KeyError:
            continue
    if name:
        raise OperatorError(f"server.user: there is no user {name!r} on this system")
    raise OperatorError(
        "server.user is empty, and the system has neither of "
        f"{' and '.join(DEFAULT_USERS)}; make one: useradd --system restante"
    )


def _can_be_root() -> bool:
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        return False
    return True
