"""Users of the system, as the name service switch knows them (nsswitch.conf(5)).

Python's ``pwd`` takes some failures for "no such user". This asks getpwnam_r(3) itself,
which returns 0 without an entry where every source that answered has no such user, and an
error number where the last one asked could not answer. What it cannot tell is the failure
of a source before the last; so the last of ``passwd:`` should be the one that may fail, or
``[UNAVAIL=return]`` should follow it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from restante.errors import CannotKnow

MAX_NAME = 256
"""Octets in a user name (LOGIN_NAME_MAX of Linux); nobody has a longer one."""
FIRST_BUFFER = 1 << 10
"""Octets for the texts of one entry; doubled while they are too few."""
LAST_BUFFER = 1 << 20
"""Octets beyond which an entry is no honest one."""
SPARE_DESCRIPTORS = 8
"""What a look-up may need to have open at once: files, sockets, shared objects."""


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    """A user's entry (passwd(5))."""

    name: str
    """The name that was asked for."""
    password: str
    """``x``, a hash, or whatever else stands there."""
    uid: int
    gid: int
    home: str


class _Passwd(ctypes.Structure):
    """``struct passwd`` of Linux, with glibc and musl alike."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


def passwd_entry(name: str) -> PasswdEntry | None:
    """The entry of user ``name``, however long it takes to find it; raises CannotKnow."""
    asked = name.encode("utf-8", "surrogateescape")
    if not asked or len(asked) > MAX_NAME or any(octet in asked for octet in b"\0:\n/"):
        return None
    found = _Passwd()
    size = FIRST_BUFFER
    while size <= LAST_BUFFER:
        buffer = ctypes.create_string_buffer(size)
        entry = ctypes.POINTER(_Passwd)()
        failure = _getpwnam_r(asked, found, buffer, size, entry)
        if not failure:
            if entry:
                return _entry(name, found)
            _check_descriptors(name)
            return None
        if failure != errno.ERANGE:
            raise CannotKnow(f"passwd: {name}: {os.strerror(failure)}")
        size *= 2
    raise CannotKnow(f"passwd: {name}: the entry is longer than {LAST_BUFFER} octets")


def _entry(name: str, found: _Passwd) -> PasswdEntry:
    return PasswdEntry(
        name,
        _text(found.password),
        found.uid,
        found.gid,
        _text(found.home),
    )


def _check_descriptors(name: str) -> None:
    """Raise CannotKnow if "no such user" may have been said for want of descriptors.

    A source that cannot open its file is passed over, and the next one honestly has no
    such user.
    """
    try:
        with contextlib.ExitStack() as spare:
            for _ in range(SPARE_DESCRIPTORS):
                spare.enter_context(_descriptor())
    except OSError as error:
        raise CannotKnow(f"passwd: {name}: {error.strerror}") from error


@contextlib.contextmanager
def _descriptor() -> Iterator[None]:
    number = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.close(number)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")


_getpwnam_r = ctypes.CDLL(None, use_errno=True).getpwnam_r
_getpwnam_r.restype = ctypes.c_int
_getpwnam_r.argtypes = (
    ctypes.c_char_p,
    ctypes.POINTER(_Passwd),
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.POINTER(_Passwd)),
)
