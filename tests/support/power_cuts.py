"""Work on a disk whose power is cut at random moments, and what is left of what was promised."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tests.support.owner import as_owner
from tests.support.power import (
    FileSystem,
    Place,
    cuts_of,
    make_file_system,
    missing,
    mounted_after,
    place_in,
    power,
)

CLONE_NEWNS = 0x00020000
"""unshare(2): mounts."""
MOST = 2500
"""Turns within which there are enough cuts, and for which the disk has room."""

libc = ctypes.CDLL(None, use_errno=True)


class Turns(Iterator[int]):
    """Numbers of what is to be done, until there are enough cuts; may be asked by several tasks."""

    def __init__(self, place: Place) -> None:
        self._cuts = place.cuts
        self._note = os.open(place.note, os.O_WRONLY | os.O_APPEND)
        self._numbers = itertools.count()

    def __next__(self) -> int:
        if self._cuts.exists():
            raise StopIteration
        number = next(self._numbers)
        assert number < MOST, "the disk takes no cuts"
        return number

    def promise(self, number: int) -> None:
        """Note that this turn must have left what it is for, whatever happens from now on."""
        os.write(self._note, b"%d\n" % number)

    def close(self) -> None:
        """There are no more."""
        os.close(self._note)


class Work(Protocol):
    """What is done on the disk."""

    def prepare(self, tree: Path) -> None:
        """Lay down what has been there for long, in a directory that the disk begins with."""
        ...

    def do(self, root: Path, turns: Turns) -> None:
        """Take turns."""
        ...

    def found(self, root: Path) -> tuple[set[int], int]:
        """The turns of which all is there after a cut, and how many are there in part."""
        ...


@dataclass(slots=True)
class Found:
    """What was found after the cuts."""

    whole: int = 0
    short: int = 0
    """Or garbled."""
    lost: int = 0
    """Though promised."""
    losses: list[str] = field(default_factory=list)
    """In which cuts: one whose directories are not there is another matter than single turns."""


T = TypeVar("T")


def where_nobody_mounts(task: Callable[[], T]) -> T:
    """Do something in a child process with mounts of its own, which end with it.

    A namespace that somebody makes of ours meanwhile would hold what is unmounted here: mount(8)
    finds the loop device of the last cut in use then, and shows what that has left.
    """

    def apart() -> T:
        if libc.unshare(CLONE_NEWNS):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        return task()

    return as_owner(apart, uid=0, gid=0)


def cut_while(work: Work, system: FileSystem, cuts: int, seed: int) -> Found:
    """Do it, cut the power so often, look; a task for ``where_nobody_mounts``."""
    assert not missing(system), f"power cuts need {', '.join(missing(system))}"
    with tempfile.TemporaryDirectory(prefix="restante-power-") as directory:
        os.chmod(directory, 0o711)  # other users may be those who work
        tree = Path(directory, "tree")
        tree.mkdir()
        work.prepare(tree)
        with place_in(Path(directory, "power")) as place:
            make_file_system(place, system, tree)
            turns = Turns(place)
            try:
                with power(place, system, cuts, seed), somebody_else(place.live, system):
                    work.do(place.live, turns)
            finally:
                turns.close()
            return find_all(work, place, system)


@contextmanager
def somebody_else(root: Path, system: FileSystem) -> Iterator[None]:
    """Who syncs a file every few milliseconds, and commits whatever the journal holds."""
    done = threading.Event()

    def write() -> None:
        with open(root / "other", "wb", buffering=0) as file:
            while not done.wait(random.uniform(0.01, 0.09)):
                file.write(b"x")
                system.commit(file.fileno())

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def find_all(work: Work, place: Place, system: FileSystem) -> Found:
    """Look at all that the cuts have left."""
    noted = place.note.read_bytes()
    found = Found()
    for number, cut in enumerate(cuts_of(place)):
        promised = {int(line) for line in noted[: cut.noted].split()}
        with mounted_after(place, system, cut) as root:
            whole, short = work.found(root)
        found.whole += len(whole)
        found.short += short
        if lost := promised - whole:
            found.lost += len(lost)
            found.losses.append(f"cut {number}: {len(lost)} of {len(promised)}")
    return found
