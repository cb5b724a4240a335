"""Finding, making and keeping open the Maildirs that mail is written to.

The home of a mailbox is under its owner's control, and this process may be
root: directories are entered one by one, and a symbolic link is followed only
where the directory that holds it is under nobody else's control.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass

from restante.mda import Delivery
from restante.mda.durable import Disk
from restante.mda.home import UnsafePlace, components, is_trusted

OPEN_MAILDIRS = 128
"""Maildirs that are kept open, two descriptors each."""
SETTLED_AFTER = 60.0
"""Seconds after which the kernel has written a new directory by itself (it takes some 35)."""
OWNERS_DIRECTORIES = 2
"""So many directories at the end of the path are the mailbox's own: its home and the Maildir."""


class UnsafeMaildir(UnsafePlace):
    """The Maildir, or the way to it, belongs to somebody else or cannot be trusted."""


@dataclass(slots=True)
class OpenMaildir:
    """The descriptors of a Maildir; they are good until the next call of ``Maildirs.get``."""

    tmp: int
    new: int
    new_identity: tuple[int, int, int]
    """Device, inode and owner of ``new``."""
    fresh: bool
    """It was made so lately that it may not be durable yet, by us or by another process."""

    @property
    def device(self) -> int:
        """The file system it lies on."""
        return self.new_identity[0]


class Maildirs:
    """Open Maildirs, the most recently used ones kept. Belongs to one thread."""

    def __init__(self, disk: Disk, capacity: int = OPEN_MAILDIRS) -> None:
        self._disk = disk
        self._capacity = capacity
        self._open: OrderedDict[tuple[str, int], OpenMaildir] = OrderedDict()

    def find(self, delivery: Delivery) -> OpenMaildir:
        """The Maildir, as it lies at its path now; made if it is missing.

        Raises OSError and UnsafeMaildir.
        """
        known = self._open.get((delivery.maildir, delivery.account.uid))
        if known is not None and not self._is_in_place(delivery, known):
            self.forget(delivery)
        return self.get(delivery)

    def get(self, delivery: Delivery) -> OpenMaildir:
        """The Maildir as ``find`` found it; raises OSError and UnsafeMaildir."""
        key = (delivery.maildir, delivery.account.uid)
        maildir = self._open.get(key)
        if maildir is None:
            while len(self._open) >= self._capacity:
                self._close(self._open.popitem(last=False)[1])
            maildir = self._open[key] = _Walk(self._disk, delivery).open()
        self._open.move_to_end(key)
        return maildir

    def forget(self, delivery: Delivery) -> None:
        """Close a Maildir that was removed, moved or replaced."""
        maildir = self._open.pop((delivery.maildir, delivery.account.uid), None)
        if maildir is not None:
            self._close(maildir)

    def settle(self, device: int) -> None:
        """Note that everything on this file system is durable."""
        for maildir in self._open.values():
            if maildir.device == device:
                maildir.fresh = False

    def close(self) -> None:
        """Give all descriptors back."""
        while self._open:
            self._close(self._open.popitem()[1])

    def _is_in_place(self, delivery: Delivery, maildir: OpenMaildir) -> bool:
        try:
            found = os.stat(delivery.maildir + "/new")
        except OSError:
            return False
        return (found.st_dev, found.st_ino, found.st_uid) == maildir.new_identity

    def _close(self, maildir: OpenMaildir) -> None:
        self._disk.close(maildir.tmp)
        self._disk.close(maildir.new)


