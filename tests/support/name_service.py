"""Users of the system that a test invents, for processes of its own (nss_wrapper)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LIBRARY = "libnss_wrapper.so"
"""Debian's libnss-wrapper; the loader finds it by its name."""

_AS_THE_C_LIBRARY = '''
"""nss_wrapper says ENOENT of a user whom nobody knows, where the C library says 0."""
import errno
from restante.directory import passwd

asked = passwd._getpwnam_r
passwd._getpwnam_r = lambda *of: 0 if (said := asked(*of)) == errno.ENOENT else said
'''


def with_users(directory: Path, users: Iterable[tuple[str, int, int, str]]) -> dict[str, str]:
    """An environment in whose passwd file the users are (name, uid, gid, home).

    The system's own users are there as well. ``directory`` holds what this needs.
    """
    passwd = directory / "passwd"
    lines = [f"{name}:x:{uid}:{gid}::{home}:/bin/sh" for name, uid, gid, home in users]
    passwd.write_text(Path("/etc/passwd").read_text() + "\n".join([*lines, ""]))
    python = directory / "python"
    python.mkdir()
    (python / "sitecustomize.py").write_text(_AS_THE_C_LIBRARY)
    return {
        "LD_PRELOAD": LIBRARY,
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": "/etc/group",
        "PYTHONPATH": str(python),
    }
