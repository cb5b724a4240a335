"""crypt(3) of the system, called so that other threads run meanwhile."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from functools import cache

_NAMES = ("libcrypt.so.1", "libcrypt.so.2")
_CRYPT_DATA_SIZE = 256 * 1024
"""Octets for ``struct crypt_data``: glibc's has 131,232, libxcrypt's 32,768."""

Crypt = Callable[[bytes, bytes, ctypes.Array[ctypes.c_char]], bytes | None]


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """The hash of ``password`` under the setting (or the hash) that begins it.

    None when the library does not know the method, or when there is no library.
    """
    function = _crypt_r()
    if function is None:
        return None
    result = function(password, setting, ctypes.create_string_buffer(_CRYPT_DATA_SIZE))
    return None if result is None or result.startswith(b"*") else result


@cache
def _crypt_r() -> Crypt | None:
    """``crypt_r``; ctypes gives the GIL back for the time of each call."""
    for name in _NAMES:
        try:
            return _declare(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    found = ctypes.util.find_library("crypt")
    return _declare(ctypes.CDLL(found)) if found else None


def _declare(library: ctypes.CDLL) -> Crypt:
    function: Crypt = library.crypt_r
    function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]  # type: ignore[attr-defined]
    function.restype = ctypes.c_char_p  # type: ignore[attr-defined]
    return function
