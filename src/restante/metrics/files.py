"""The files that processes keep their figures in."""

from __future__ import annotations

import contextlib
import glob
import os

from restante.btrfs import change_in_place

ROOM = 64 * 1024
"""Octets of a file of figures; prometheus-client begins one with as many."""
_FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemin")
"""How prometheus-client calls a process's files, before ``_SLOT.db``."""


def figures_directory(instance: str) -> str:
    """Where the figures of an instance lie."""
    return os.path.join(instance, "run", "metrics")


def prepare(directory: str) -> None:
    """An empty directory for the figures; raises OSError. Counters start at 0."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for path in glob.glob(os.path.join(glob.escape(directory), "*.db")):
        os.unlink(path)


def forget(directory: str, slot: int) -> None:
    """A worker ended: what it counted stays, what it had open (sessions, messages) does not."""
    for path in glob.glob(os.path.join(glob.escape(directory), f"gauge_live*_{slot}.db")):
        with contextlib.suppress(OSError):
            os.unlink(path)


def reserve(directory: str, slot: int) -> None:
    """All room that a worker's files take; raises OSError where the disk does not have it.

    They are mapped into memory: a process that writes where the disk had no room would be killed
    (SIGBUS).
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    forget(directory, slot)
    paths = [os.path.join(directory, f"{name}_{slot}.db") for name in _FILES]
    new = [path for path in paths if not os.path.exists(path)]
    try:
        for path in paths:
            with open(path, "ab") as file:
                change_in_place(file.fileno())
                os.posix_fallocate(file.fileno(), 0, ROOM)
    except OSError:
        for path in new:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def begun(directory: str) -> list[str]:
    """The files of figures, but for those that a worker has just made and not yet given a size."""
    begun: list[str] = []
    for path in glob.glob(os.path.join(glob.escape(directory), "*.db")):
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
            if os.path.getsize(path):
                begun.append(path)
    return begun
