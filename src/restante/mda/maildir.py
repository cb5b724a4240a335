"""Finding, making and remembering the Maildirs that mail is written to.

The home of a mailbox is under its owner's control. A process that is the owner names files by
their whole paths: no link leads it to what the owner could not write anyhow. Root enters
directories one by one, follows a symbolic link only where the directory that holds it is under
nobody else's control, and keeps ``tmp`` and ``new`` open.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass

from restante.btrfs import is_whole
from restante.mda import Delivery
from restante.mda.durable import Disk
from restante.mda.home import UnsafePlace, check_path, components, is_trusted, make_passable
from restante.mda.names import DeliveryName
from restante.mda.unnamed import UnnamedFiles
from restante.records import record

OPEN_MAILDIRS = 128
"""Maildirs that root keeps open, two descriptors each."""
KNOWN_MAILDIRS = 4096
"""Maildirs that an owner remembers, without descriptors; some 700 octets each."""
SETTLED_AFTER = 60.0
"""Seconds after which the kernel has written a new directory by itself (it takes some 35)."""
LOOKS = 5
"""How often a directory is read that changes meanwhile."""
TICK = 0.02
"""Seconds within which two changes of a directory may have the same time, at most."""
PARTS = ("tmp", "new", "cur")
OWNERS_DIRECTORIES = 2
"""So many directories at the end of the path are the mailbox's own: its home and the Maildir."""


class UnsafeMaildir(UnsafePlace):
    """The Maildir, or the way to it, belongs to somebody else or cannot be trusted."""


@record
class Part:
    """``tmp`` or ``new``, as system calls are told of it."""

    fd: int | None
    """What names are relative to; None: to nothing."""
    path: str
    """From there; empty: it is the directory itself."""

    def entry(self, name: str) -> str:
        """A file in it."""
        return f"{self.path}/{name}" if self.path else name

    def create_unnamed(self, disk: Disk) -> int:
        """A file on its file system; raises OSError."""
        return disk.create_unnamed(self.path or ".", self.fd)

    def open(self, disk: Disk) -> int:
        """A descriptor of its own, for syncing and listing; raises OSError."""
        return disk.open_directory(self.path or ".", self.fd)

    def sync(self, disk: Disk) -> None:
        """Make its entries durable; raises OSError."""
        if not self.path and self.fd is not None:
            disk.fsync(self.fd)
            return
        fd = self.open(disk)
        try:
            disk.fsync(fd)
        finally:
            disk.close(fd)


@dataclass(slots=True)
class KnownMaildir:
    """How a Maildir is reached, until it is ``gone``."""

    tmp: Part
    new: Part
    device: int
    """On which ``new`` lies."""
    system: int
    """The file system of that (``Disk.file_system``)."""
    inode: int
    """Of ``new``."""
    owner: int
    """The uid to which ``new`` belongs."""
    fresh: bool
    """It was made so lately that it may not be durable yet, by us or by another process."""
    gone: bool = False
    """It is not remembered any more, and its descriptors are closed: ask ``Maildirs.get`` again."""


