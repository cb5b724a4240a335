"""Whose rights root uses where others may have laid traps."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def as_owner(directory: str, groups: Sequence[int] = ()) -> Iterator[None]:
    """Work with the rights of a directory's owner, if this process is root's and the owner is not.

    The server's user can put links in its directories, which must lead root nowhere; and what
    root makes there must not lock the server out. ``groups``: supplementary groups to have
    meanwhile. For a program of root's that serves nobody else at the same time.
    """
    try:
        owner = os.stat(directory)
    except OSError:
        owner = None  # whoever needs it says so
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    former = os.getgroups(), os.getegid()
    try:
        os.setgroups([*_groups_of(owner), *groups])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(former[1])
        os.setgroups(former[0])


def _groups_of(owner: os.stat_result) -> list[int]:
    """The directory's, and its owner's: by one of them he may pass the directories above."""
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        return [owner.st_gid]
    return os.getgrouplist(name, owner.st_gid)
