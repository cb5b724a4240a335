"""Making the home of an account where only root may: in a process of root that does nothing else.

The account is a row, and whoever may write rows is not to become root by it: a directory of
their own below /etc would be enough. So a home is made only below directories that the settings
name, and only in a directory that nobody can write to but root, or the user whom the root of all
homes was handed over to. That one can move about what lies there; what is given away is
therefore looked at once more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from restante.helper.messages import Owner
from restante.mda.durable import Disk, LocalDisk
from restante.mda.home import UnsafePlace, components, is_trusted

_IN_USE = (errno.ENOTEMPTY, errno.EEXIST)
"""What rename(2) says of a directory in its way that is not empty."""


@dataclass(frozen=True, slots=True)
class HomeRules:
    """Where homes are made."""

    roots: Sequence[str] = ()
    """Directories below which they may lie."""
    keeper: int = 0
    """The uid in whose directories they are made as in root's (mail.user)."""


def make_home(home: str, owner: Owner, rules: HomeRules, disk: Disk | None = None) -> None:
    """Make what is missing of ``home``, its last directory ``owner``'s, mode 0700, durably.

    It is done, too, if it is there already and its owner's. Raises UnsafePlace and OSError.
    """
    _check_roots(home, rules.roots)
    _Making(disk or LocalDisk(), home, owner, rules.keeper).make()


def _check_roots(home: str, roots: Sequence[str]) -> None:
    way = list(components(home))
    for root in roots:
        above = list(components(root))
        if above == way[: len(above)] and len(way) > len(above):
            return
    raise UnsafePlace(
        f"{home} is missing, and lies below none of mail.root and mail.home_roots: "
        f"{', '.join(roots)}"
    )


class _Making:
    """The way to one home, from the root directory on."""

    def __init__(self, disk: Disk, home: str, owner: Owner, keeper: int) -> None:
        self._disk = disk
        self._home = home
        self._owner = owner
        self._keeper = keeper

    def make(self) -> None:
        """See ``make_home``."""
        *above, last = components(self._home)
        place = self._disk.open_path("/", None, follow=True)
        try:
            for name in above:
                below = self._enter(place, name)
                self._disk.close(place)
                place = below
            self._make_last(place, last)
        finally:
            self._disk.close(place)

    def _enter(self, place: int, name: str) -> int:
        try:
            return self._open(place, name)
        except FileNotFoundError:
            self._check_closed(place, name)
        with contextlib.suppress(FileExistsError):
            self._disk.make_directory(name, place, 0o755)
        made = self._open(place, name)
        _sync(self._disk, place)
        return made

    def _open(self, place: int, name: str) -> int:
        """Symbolic links are root's own, or none."""
        try:
            return self._disk.open_path(name, place, follow=is_trusted(os.fstat(place)))
        except NotADirectoryError as error:
            raise UnsafePlace(
                f"{self._home}: {name} is not a directory, or a symbolic link where others than "
                "root could have put one"
            ) from error

    def _check_closed(self, place: int, name: str) -> None:
        found = os.fstat(place)
        if not is_trusted(found, self._keeper):
            raise UnsafePlace(
                f"{self._home}: {name} is missing, in a directory of uid {found.st_uid} and mode "
                f"{stat.S_IMODE(found.st_mode):04o}: root makes homes only where nobody but root "
                "and mail.user can write"
            )

    def _make_last(self, place: int, name: str) -> None:
        """Under another name until it is its owner's: a crash leaves no home of root's."""
        if self._is_there(place, name):
            return
        self._check_closed(place, name)
        passing = f".restante-home-{secrets.token_hex(4)}"  # other machines have the same pids
        self._disk.make_directory(passing, place, 0o700)
        try:
            made = self._disk.open_directory(passing, place)
            try:
                self._check_new(made)
                self._disk.chown(made, self._owner.uid, self._owner.gid)
                self._disk.fsync(made)
            finally:
                self._disk.close(made)
            self._publish(place, passing, name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(passing, dir_fd=place)
            raise
        _sync(self._disk, place)

    def _publish(self, place: int, passing: str, name: str) -> None:
        """Unless another machine, to which an account's second message came, has been faster: it
        may have begun to deliver there. One that is faster only now loses an empty home to this
        one, and puts its message off if it has opened that already."""
        try:
            if not self._is_there(place, name):
                os.rename(passing, name, src_dir_fd=place, dst_dir_fd=place)
                return
        except OSError as error:
            if error.errno not in _IN_USE or not self._is_there(place, name):
                raise
        os.rmdir(passing, dir_fd=place)

    def _check_new(self, made: int) -> None:
        found = os.fstat(made)
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) != 0o700 or os.listdir(made):
            raise UnsafePlace(f"{self._home}: it was replaced in the making")

    def _is_there(self, place: int, name: str) -> bool:
        """Whether the owner has it already; raises UnsafePlace where it is something else."""
        try:
            found = os.stat(name, dir_fd=place, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if found.st_uid != self._owner.uid or not stat.S_ISDIR(found.st_mode):
            raise UnsafePlace(f"{self._home} is there, and belongs to uid {found.st_uid}")
        return True


def _sync(disk: Disk, place: int) -> None:
    """Make the names in a directory durable."""
    directory = disk.open_directory(".", place)
    try:
        disk.fsync(directory)
    finally:
        disk.close(directory)
