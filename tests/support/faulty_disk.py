"""A disk that counts, fails on request, and forgets what was not made durable."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support.quiet_disk import QuietDisk


class PowerCut(BaseException):
    """Nothing runs after it: no handler for exceptions sees it."""


@dataclass
class FaultyDisk(QuietDisk):
    """The real disk, with trouble; it keeps the books of what is durable.

    ``cut_at`` is the number of the operation instead of which the power fails.
    ``faults`` maps an operation's name to what decides whether it fails: it is
    given the file name (or an empty string) and returns an errno or 0. A file without a name
    counts as created, and as renamed when it gets one.
    """

    cut_at: int = -1
    named_only: bool = False
    """As on file systems on which each file has a name."""
    in_order: bool = False
    """As on file systems on which octets that are written are not lost by what is named later, and
    a change is not written before those that came earlier."""
    singly: bool = False
    """As on file systems of which nothing is made durable by a sync of the whole."""
    following: bool = False
    """As on file systems on which a file is written with its name."""
    faults: dict[str, Callable[[str], int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter[str])
    _entries: list[tuple[str, str, str]] = field(default_factory=list)
    """Changes of directories that may be lost: what, the path before, the path after."""
    _data: dict[str, int] = field(default_factory=dict)
    """Files whose octets may be lost, with how many of them are safe."""
    _ordered: set[str] = field(default_factory=set)
    """Files whose octets are safe if the files are, which they are not yet."""
    _named: dict[str, str] = field(default_factory=dict)
    """What files without names are called by the system, and by what names they have got."""

    def __post_init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        """Files may be synced by several threads at the same time."""

    def _step(self, operation: str, name: str = "") -> None:
        if 0 <= self.cut_at <= self.counts.total():
            raise PowerCut(operation)
        self.counts[operation] += 1
        number = self.faults[operation](name) if operation in self.faults else 0
        if number:
            raise OSError(number, os.strerror(number), name)

    def make_directory(self, name: str, parent: int, mode: int) -> None:
        self._step("make_directory", name)
        super().make_directory(name, parent, mode)
        self._entries.append(("mkdir", "", _path(parent, name)))

    def create(self, name: str, parent: int | None) -> int:
        self._step("create", os.path.basename(name))
        fd = super().create(name, parent)
        self._entries.append(("create", "", _path(parent, name)))
        return fd

    def create_unnamed(self, directory: str, parent: int | None) -> int:
        if self.named_only:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._step("create")
        fd = super().create_unnamed(directory, parent)
        self._named.pop(_path(fd), None)
        return fd

    def link(self, fd: int, name: str, parent: int | None) -> None:
        self._step("rename", os.path.basename(name))
        before = _path(fd)
        super().link(fd, name, parent)
        after = _path(parent, name)
        self._entries.append(("create", "", after))
        # Without a journal, that somebody needs it must be written to the file itself as well.
        self._entries.append(("link", "", after))
        self._named[before] = after
        self._rename(before, after)

    def open_file(self, name: str, parent: int, *, new: bool, follow: bool) -> int:
        self._step("create" if new else "open_file", name)
        fd = super().open_file(name, parent, new=new, follow=follow)
        if new:
            self._entries.append(("create", "", _path(parent, name)))
        return fd

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        self._step("write", _path(fd))
        safe = os.fstat(fd).st_size
        super().write(fd, buffers)
        self._data.setdefault(_path(fd), safe)

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate", _path(fd))
        super().truncate(fd, size)

    def copy(self, source: str | int, fd: int, count: int) -> None:
        self._step("copy", _path(fd))
        self._data.setdefault(_path(fd), os.fstat(fd).st_size)
        super().copy(source, fd, count)

    def chown(self, fd: int, uid: int, gid: int) -> None:
        self._step("chown", _path(fd))
        super().chown(fd, uid, gid)

    def fsync(self, fd: int) -> None:
        with self._lock:
            self._fsync(fd)

    def _fsync(self, fd: int) -> None:
        self._step("fsync", _path(fd))
        super().fsync(fd)
        path = self._named.get(_path(fd), _path(fd))
        self._data.pop(path, None)
        self._ordered.discard(path)
        if self.in_order:
            self._commit(path)
        self._entries = [entry for entry in self._entries if not self._is_made_safe(entry, path)]

    def _commit(self, directory: str) -> None:
        """The last change of a directory, and all before it on its file system."""
        changes = [os.path.dirname(after) for _, _, after in self._entries]
        if directory in changes:
            end = len(changes) - changes[::-1].index(directory)
            device = _device(f"{directory}/")
            done = [each for each in self._entries[:end] if _device(each[2]) == device]
            self._ordered -= {after for _, _, after in done}
            self._entries = [each for each in self._entries if each not in done]

    def _is_made_safe(self, entry: tuple[str, str, str], synced: str) -> bool:
        kind, _, path = entry
        if kind == "link":
            return synced == path
        return synced == os.path.dirname(path) or (
            synced == path and kind == "create" and self.following
        )

    def syncs_all(self, fd: int) -> bool:
        return not self.singly

    def syncfs(self, fd: int) -> None:
        self._step("syncfs")
        if self.singly:
            return
        synced = os.fstat(fd).st_dev
        # Another thread may write meanwhile: only what is there now is safe then.
        files = [path for path in [*self._data, *self._ordered] if _device(path) == synced]
        entries = [entry for entry in list(self._entries) if _device(entry[2]) == synced]
        super().syncfs(fd)
        for path in files:
            self._data.pop(path, None)
            self._ordered.discard(path)
        for entry in entries:
            with suppress(ValueError):
                self._entries.remove(entry)

    def order_all(self, fd: int) -> None:
        self._step("order_all")
        if self.singly:
            return
        synced = os.fstat(fd).st_dev
        files = [path for path in list(self._data) if _device(path) == synced]
        super().order_all(fd)
        for path in files:
            self._put_in_order(path)

    def keeps_order(self, fd: int) -> bool:
        return self.in_order

    def names_follow(self, fd: int) -> bool:
        return self.following

    def begin_order(self, fd: int) -> None:
        self._step("begin_order", _path(fd))
        super().begin_order(fd)

    def order(self, fd: int) -> None:
        self._step("order", _path(fd))
        super().order(fd)
        if self.in_order:
            self._put_in_order(_path(fd))

    def _put_in_order(self, path: str) -> None:
        if self._data.pop(path, None) is not None:
            self._ordered.add(path)

    def rename(self, old: str, source: int | None, new: str, target: int | None) -> None:
        self._step("rename", os.path.basename(old))
        super().rename(old, source, new, target)
        before, after = _path(source, old), _path(target, new)
        self._entries.append(("rename", before, after))
        self._rename(before, after)

    def _rename(self, before: str, after: str) -> None:
        if before in self._data:
            self._data[after] = self._data.pop(before)
        if before in self._ordered:
            self._ordered.remove(before)
            self._ordered.add(after)

    def unlink(self, name: str, parent: int | None) -> None:
        self._step("unlink", os.path.basename(name))
        super().unlink(name, parent)
        self._data.pop(_path(parent, name), None)
        self._ordered.discard(_path(parent, name))

    def was_moved(self, before: str, after: str) -> None:
        """Somebody else has renamed a directory: what may be lost of it lies elsewhere now."""

        def now(path: str) -> str:
            return after + path.removeprefix(before) if path.startswith(f"{before}/") else path

        self._entries = [(kind, now(source), now(path)) for kind, source, path in self._entries]
        self._data = {now(path): safe for path, safe in self._data.items()}
        self._ordered = {now(path) for path in self._ordered}
        self._named = {now(name): now(path) for name, path in self._named.items()}

    def lose_power(self, *, entries_lost: bool) -> None:
        """Leave what the worst of disks would: octets lost, directory changes lost or kept.

        With those, files are lost that are in order, and not durable yet.
        """
        for path, safe in self._data.items():
            with suppress(FileNotFoundError):
                lost = os.path.getsize(path) - safe
                os.truncate(path, safe + max(lost, 0) // 2)
        for path in self._ordered if entries_lost else ():
            with suppress(FileNotFoundError):
                os.unlink(path)
        for kind, before, after in reversed(self._entries if entries_lost else []):
            with suppress(FileNotFoundError):
                _undo(kind, before, after)


def _undo(kind: str, before: str, after: str) -> None:
    if kind == "mkdir":
        shutil.rmtree(after)
    elif kind == "rename":
        os.rename(after, before)
    else:
        os.unlink(after)


def _device(path: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(os.path.dirname(path)).st_dev
    return 0


def _path(fd: int | None, name: str = "") -> str:
    if fd is None:
        return os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    directory = os.readlink(f"/proc/self/fd/{fd}")
    return os.path.join(directory, name) if name else directory
