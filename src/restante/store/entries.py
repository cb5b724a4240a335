"""The names in a directory, read with as few system calls as there can be.

``os.scandir`` makes none that is not needed, but it gives the interpreter's lock away before
each single entry and takes it again: while other threads are busy, a hundred entries cost a
hundred waits. Here that happens once for a block of them (getdents64(2)).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from restante.store.unwaiting import Stamp, stamp_of

BLOCK = 64 * 1024
"""Octets of entries read at a time: some 800."""
TICK = 0.02
"""Seconds within which two changes of a directory may have the same time, at most."""

_HEAD = struct.Struct("=16xHB")
"""An inode and an offset; the length of the entry; the type of the file. The name follows."""
_HEAD_SIZE = _HEAD.size
_UNKNOWN, _REGULAR = 0, 8
"""``DT_UNKNOWN``, where the file system does not say, and ``DT_REG``."""

_libc = ctypes.CDLL(None, use_errno=True)
_getdents = getattr(_libc, "getdents64", None) or _libc.getdents  # musl has but the short name
_getdents.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
_getdents.restype = ctypes.c_ssize_t


@dataclass(frozen=True, slots=True)
class Entries:
    """The names of regular files that do not begin with a dot, each octet a character."""

    names: list[str]
    """In Latin-1, and sorted: CPython sorts and splits text faster than octets."""
    stamp: Stamp | None
    """Of the directory, before it was read."""
    is_whole: bool = True
    """No name was missed: what is renamed while the directory is read may be, if that takes more
    than one block, or the file system is not this kernel's own: NFS asks its server several times
    for one."""


def read(directory: bytes) -> Entries:
    """What is in a directory; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        began, before = time.time(), os.fstat(descriptor)
        stamp = stamp_of(descriptor)
        names: list[str] = []
        blocks = 0
        for block in _blocks(descriptor):
            names += _regular_files(directory, block)
            blocks += 1
        is_whole = (blocks < 2 and stamp is not None) or (
            os.fstat(descriptor).st_ctime_ns == before.st_ctime_ns
            and abs(began - before.st_ctime) >= TICK
        )
    finally:
        os.close(descriptor)
    names.sort()
    del names[bisect_left(names, ".") : bisect_left(names, "/")]  # "/" is what follows "."
    return Entries(names, stamp, is_whole)


def _blocks(descriptor: int) -> Iterator[bytes]:
    room = ctypes.create_string_buffer(BLOCK)
    while (length := _getdents(descriptor, room, BLOCK)) > 0:
        yield ctypes.string_at(room, length)
    if length < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _regular_files(directory: bytes, block: bytes) -> list[str]:
    found = []
    text = block.decode("latin-1")
    place, end, unpack = 0, len(block), _HEAD.unpack_from
    while place < end:
        length, kind = unpack(block, place)
        name = text[place + _HEAD_SIZE : text.index("\0", place + _HEAD_SIZE)]
        place += length
        if kind == _REGULAR or (kind == _UNKNOWN and _is_regular(directory, name)):
            found.append(name)
    return found


def _is_regular(directory: bytes, name: str) -> bool:
    """What is gone by now was: whoever renamed it need not have done so before it is read again."""
    try:
        path = os.path.join(directory, name.encode("latin-1"))
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True