class Maildirs:
    """Maildirs, the most recently used ones remembered. Belongs to one thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self.unnamed = UnnamedFiles()
        self._disk = disk
        self._capacity = KNOWN_MAILDIRS if os.geteuid() else OPEN_MAILDIRS
        self._known: OrderedDict[tuple[str, int], KnownMaildir] = OrderedDict()
        self._fresh: list[KnownMaildir] = []
        """Those that are, and perhaps some that are remembered no more."""

    def find(self, delivery: Delivery) -> KnownMaildir:
        """The Maildir, as it lies at its path now; made if it is missing.

        Raises OSError and UnsafeMaildir.
        """
        known = self._known.get((delivery.maildir, delivery.account.uid))
        if known is not None and not self._is_in_place(delivery, known):
            self.forget(delivery)
        return self.get(delivery)

    def get(self, delivery: Delivery) -> KnownMaildir:
        """The Maildir as ``find`` found it; raises OSError and UnsafeMaildir."""
        key = (delivery.maildir, delivery.account.uid)
        maildir = self._known.get(key)
        if maildir is None:
            maildir = _glance(self._disk, delivery) or _Walk(self._disk, delivery).open()
            self._remember(key, maildir)
        self._known.move_to_end(key)
        return maildir

    def is_durable(self, delivery: Delivery) -> bool:
        """Whether, by all that is known of it, the Maildir is there and was made long ago."""
        key = (delivery.maildir, delivery.account.uid)
        maildir = self._known.get(key)
        if maildir is None:
            try:
                maildir = _glance(self._disk, delivery)
            except (OSError, UnsafePlace, ValueError):  # whoever delivers there is told
                return False
            if maildir is None:
                return False
            self._remember(key, maildir)
        return not maildir.fresh

    def forget(self, delivery: Delivery) -> None:
        """Close a Maildir that was removed, moved or replaced."""
        maildir = self._known.pop((delivery.maildir, delivery.account.uid), None)
        if maildir is not None:
            self._close(maildir)

    def settle(self, system: int) -> None:
        """Note that everything on this file system is durable."""
        for maildir in self._fresh:
            maildir.fresh = maildir.fresh and maildir.system != system
        self._fresh = [maildir for maildir in self._fresh if maildir.fresh]

    def settle_one(self, maildir: KnownMaildir) -> None:
        """Note that the Maildir is durable."""
        if maildir.fresh:
            maildir.fresh = False
            self._fresh = [each for each in self._fresh if each.fresh]

    def close(self) -> None:
        """Give all descriptors back."""
        while self._known:
            self._close(self._known.popitem()[1])

    def _remember(self, key: tuple[str, int], maildir: KnownMaildir) -> None:
        while len(self._known) >= self._capacity:
            self._close(self._known.popitem(last=False)[1])
        self._known[key] = maildir
        if maildir.fresh:
            self._fresh.append(maildir)

    def _is_in_place(self, delivery: Delivery, maildir: KnownMaildir) -> bool:
        try:
            found = os.stat(delivery.maildir + "/new")
        except OSError:
            return False
        return (found.st_dev, found.st_ino, found.st_uid) == (
            maildir.device,
            maildir.inode,
            maildir.owner,
        )

    def _close(self, maildir: KnownMaildir) -> None:
        maildir.gone = True
        for part in (maildir.tmp, maildir.new):
            if part.fd is not None:
                self._disk.close(part.fd)


def _glance(disk: Disk, delivery: Delivery) -> KnownMaildir | None:
    """The Maildir for a process that is its owner, if there is nothing to make or to object to.

    None: the walk finds out. Raises OSError, UnsafePlace, and ValueError where it is no path.
    """
    if os.geteuid() == 0:
        return None
    check_path(delivery.maildir)
    try:
        tmp, new, cur = [os.lstat(f"{delivery.maildir}/{name}") for name in PARTS]
        whole = os.stat(delivery.maildir)
    except OSError:
        return None
    for found in (tmp, new, cur, whole):
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != delivery.account.uid:
            return None
    parts = _named(delivery, "tmp"), _named(delivery, "new")
    return _known(disk, *parts, new, fresh=_is_young(whole))


def _known(disk: Disk, tmp: Part, new: Part, found: os.stat_result, *, fresh: bool) -> KnownMaildir:
    """``found``: of ``new``. Raises OSError."""
    device = found.st_dev
    return KnownMaildir(
        tmp, new, device, _system(disk, new, device), found.st_ino, found.st_uid, fresh
    )


def _system(disk: Disk, new: Part, device: int) -> int:
    """The file system of ``new``; as good as another one where nobody may look."""
    if is_whole(device):
        return device
    try:
        fd = new.open(disk)
    except PermissionError:
        return device
    try:
        return disk.file_system(fd)
    finally:
        disk.close(fd)


def _named(delivery: Delivery, part: str) -> Part:
    return Part(None, f"{delivery.maildir}/{part}")


def _is_young(maildir: os.stat_result) -> bool:
    return abs(time.time() - maildir.st_mtime) < SETTLED_AFTER


class _Walk:
    """One way from the root directory to a Maildir, making what is missing."""

    def __init__(self, disk: Disk, delivery: Delivery) -> None:
        self._disk = disk
        self._delivery = delivery
        self._home = os.path.normpath(delivery.account.home)
        self._self = os.geteuid()
        self._made = False

    def open(self) -> KnownMaildir:
        place = self._descend()
        try:
            self._check_owner(place, "")
            tmp, new = self._open_parts(place)
            try:
                known = self._known(place, tmp, new)
            except BaseException:
                self._disk.close(tmp)
                self._disk.close(new)
                raise
        finally:
            self._disk.close(place)
        if self._self != 0:
            self._disk.close(tmp)
            self._disk.close(new)
        return known

    def _known(self, place: int, tmp: int, new: int) -> KnownMaildir:
        """Root keeps the descriptors; others know the parts by their names."""
        found, is_fresh = os.fstat(new), self._made or _is_young(os.fstat(place))
        if self._self == 0:
            return _known(self._disk, Part(tmp, ""), Part(new, ""), found, fresh=is_fresh)
        named = _named(self._delivery, "tmp"), _named(self._delivery, "new")
        return _known(self._disk, *named, found, fresh=is_fresh)

    def _descend(self) -> int:
        names = list(components(self._delivery.maildir))
        place = self._disk.open_path("/", None, follow=True)
        way = ""
        for number, name in enumerate(names):
            own = len(names) - number <= OWNERS_DIRECTORIES
            way += f"/{name}"
            try:
                below = self._enter(place, name, own, above=self._home.startswith(f"{way}/"))
            finally:
                self._disk.close(place)
            place = below
        return place

    def _enter(self, place: int, name: str, own: bool, *, above: bool) -> int:
        around = os.fstat(place)
        follow = self._self != 0 or is_trusted(around)
        try:
            below = self._disk.open_path(name, place, follow=follow)
        except FileNotFoundError:
            own = own or around.st_uid == self._delivery.account.uid
            self._make(place, name, own, above=above)
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
        self._adopt(below, place, name, own=own)
        return below

    def _make(self, place: int, name: str, own: bool, *, above: bool = False) -> None:
        """A directory of the mailbox (0700), or one ``above`` its home, which others may pass."""
        around = os.fstat(place).st_uid
        if around not in (0, self._self, self._delivery.account.uid):
            raise UnsafeMaildir(
                f"{self._delivery.maildir}: {name} is missing, in a directory of uid {around}"
            )
        try:
            if above and self._self != 0:
                make_passable(self._disk, name, place)
            else:
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

    def _adopt(self, directory: int, place: int, name: str, *, own: bool) -> None:
        """Give an open directory away if that was left undone; it is closed where that fails."""
        try:
            if own and self._was_left_behind(directory):
                self._give_away(place, name)
        except BaseException:
            self._disk.close(directory)
            raise

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

    def _open_parts(self, place: int) -> tuple[int, int]:
        """``tmp`` and ``new``."""
        held: list[int] = []
        try:
            for name in PARTS:
                held.append(self._open_part(place, name))
                self._check_owner(held[-1], f"/{name}")
        except BaseException:
            for fd in held:
                self._disk.close(fd)
            raise
        tmp, new, cur = held
        self._disk.close(cur)
        return tmp, new

    def _open_part(self, place: int, name: str) -> int:
        try:
            part = self._disk.open_directory(name, place)
        except FileNotFoundError:
            self._make(place, name, own=True)
            return self._disk.open_directory(name, place)
        self._adopt(part, place, name, own=True)
        return part

    def _check_owner(self, fd: int, part: str) -> None:
        owner = os.fstat(fd).st_uid
        if owner != self._delivery.account.uid:
            raise UnsafeMaildir(
                f"{self._delivery.maildir}{part} belongs to uid {owner},"
                f" the account's uid is {self._delivery.account.uid}"
            )


def has_message(disk: Disk, maildir: KnownMaildir, part: str, name: DeliveryName) -> bool:
    """Whether a delivery lies in ``new`` or ``cur``, and then durably; raises OSError."""
    new = maildir.new
    fd = disk.open_directory(f"{new.path}/../{part}" if new.path else f"../{part}", new.fd)
    try:
        if not _is_listed(fd, name):
            return False  # most often, and nothing that was found need be synced
        disk.fsync(fd)
        return True
    finally:
        disk.close(fd)


def _is_listed(fd: int, name: DeliveryName) -> bool:
    """A reader that sets flags meanwhile renames files, and one reading may miss them."""
    for _ in range(LOOKS):
        began, before = time.time(), os.fstat(fd)
        if any(map(name.is_borne_by, os.listdir(fd))):
            return True
        unchanged = os.fstat(fd).st_ctime_ns == before.st_ctime_ns
        if unchanged and abs(began - before.st_ctime) >= TICK:
            break
    return False
