"""A user of this system, with a home and in the passwd file, as procmail and its like want one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from restante.directory import Account

NAME = "restante-peer"
"""scripts/peers makes it."""


@contextlib.contextmanager
def peers_home() -> Iterator[Path]:
    """The user's home, empty, and of one test at a time."""
    home = Path(pwd.getpwnam(NAME).pw_dir)
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _empty(home)
        yield home
        _empty(home)
    finally:
        os.close(fd)


def peer(home: Path) -> Account:
    """The user's account."""
    found = pwd.getpwnam(NAME)
    return Account(NAME, found.pw_uid, found.pw_gid, str(home))


def _empty(home: Path) -> None:
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
