"""Which file systems are mounted where, and which of them wait for another machine or process.

The kernel's table says it. No file system is asked, so none that hangs holds anybody up.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TABLE = "/proc/self/mounts"
REMEMBERED = 10.0
"""Seconds for which the table counts as it was read."""
OF_A_NETWORK = frozenset(
    {"nfs", "nfs4", "ceph", "cifs", "smb3", "glusterfs", "lustre", "afs", "beegfs"}
)
"""Kinds whose files another machine has. Those of FUSE may have any process."""
_MAY_HANG = OF_A_NETWORK | {"9p", "virtiofs", "autofs"}
"""With those that the host of a virtual machine has, and places where something is mounted as soon
as somebody looks: until then the table says nothing else of them."""
_OF_THE_KERNEL = "/proc/"
"""Homes are elsewhere, and nearly every machine has an autofs there (binfmt_misc)."""
_FUSE = "fuse"
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""Blanks in a name, as proc_mounts(5) has them."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the table."""

    place: str
    kind: str
    options: frozenset[str]

    @property
    def is_fuse(self) -> bool:
        """Whether a process serves it; not a block device, as for NTFS."""
        return self.kind.partition(".")[0] == _FUSE

    @property
    def is_far(self) -> bool:
        """Whether it can hang though this machine is well."""
        return self.kind in _MAY_HANG or self.is_fuse


def read_mounts(table: str) -> list[Mount]:
    """All of them, in the order in which they were mounted; raises OSError."""
    # Of all that may end a line, the kernel escapes LF alone in a name, and users have their say.
    with open(table, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return list(map(_mount, lines))


def _mount(line: str) -> Mount:
    _, place, kind, options, *_ = line.split(" ")
    place = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), place)
    return Mount(place, kind, frozenset(options.split(",")))


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Where an absolute path lies: the longest place that it is below, the last of several there.

    Links are not followed.
    """
    found = None
    for each in mounts:
        is_below = path == each.place or path.startswith(each.place.rstrip("/") + "/")
        if is_below and (found is None or len(each.place) >= len(found.place)):
            found = each
    return found


class FarPlaces:
    """Where those file systems lie, by the paths of what is on them. Belongs to one thread."""

    def __init__(self, table: str = TABLE, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._read = -REMEMBERED
        self._mounts: list[Mount] = []
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """The place of the one that a path lies on; empty: it is on a disk of this machine."""
        now = self._clock()
        if now >= self._read + REMEMBERED:
            self._read_anew(now)
        if not self._mounts:
            return ""
        place = self._known.get(path)
        if place is None:
            mount = mount_of(os.path.normpath(path), self._mounts)
            place = self._known[path] = mount.place if mount is not None and mount.is_far else ""
        return place

    def _read_anew(self, now: float) -> None:
        self._read = now
        self._known.clear()
        try:
            mounts = read_mounts(self._table)
        except OSError:
            mounts = []  # as in a container without /proc, of which nothing can be said
        far = (each for each in mounts if each.is_far)
        are_for_homes = any(not each.place.startswith(_OF_THE_KERNEL) for each in far)
        self._mounts = mounts if are_for_homes else []
