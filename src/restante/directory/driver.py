"""The driver for MySQL and MariaDB, without what one way to log in needs.

asyncmy imports cryptography: 8 MiB, an OpenSSL of its own among them, and some for each process. It
needs it for a server that wants the password encrypted by its RSA key (caching_sha2_password and
sha256_password of MySQL, over TCP without TLS), and does without where it is not installed. So it
is imported as if it were not, until such a server is met.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_RSA = "cryptography"
_LATE = "cryptography.hazmat.backends.openssl.backend"
"""What it imports when it is first used: too late for a process that is no longer root."""


@contextmanager
def _withheld(package: str) -> Iterator[None]:
    """Let a package be missing, unless somebody has imported it already."""
    if package in sys.modules:
        yield
        return
    # None stands for a module that cannot be found (Python's reference, "The module cache").
    sys.modules[package] = cast(ModuleType, None)
    try:
        yield
    finally:
        del sys.modules[package]


with _withheld(_RSA):
    import asyncmy.auth
    from asyncmy.connection import Connection
    from asyncmy.constants.CLIENT import FOUND_ROWS, SSL
    from asyncmy.errors import MySQLError

__all__ = ["FOUND_ROWS", "Connection", "MySQLError", "learn_rsa", "make_lean", "offers_tls"]

BUFFER = 16 * 1024
"""Octets that a connection's buffer begins with; the driver doubles it for larger answers."""


def make_lean(connection: Connection) -> None:
    """Give a connection that waits for nothing a small buffer in place of one of 256 KiB.

    Nearly all answers have less than a kibibyte. A driver that keeps it elsewhere keeps it.
    """
    receiver = getattr(connection, "_proto", None)
    if receiver is not None and getattr(receiver, "length", -1) == getattr(receiver, "pos", None):
        receiver.buffer = bytearray(BUFFER)
        receiver.length = receiver.pos = 0


def offers_tls(connection: Connection) -> bool:
    """Whether the server has said that it speaks TLS; one that has said nothing may."""
    return bool(getattr(connection, "server_capabilities", SSL) & SSL)


def learn_rsa() -> bool:
    """Let the driver encrypt passwords from now on; whether it could not, and can."""
    if _can_encrypt():
        return False
    importlib.reload(asyncmy.auth)
    if not _can_encrypt():
        return False
    importlib.import_module(_LATE)
    return True


def _can_encrypt() -> bool:
    return hasattr(asyncmy.auth, "padding")
