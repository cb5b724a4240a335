"""What is known of xfs: in which order it writes.

Learned from the kernel's table of mounts. What that does not say is unknown, and never "yes".
"""

from __future__ import annotations

import os
import time

from restante.mda.ext4 import WRITES_ALL, kind, linux
from restante.mda.remembered import Clock, Remembered

KIND = 0x58465342
"""Of xfs (statfs(2))."""
_MOUNTS = "/proc/self/mountinfo"
_ELSEWHERE = ("logdev=", "rtdev=")
"""What the options of a mount begin with where the log, or octets of files, have another device."""


class Xfs:
    """The file systems of that kind, by their devices; may be asked by several threads."""

    def __init__(
        self, mounts: str = _MOUNTS, release: str = "", clock: Clock = time.monotonic
    ) -> None:
        """``release``: of Linux, as uname(2) has it; empty for the one that runs."""
        self._mounts = mounts
        self._linux = linux(release)
        self._in_order = Remembered(clock)

    def keeps_order(self, fd: int) -> bool:
        """Whether octets that a device has taken are on the disk before any name given later.

        A page counts as written when its octets are, and what makes them part of the file (their
        extent, its size) has been committed in memory. Everything that was committed before a
        change, and that change, is in the same checkpoint of the log or in an earlier one;
        checkpoints are written in turn, each after the device's cache was flushed; and fsync(2) of
        a directory waits for the checkpoint of its last change.
        """
        device = os.fstat(fd).st_dev
        return self._in_order.about(device, lambda: kind(fd) == KIND and self._is_whole(device))

    def _is_whole(self, device: int) -> bool:
        """Whether the log and all octets are known to have the same device."""
        if self._linux < WRITES_ALL:
            return False
        number = f"{os.major(device)}:{os.minor(device)}"
        try:
            # A name may hold all that ends a line or a word, but for what the kernel escapes.
            with open(
                self._mounts, encoding="utf-8", errors="surrogateescape", newline="\n"
            ) as lines:
                words = [line.rstrip("\n").split(" ") for line in lines]
        except OSError:
            return False
        options = ",".join(each[-1] for each in words if each[2:3] == [number]).split(",")
        return options != [""] and not any(each.startswith(_ELSEWHERE) for each in options)
