"""What ``check`` says of file systems: of those of a network (nfs(5), what SQLite needs:
docs/cluster.md), and of those that lose at a power cut what was acknowledged (docs/internals.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath

from restante.cli.check.findings import Findings
from restante.config.tree import Settings
from restante.mda.ext4 import Ext4
from restante.mounts import OF_A_NETWORK, TABLE, Mount, mount_of, read_mounts

_NFS = frozenset({"nfs", "nfs4"})
_SSHFS = "fuse.sshfs"
_ALL_USERS = "allow_other"
"""Without it, a mount of FUSE is for nobody but the user who made it."""
_OF_A_NETWORK = OF_A_NETWORK | {"fuse.ceph-fuse", "fuse.glusterfs", _SSHFS}
_NFS_3 = frozenset({"vers=2", "vers=3"})
"""Locks are a protocol of their own there, in which the dead keep theirs."""
_NFS_4_0 = "vers=4.0"
_SOFT = frozenset({"soft", "softerr"})
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=flock", "local_lock=all"})
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_UNFLUSHED = frozenset({"nobarrier", "barrier=0", "barrier=none", "fsync_mode=nobarrier"})
"""With these, nobody tells the disk to write what it keeps in its cache."""


def examine_mounts(
    settings: Settings, findings: Findings, table: str = TABLE, ext4: Ext4 | None = None
) -> None:
    """Mail on a file system that keeps its locks, queues on a disk of this machine.

    And either where a power cut takes nothing that was acknowledged.
    """
    try:
        mounts = _visible(read_mounts(table))
    except OSError:
        return  # as in a container without /proc, of which nothing can be said
    findings.problems += _about_queues(settings.path(settings.queue.root), mounts)
    for mount, name in _with_mail(settings, mounts).items():
        findings.advice += (f"{name}: {mount.place} is mounted {why}" for why in _unfit(mount))
    findings.advice += _about_power(settings, mounts, ext4 or Ext4())


def _visible(mounts: list[Mount]) -> list[Mount]:
    """Without those above which another one was mounted later.

    But for /: what stands before it, as /usr may, was mounted at the start and moved there.
    """
    seen: list[Mount] = []
    later: set[str] = set()
    for mount in reversed(mounts):
        if later.isdisjoint(map(str, PurePath(mount.place).parents)):
            seen.append(mount)
        later |= {mount.place} - {"/"}
    return seen[::-1]


def _about_queues(path: str, mounts: list[Mount]) -> Iterator[str]:
    mount = _mount_of(path, mounts)
    if mount is not None and mount.kind in _OF_A_NETWORK:
        yield (
            f"queue.root: {path} is on a network file system ({mount.kind}), where SQLite's "
            "write-ahead log cannot be trusted: choose a directory on a disk of this machine"
        )


def _with_mail(settings: Settings, mounts: list[Mount]) -> dict[Mount, str]:
    """Where mail may lie, which may be many mounts, and by which setting.

    Of mail.root alone it is known that it answers, and links to it can be followed.
    """
    found: dict[Mount, str] = {}
    roots = [("mail.home_roots", os.path.normpath(root)) for root in settings.mail.home_roots]
    for name, root in [("mail.root", os.path.realpath(settings.path(settings.mail.root))), *roots]:
        below = [each.place for each in mounts if _is_below(each, root)]
        for place in (root, *below):
            if mount := mount_of(place, mounts):  # the last of those that are mounted there
                found.setdefault(mount, name)
    return found


def _is_below(mount: Mount, root: str) -> bool:
    """But for what a user has mounted in their home for themselves alone."""
    is_private = mount.kind == _SSHFS and _ALL_USERS not in mount.options
    return mount.place.startswith(f"{root.rstrip('/')}/") and not is_private


def _unfit(mount: Mount) -> Iterator[str]:
    """What is wrong with it for mail that other machines have too."""
    if mount.kind == _SSHFS:
        yield (
            "by sshfs, where each machine has locks of its own, and remembers directories as they "
            "were: choose another file system"
        )
    if mount.kind not in _NFS:
        return
    if local := sorted(mount.options & _LOCAL_LOCKS):
        yield (
            f"with {local[0]}: on each machine that mounts it a session may have the same maildrop"
        )
    elif not mount.options.isdisjoint(_NFS_3):
        yield (
            "as NFSv3: a machine that dies keeps its maildrops locked until it is back; mount it "
            "with vers=4.2"
        )
    elif _NFS_4_0 in mount.options:
        yield (
            "as NFSv4.0: what was done and whose answer was lost may be done once more; mount it "
            "with vers=4.2"
        )
    for soft in sorted(mount.options & _SOFT):
        yield (
            f"with {soft}: a slow file server makes errors of what may have been written; mount it "
            "with hard"
        )


def _about_power(settings: Settings, mounts: list[Mount], ext4: Ext4) -> Iterator[str]:
    """Usually everything lies on one file system: what is wrong with it is said once."""
    roots = {"mail.root": settings.mail.root, "queue.root": settings.queue.root}
    lying_on: dict[Mount, list[str]] = {}
    for name, root in roots.items():
        mount = _mount_of(settings.path(root), mounts)
        if mount is not None:
            lying_on.setdefault(mount, []).append(name)
    for mount, names in lying_on.items():
        lost = _lost_with_power(mount, settings.path(roots[names[0]]), ext4)
        if lost:
            yield f"{' and '.join(names)}: {mount.place} is {lost}"


def _lost_with_power(mount: Mount, path: str, ext4: Ext4) -> str:
    """What is there, what a power cut does to it, what to do; empty: nothing that is known."""
    if mount.kind in _IN_MEMORY:
        return (
            f"in memory ({mount.kind}): a restart or a power cut takes all of it; choose a "
            "directory on a disk"
        )
    for option in sorted(mount.options & _UNFLUSHED):
        return (
            f"mounted with {option}: a power cut takes what the disk has in its cache, "
            "acknowledged mail too; mount it without, unless that cache has a battery"
        )
    if mount.kind == "overlay" and "volatile" in mount.options:
        return (
            "an overlay mounted with volatile: nothing is synced there, and a power cut takes "
            "acknowledged mail; choose a directory on a disk"
        )
    if mount.kind == "ext2" or (mount.kind.startswith("ext") and _has_no_journal(path, ext4)):
        return (
            f"{mount.kind} without a journal: a power cut may take a directory's names, "
            "acknowledged mail too; unmount it, and give it one: tune2fs -O has_journal DEVICE"
        )
    return ""


def _has_no_journal(path: str, ext4: Ext4) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # named as a problem of the directory already
    try:
        return ext4.lacks_journal(fd)
    finally:
        os.close(fd)


def _mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    return mount_of(os.path.realpath(path), mounts)
