"""What the processes of one component of a system use: processor time, and memory.

Where a control group for it can be made (as root, usually), the group counts, and nothing that
starts and ends in it is missed. Elsewhere the tree of processes below the first is added up:
what those used that are gone already counts as soon as somebody has waited for them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")


class Component(Protocol):
    """Processes that are counted together."""

    @property
    def name(self) -> str:
        """As in the tables: ``mariadb``, ``postfix``, ..."""

    @property
    def prefix(self) -> list[str]:
        """What is put before a command, so that it and its children belong to the component."""

    def adopt(self, pid: int) -> None:
        """Must be told of every process that was started with the prefix, or took itself away."""

    def seconds(self) -> float:
        """Processor time used so far."""

    def pids(self) -> list[int]:
        """Its living processes."""


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A component that is a control group, of version 1 (cpuacct) or 2."""

    name: str
    path: Path

    @property
    def prefix(self) -> list[str]:
        """The shell moves itself before it becomes the command."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs")]

    def adopt(self, pid: int) -> None:
        """Nothing is to be done: children stay in the group."""

    def seconds(self) -> float:
        """As the kernel has added it up."""
        if (nanoseconds := self.path / "cpuacct.usage").exists():
            return int(nanoseconds.read_text()) / 1e9
        words = (self.path / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6

    def pids(self) -> list[int]:
        """Its living processes."""
        return [int(each) for each in (self.path / "cgroup.procs").read_text().split()]


@dataclass(slots=True)
class ProcessTrees:
    """A component where no control group can be made."""

    name: str
    _roots: list[int] = field(default_factory=list)

    @property
    def prefix(self) -> list[str]:
        """None."""
        return []

    def adopt(self, pid: int) -> None:
        """It counts from now on, with all its children."""
        self._roots.append(pid)

    def seconds(self) -> float:
        """Of the living, and of those that they have waited for."""
        return sum(_used(pid) for pid in self.pids())

    def pids(self) -> list[int]:
        """Its living processes."""
        found: list[int] = []
        missing = list(self._roots)
        while missing:
            pid = missing.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                missing += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                found.append(pid)
        return found


def _used(pid: int) -> float:
    """Seconds of a process, and of its children that are gone (proc(5): utime to cstime)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def memory(component: Component) -> float:
    """MiB of a component's processes; what several share is counted once (proc(5): Pss)."""
    kibibytes = 0
    for pid in component.pids():
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
            kibibytes += int(found[1]) if found else 0
    return kibibytes / 1024


class Components:
    """Makes components; those that are control groups are below one of this run's own."""

    def __init__(self, group: Path | None) -> None:
        self._group = group
        self._numbers = itertools.count(1)

    def new(self, name: str) -> Component:
        """A component without processes yet."""
        if self._group is None:
            return ProcessTrees(name)
        path = self._group / f"{next(self._numbers)}-{name}"
        path.mkdir()
        return ControlGroup(name, path)


@contextlib.contextmanager
def components() -> Iterator[Components]:
    """For one run; all processes must have ended at its end."""
    group = (_V1 if (_V1 / "cpuacct.usage").exists() else _V2) / f"restante-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield Components(None)
        return
    try:
        yield Components(group)
    finally:
        for path in [*group.glob("*/"), group]:
            with contextlib.suppress(OSError):  # something in it lives on: it does no harm
                path.rmdir()
