"""Adding one message to an mbox: all of it, durably, or nothing.

The process has the rights of the mbox's owner, and nobody else's. docs/internals.md says
what a crash at each step leaves.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from restante.envelope import CHUNK
from restante.errors import TemporaryError
from restante.mda import MboxDelivery
from restante.mda.durable import Disk, sync_way
from restante.mda.home import UnsafePlace, enter, is_trusted, open_home
from restante.mda.mbox_lock import DotLock, Held, release, take
from restante.mda.mboxrd import BLANK_LINE, Letter
from restante.mda.remains import Remains, look_for

ALONE_FOR = 0.1
"""Seconds for which no next attempt can have come first: a worker takes longer to begin."""
LOCK_PATIENCE = 30.0
"""Seconds to wait for others' locks, as qmail-local does."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two tries; each is twice as long as the one before."""

Pause = Callable[[float], bool]
"""Waits so many seconds; False: the process is to stop, and there is no more waiting."""


class LockedOut(TemporaryError):
    """Others have had the mbox locked all the time."""


@dataclass(frozen=True, slots=True)
class OpenMbox:
    """An mbox file, and the directory (O_PATH) and the name by which it lies there."""

    fd: int
    directory: int
    name: str

    @property
    def is_in_place(self) -> bool:
        """Whether this is still the file that bears the name."""
        try:
            found = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self.fd))

    def sync(self, disk: Disk) -> None:
        """Make its octets durable."""
        disk.fsync(self.fd)

    def sync_with_names(self, disk: Disk) -> None:
        """Make it durable, and the names by which it is reached."""
        if disk.syncs_all(self.fd):
            disk.syncfs(self.fd)
            return
        disk.fsync(self.fd)
        sync_way(disk, self.directory)

    def close(self, disk: Disk) -> None:
        """Give the descriptors back, and with them the locks of the kernel."""
        try:
            disk.close(self.fd)
        finally:
            disk.close(self.directory)


def append_letter(
    disk: Disk,
    letter: Letter,
    mbox: MboxDelivery,
    *,
    again: bool,
    asked_at: float,
    mark: bytes,
    pause: Pause,
) -> None:
    """Add the letter to the mbox, durably; raises UnsafePlace, LockedOut and OSError.

    After an exception the file is as it was. ``again``: if an earlier attempt was completed,
    its copy counts; if it was cut off and nothing has come after it, it is replaced. ``asked_at``
    (seconds, time.monotonic): whoever is held up, by locks or by a file server, may outlive who
    asked for it, and the next attempt may have come first. ``mark`` names this host in dot-locks.
    """
    disk.close(open_home(disk, mbox.account))
    with _locked(disk, mbox, mark, pause) as file:
        size = os.fstat(file.fd).st_size
        is_late = time.monotonic() - asked_at > ALONE_FOR
        remains = look_for(file.fd, size, letter) if again or is_late else Remains()
        if remains.torn_at is not None:
            disk.truncate(file.fd, remains.torn_at)
            size = remains.torn_at
        # The file and the home may be new, by this attempt or an earlier one: their names count.
        sync = file.sync_with_names if again or not size else file.sync
        if remains.is_whole:
            sync(disk)
        else:
            _write(disk, file.fd, size, letter, sync)


