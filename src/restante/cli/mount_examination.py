"""What ``check`` says of network file systems: nfs(5), and what SQLite needs (docs/cluster.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from restante.cli.findings import Findings
from restante.config.tree import Settings

MOUNTS = "/proc/self/mounts"
_NFS = frozenset({"nfs", "nfs4"})
_OF_A_NETWORK = _NFS | {"ceph", "cifs", "smb3", "glusterfs", "fuse.ceph-fuse", "fuse.glusterfs"}
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=flock", "local_lock=all"})
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""Blanks in a name, as proc_mounts(5) has them."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the table of mounts."""

    place: str
    kind: str
    options: frozenset[str]

    @property
    def is_nfs_3(self) -> bool:
        """Whether locks are a protocol of their own, in which the dead keep theirs."""
        return self.kind in _NFS and not self.options.isdisjoint({"vers=2", "vers=3"})


def examine_mounts(settings: Settings, findings: Findings, table: str = MOUNTS) -> None:
    """Mail on a file system that keeps its locks, queues on a disk of this machine."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as lines:
            mounts = list(map(_mount, lines))
    except OSError:
        return  # as in a container without /proc, of which nothing can be said
    findings.problems += _about_queues(settings.path(settings.queue.root), mounts)
    findings.advice += _about_mail(settings.path(settings.mail.root), mounts)


def _about_queues(path: str, mounts: list[Mount]) -> Iterator[str]:
    mount = _mount_of(path, mounts)
    if mount is not None and mount.kind in _OF_A_NETWORK:
        yield (
            f"queue.root: {path} is on a network file system ({mount.kind}), where SQLite's "
            "write-ahead log cannot be trusted: choose a directory on a disk of this machine"
        )


def _about_mail(path: str, mounts: list[Mount]) -> Iterator[str]:
    mount = _mount_of(path, mounts)
    if mount is None or mount.kind not in _NFS:
        return
    local = sorted(mount.options & _LOCAL_LOCKS)
    if local:
        yield (
            f"mail.root: {mount.place} is mounted with {local[0]}: on each machine that mounts it "
            "a session may have the same maildrop"
        )
    elif mount.is_nfs_3:
        yield (
            f"mail.root: {mount.place} is mounted as NFSv3: a machine that dies keeps its "
            "maildrops locked until it is back; mount it with vers=4.2"
        )
    if "soft" in mount.options:
        yield (
            f"mail.root: {mount.place} is mounted with soft: a slow file server makes errors of "
            "what may have been written; mount it with hard"
        )


def _mount(line: str) -> Mount:
    _, place, kind, options, *_ = line.split(" ")
    place = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), place)
    return Mount(place, kind, frozenset(options.split(",")))


def _mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """Where a path lies: the longest place that it is below, the last of several there."""
    real = os.path.realpath(path)
    around = [each for each in mounts if os.path.commonpath([real, each.place]) == each.place]
    return max(reversed(around), key=lambda each: len(each.place), default=None)
