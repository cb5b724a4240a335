"""Passwords of the system's users, as the name service switch knows them (shadow(5)).

Python has no ``spwd`` any more from 3.13 on. This asks getspnam_r(3) itself, which only a process
that may read /etc/shadow can do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from dataclasses import dataclass

from restante.directory.passwd import FIRST_BUFFER, LAST_BUFFER, PasswdEntry
from restante.errors import CannotKnow

DAY = 86400
"""Seconds: dates in the file are days since the epoch."""
SHADOW = "/etc/shadow"
IN_SHADOW = "x"
"""What stands in the passwd file where the hash is in the shadow file."""


@dataclass(frozen=True, slots=True)
class ShadowEntry:
    """What the shadow file has of a user; -1 is a field that is empty."""

    password: str
    """A hash; with ``!`` or ``*`` in front the account is locked."""
    changed: int
    """The day when the password was changed."""
    maximum: int
    """Days for which a password is good."""
    inactive: int
    """Days after these for which its owner may still log in to change it."""
    expires: int
    """The day from which on the account is closed."""

    def objection(self, now: float) -> str:
        """Why nobody may log in, whatever the password: empty if nothing speaks against it.

        A password that should be changed, and that its owner may still log in with to do so, is
        a good one.
        """
        today = int(now // DAY)
        if 0 <= self.expires <= today:
            return "the account has expired"
        limited = min(self.changed, self.maximum, self.inactive) >= 0
        if limited and today > self.changed + self.maximum + self.inactive:
            return "the password has expired"
        return ""


def system_password(entry: PasswdEntry) -> ShadowEntry:
    """What a user's password is checked against; raises CannotKnow.

    Usually the shadow file has it; where the passwd file has a hash itself, there are no dates.
    """
    if entry.password != IN_SHADOW:
        return ShadowEntry(entry.password, -1, -1, -1, -1)
    found = shadow_entry(entry.name)
    if found is None:
        raise CannotKnow(f"shadow: {entry.name}: no entry, or none that this process may read")
    return found


def shadow_entry(name: str) -> ShadowEntry | None:
    """The entry of user ``name``, however long it takes to find it; raises CannotKnow."""
    found, size = _Spwd(), FIRST_BUFFER
    while size <= LAST_BUFFER:
        buffer = ctypes.create_string_buffer(size)
        entry = ctypes.POINTER(_Spwd)()
        failure = _getspnam_r(name.encode("utf-8", "surrogateescape"), found, buffer, size, entry)
        if not failure:
            return _entry(found) if entry else None
        if failure == errno.ENOENT:  # musl, and some sources of glibc's
            return None
        if failure != errno.ERANGE:
            raise CannotKnow(f"shadow: {name}: {os.strerror(failure)}")
        size *= 2
    raise CannotKnow(f"shadow: {name}: the entry is longer than {LAST_BUFFER} octets")


def shadow_groups() -> tuple[int, ...]:
    """The group whose members may read the shadow file, if there is one that is not root's."""
    try:
        found = os.stat(SHADOW)
    except OSError:
        return ()
    readable = found.st_gid != 0 and found.st_mode & stat.S_IRGRP
    return (found.st_gid,) if readable else ()


class _Spwd(ctypes.Structure):
    """``struct spwd`` of Linux, with glibc and musl alike."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("changed", ctypes.c_long),
        ("minimum", ctypes.c_long),
        ("maximum", ctypes.c_long),
        ("warn", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expires", ctypes.c_long),
        ("flag", ctypes.c_ulong),
    )


def _entry(found: _Spwd) -> ShadowEntry:
    password = (found.password or b"").decode("utf-8", "surrogateescape")
    return ShadowEntry(password, found.changed, found.maximum, found.inactive, found.expires)


_getspnam_r = ctypes.CDLL(None, use_errno=True).getspnam_r
_getspnam_r.restype = ctypes.c_int
_getspnam_r.argtypes = (
    ctypes.c_char_p,
    ctypes.POINTER(_Spwd),
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.POINTER(_Spwd)),
)