def _write(disk: Disk, fd: int, size: int, letter: Letter, sync: Callable[[Disk], None]) -> None:
    written = 0
    try:
        for block in _blocks(itertools.chain([_separator(fd, size)], letter.pieces())):
            written += len(block)
            disk.write(fd, [block])
        sync(disk)
    except Exception:
        # Should that fail as well, what is there looks like a message that breaks off.
        with contextlib.suppress(OSError):
            _take_back(disk, fd, size, written)
        raise


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in few pieces: a letter of ordinary size is a single write(2)."""
    gathered: list[bytes] = []
    for piece in pieces:
        gathered.append(piece)
        if sum(map(len, gathered)) >= CHUNK:
            yield b"".join(gathered)
            gathered.clear()
    yield b"".join(gathered)


def _separator(fd: int, size: int) -> bytes:
    """What is missing for an empty line before the next message."""
    end = os.pread(fd, len(BLANK_LINE), max(size - len(BLANK_LINE), 0))
    if not end or end == BLANK_LINE:
        return b""
    return b"\n" if end.endswith(b"\n") else BLANK_LINE


def _take_back(disk: Disk, fd: int, size: int, written: int) -> None:
    """Cut off what was written, unless a program that heeds no lock has added mail."""
    if os.fstat(fd).st_size <= size + written:
        disk.truncate(fd, size)
        disk.fsync(fd)


@contextlib.contextmanager
def _locked(disk: Disk, mbox: MboxDelivery, mark: bytes, pause: Pause) -> Iterator[OpenMbox]:
    """The mbox, open, and ours alone."""
    file, lock = _wait_for_lock(disk, mbox, mark, pause)
    try:
        yield file
    finally:
        try:
            if lock is not None:
                # One that cannot be removed is known for dead by the next who delivers here.
                with contextlib.suppress(OSError):
                    release(disk, file.directory, lock)
        finally:
            file.close(disk)


def _wait_for_lock(
    disk: Disk, mbox: MboxDelivery, mark: bytes, pause: Pause
) -> tuple[OpenMbox, DotLock | None]:
    deadline = time.monotonic() + LOCK_PATIENCE
    seconds = _FIRST_PAUSE
    while True:
        try:
            return _try_to_lock(disk, mbox, mark)
        except Held as held:
            if time.monotonic() + seconds > deadline or not pause(seconds):
                raise LockedOut(f"{mbox.path}: {held}") from held
        seconds = min(2 * seconds, _LONGEST_PAUSE)


def _try_to_lock(disk: Disk, mbox: MboxDelivery, mark: bytes) -> tuple[OpenMbox, DotLock | None]:
    file = _open(disk, mbox)
    try:
        lock = take(disk, file.fd, file.directory, file.name, mark)
        try:
            _check_in_place(file)
        except BaseException:
            if lock is not None:
                release(disk, file.directory, lock)
            raise
    except BaseException:
        file.close(disk)
        raise
    return file, lock


def _check_in_place(file: OpenMbox) -> None:
    if not file.is_in_place:
        raise Held("another program has replaced it just now")


def _open(disk: Disk, mbox: MboxDelivery) -> OpenMbox:
    """The file at the path, made if it is missing; raises UnsafePlace and OSError."""
    around, name = os.path.split(mbox.path)
    directory = enter(disk, around, mbox.account.uid)
    try:
        fd = _open_or_make(disk, mbox, directory, name)
    except BaseException:
        disk.close(directory)
        raise
    file = OpenMbox(fd, directory, name)
    try:
        _check(mbox, os.fstat(fd))
        return file if file.is_in_place else _behind_link(disk, mbox, file)
    except BaseException:
        file.close(disk)
        raise


def _open_or_make(disk: Disk, mbox: MboxDelivery, directory: int, name: str) -> int:
    follow = is_trusted(os.fstat(directory), mbox.account.uid)
    try:
        return disk.open_file(name, directory, new=False, follow=follow)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePlace(
                f"{mbox.path} is a symbolic link where others could have put one"
            ) from error
        raise
    try:
        return disk.open_file(name, directory, new=True, follow=False)
    except FileExistsError as error:
        # Made by another at this moment, or a link that leads nowhere.
        raise Held("another program makes it, or it is a link to a missing file") from error


def _check(mbox: MboxDelivery, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePlace(f"{mbox.path} is not a regular file")
    if found.st_uid != mbox.account.uid:
        raise UnsafePlace(
            f"{mbox.path} belongs to uid {found.st_uid}, the account's uid is {mbox.account.uid}"
        )
    if found.st_nlink > 1:
        raise UnsafePlace(f"{mbox.path} has other names (hard links), and may be another file")


def _behind_link(disk: Disk, mbox: MboxDelivery, file: OpenMbox) -> OpenMbox:
    """The file under its own name, beside which other programs put their dot-locks too."""
    real = os.readlink(f"/proc/self/fd/{file.fd}")
    around, name = os.path.split(real)
    directory = enter(disk, around, mbox.account.uid)
    disk.close(file.directory)
    return OpenMbox(file.fd, directory, name)
