"""Whose rights a home is read with: the owner's, though the process may be root.

A home is under its owner's control, links and all. Root would follow them to anybody's
files, so the thread that works in a home takes the owner's file system uid and gid
(setfsuid(2) is a thread's own on Linux), and loses root's file capabilities with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator

from restante.directory import Account, objection_to_ids
from restante.errors import TemporaryError

_libc = ctypes.CDLL(None, use_errno=True)
_ASK = -1
"""No valid id: setfsuid(2) then changes nothing, and tells the present one all the same."""


class RightsRefused(TemporaryError):
    """The home is not entered with the rights that there are; the text says why."""


class Way:
    """The way to a home, with the rights that this process has anyhow."""

    __slots__ = ("home", "path")

    def __init__(self, home: str) -> None:
        self.home = home
        """What people call it."""
        self.path = home
        """Names it in system calls while the way is open."""

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """The rights for work in the home, in this thread."""
        yield

    def close(self) -> None:
        """Give back what is held."""


Ways = Callable[[Account], Way]
"""Opens the way to an account's home; raises FileNotFoundError and RightsRefused."""


def own_rights(account: Account) -> Way:
    """For a process that is its mailboxes' owner."""
    return Way(account.home)


def owners_rights(minimum_uid: int, minimum_gid: int) -> Ways:
    """For a process that may be root: accounts with smaller ids are refused then."""

    def way(account: Account) -> Way:
        if os.geteuid() != 0:
            return Way(account.home)
        objection = objection_to_ids(account.uid, account.gid, minimum_uid, minimum_gid)
        if objection:
            raise RightsRefused(f"the account's {objection}")
        return _OwnersWay(account)

    return way


class _OwnersWay(Way):
    """As the owner, who need not have the right to pass the directories above the home."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.home)
        self._uid = account.uid
        self._gid = account.gid
        self._descriptor = _open_home(account.home)
        direct = f"/proc/self/fd/{self._descriptor}"
        try:
            uid = os.fstat(self._descriptor).st_uid
        except OSError as error:
            self.close()
            raise RightsRefused(f"cannot enter {account.home}: {error.strerror}") from error
        # Only for what is the owner's: a link may have led to what others keep behind closed doors.
        if uid == account.uid and os.path.isdir(direct):
            self.path = direct

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """The owner's."""
        former = _libc.setfsgid(self._gid)
        _libc.setfsuid(self._uid)
        try:
            if (_libc.setfsuid(_ASK), _libc.setfsgid(_ASK)) != (self._uid, self._gid):
                raise RightsRefused(f"the rights of uid {self._uid} cannot be taken")
            yield
        finally:
            _libc.setfsuid(0)
            _libc.setfsgid(former)

    def close(self) -> None:
        """Close the home."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_home(home: str) -> int:
    try:
        return os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RightsRefused(f"cannot enter {home}: {error.strerror}") from error
