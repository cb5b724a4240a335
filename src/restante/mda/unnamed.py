"""Files that have no name until they are whole (O_TMPFILE, open(2)): where, and how many.

Such a file takes two directory changes less than one that is made in ``tmp`` and moved, and a
crash leaves nothing of it. Where there are none, ``tmp`` serves.
"""

from __future__ import annotations

import os
import resource

from restante.mda import ext4, xfs

MOST = 1024
"""That are held open at the same time; other copies of a batch get a name in ``tmp``."""
SHARE = 8
"""One in so many of the descriptors that the process may have is for them, at the most."""
LINKS = "/proc/self/fd"
"""Where an open file is found by its descriptor: it gets its name from there (open(2))."""
_KEEPING = {ext4.KIND: "ext4", xfs.KIND: "xfs", 0x01021994: "tmpfs"}
"""File systems on which such a file is known to survive a power cut once it was synced, and synced
with its name. On btrfs the name may survive, and nothing of the octets: fsync(2) records nothing of
a file without a name there (before Linux 6.17). ZFS writes all that waits, at each link(2)."""


class UnnamedFiles:
    """What is known of them in this process. Belongs to one thread at a time."""

    def __init__(self) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        few = MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // SHARE)
        self.most = few if os.path.isdir(LINKS) else 0
        """That are open at the same time."""
        self._refusing: set[int] = set()
        self._keeping: set[int] = set()

    def may_be_on(self, device: int) -> bool:
        """Whether this file system has them, by all that is known."""
        return device not in self._refusing

    def are_kept_on(self, device: int, fd: int) -> bool:
        """Whether this file system, on which ``fd`` lies, keeps them once they were synced."""
        if device not in self._keeping and ext4.kind(fd) in _KEEPING:
            self._keeping.add(device)
        return device in self._keeping

    def refused_by(self, device: int) -> None:
        """None from now on: the file system has none, or somebody forbids to name them."""
        self._refusing.add(device)