class _Walk:
    """One way from the root directory to a Maildir, making what is missing."""

    def __init__(self, disk: Disk, delivery: Delivery) -> None:
        self._disk = disk
        self._delivery = delivery
        self._self = os.geteuid()
        self._made = False

    def open(self) -> OpenMaildir:
        place = self._descend()
        try:
            self._check_owner(place, "")
            held = self._open_parts(place)
            fresh = self._made or abs(time.time() - os.fstat(place).st_mtime) < SETTLED_AFTER
        finally:
            self._disk.close(place)
        return OpenMaildir(held[0], held[1], _identity(held[1]), fresh)

    def _descend(self) -> int:
        names = list(components(self._delivery.maildir))
        place = self._disk.open_path("/", None, follow=True)
        for number, name in enumerate(names):
            own = len(names) - number <= OWNERS_DIRECTORIES
            try:
                below = self._enter(place, name, own)
            finally:
                self._disk.close(place)
            place = below
        return place

    def _enter(self, place: int, name: str, own: bool) -> int:
        around = os.fstat(place)
        follow = self._self != 0 or is_trusted(around)
        try:
            below = self._disk.open_path(name, place, follow=follow)
        except FileNotFoundError:
            self._make(place, name, own or around.st_uid == self._delivery.account.uid)
            return self._disk.open_path(name, place, follow=False)
        except NotADirectoryError as error:
            raise UnsafeMaildir(
                f"{self._delivery.maildir}: {name} is not a directory,"
                " or a symbolic link where others could have put one"
            ) from error
        except PermissionError as error:
            raise UnsafeMaildir(
                f"{self._delivery.maildir}: uid {self._self} may not pass the directory in which"
                f" {name} lies; that one belongs to uid {around.st_uid}, the account's uid is"
                f" {self._delivery.account.uid}"
            ) from error
        if own and self._was_left_behind(below):
            self._give_away(place, name)
        return below

    def _make(self, place: int, name: str, own: bool) -> None:
        """A directory of the mailbox (0700), or one above its home (0755, this process's)."""
        around = os.fstat(place).st_uid
        if around not in (0, self._self, self._delivery.account.uid):
            raise UnsafeMaildir(
                f"{self._delivery.maildir}: {name} is missing, in a directory of uid {around}"
            )
        try:
            self._disk.make_directory(name, place, 0o700 if own else 0o755)
        except FileExistsError:
            return  # another process delivers here for the first time too
        except PermissionError as error:
            raise UnsafeMaildir(
                f"{self._delivery.maildir}: {name} is missing, and uid {self._self} may not make it"
                f" in a directory of uid {around}"
            ) from error
        finally:
            self._made = True
        if own and self._self == 0:
            self._give_away(place, name)

    def _was_left_behind(self, directory: int) -> bool:
        """Whether this is what ``_make`` leaves if it is killed before it gives it away."""
        found = os.fstat(directory)
        return self._self == found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700

    def _give_away(self, place: int, name: str) -> None:
        """Chown what was just made, unless somebody has put another directory in its place."""
        fd = self._disk.open_directory(name, place)
        try:
            owner = os.fstat(fd).st_uid
            if owner == self._delivery.account.uid:
                return  # another process made it too, and was faster
            if owner != self._self or os.listdir(fd):
                raise UnsafeMaildir(f"{self._delivery.maildir}: {name} was replaced in the making")
            self._disk.chown(fd, self._delivery.account.uid, self._delivery.account.gid)
        finally:
            self._disk.close(fd)

    def _open_parts(self, place: int) -> list[int]:
        held: list[int] = []
        try:
            for name in ("tmp", "new", "cur"):
                held.append(self._open_part(place, name))
                self._check_owner(held[-1], f"/{name}")
        except BaseException:
            for fd in held:
                self._disk.close(fd)
            raise
        self._disk.close(held.pop())
        return held

    def _open_part(self, place: int, name: str) -> int:
        try:
            part = self._disk.open_directory(name, place)
        except FileNotFoundError:
            self._make(place, name, own=True)
            return self._disk.open_directory(name, place)
        if self._was_left_behind(part):
            self._give_away(place, name)
        return part

    def _check_owner(self, fd: int, part: str) -> None:
        owner = os.fstat(fd).st_uid
        if owner != self._delivery.account.uid:
            raise UnsafeMaildir(
                f"{self._delivery.maildir}{part} belongs to uid {owner},"
                f" the account's uid is {self._delivery.account.uid}"
            )


def list_messages(disk: Disk, maildir: OpenMaildir, part: str) -> list[str]:
    """The file names in ``new`` or ``cur``, all of them durable; raises OSError."""
    fd = disk.open_directory(f"../{part}", maildir.new)
    try:
        names = os.listdir(fd)
        disk.fsync(fd)
        return names
    finally:
        disk.close(fd)


def _identity(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_uid
