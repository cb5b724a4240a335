"""The files of certificates and keys: read by whoever serves them, or handed to it open.

A key is for root alone to read, and those who serve it are not root. So they are given the
open file, at first and whenever they ask.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from restante.tls import CertificateRefused

MAX_FILE = 1024 * 1024
"""Octets in a file with certificates or a key."""

Identity = tuple[int, ...]
_MISSING: Identity = ()


@dataclass(frozen=True, slots=True)
class PemFile:
    """What a file holds."""

    octets: bytes
    exposed: bool
    """Everybody on this host can read it."""


class PemFiles(Protocol):
    """How files are read; paths are absolute."""

    def identity(self, path: str) -> Identity:
        """What changes as the file is written, replaced or given other rights; it never fails."""
        ...

    def read(self, path: str) -> PemFile:
        """What the file holds; raises CertificateRefused."""
        ...


class DiskFiles:
    """For a process that may read them itself."""

    def identity(self, path: str) -> Identity:
        """See PemFiles."""
        try:
            return _identity(os.stat(path))
        except OSError:
            return _MISSING

    def read(self, path: str) -> PemFile:
        """See PemFiles."""
        descriptor = open_pem(path)
        try:
            return _read(path, descriptor)
        finally:
            close_pem(descriptor)


class HandedFiles:
    """For a process that is handed the files by one with the right to open them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Identity, PemFile | CertificateRefused]] = {}

    @classmethod
    def opened(cls, paths: Iterable[str], opens: Callable[[str], int]) -> HandedFiles:
        """Of files that this process has still the right to open; ``opens`` is ``open_pem``, or
        as it. It never fails."""
        files = cls()
        for path in paths:
            try:
                files.take(path, opens(path))
            except CertificateRefused as refusal:
                files.miss(path, refusal)
        return files

    def take(self, path: str, descriptor: int) -> None:
        """Know the file by an open descriptor, which is closed here; read unless it is as it was
        when it could be."""
        try:
            identity = _identity(os.fstat(descriptor))
            if identity != self.identity(path):
                self._known[path] = identity, _read(path, descriptor)
        except OSError as error:
            self.miss(path, _unreadable(path, error))
        except CertificateRefused as refusal:
            self.miss(path, refusal)
        finally:
            close_pem(descriptor)

    def miss(self, path: str, refusal: CertificateRefused) -> None:
        """The file could not be read."""
        self._known[path] = _MISSING, refusal

    def identity(self, path: str) -> Identity:
        """See PemFiles."""
        known = self._known.get(path)
        return known[0] if known else _MISSING

    def read(self, path: str) -> PemFile:
        """See PemFiles."""
        _, found = self._known[path]
        if isinstance(found, CertificateRefused):
            raise found
        return found


def open_pem(path: str) -> int:
    """A descriptor that is good for reading; raises CertificateRefused."""
    try:
        # Somebody may have put a FIFO there, or a terminal, which could send this process signals.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None


def close_pem(descriptor: int) -> None:
    """Give it back, whatever a file server says of it, which may be away by now."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _read(path: str, descriptor: int) -> PemFile:
    octets = b""
    try:
        while len(octets) <= MAX_FILE and (more := os.read(descriptor, MAX_FILE + 1)):
            octets += more
        exposed = bool(os.fstat(descriptor).st_mode & stat.S_IROTH)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(octets) > MAX_FILE:
        raise CertificateRefused(f"{path} is larger than {MAX_FILE} octets")
    return PemFile(octets, exposed)


def _unreadable(path: str, error: OSError) -> CertificateRefused:
    whose = f" (uid {os.geteuid()})" if error.errno == errno.EACCES else ""
    return CertificateRefused(f"{path} cannot be read: {error.strerror}{whose}")


def _identity(found: os.stat_result) -> Identity:
    # The last one alone changes with owner and mode; some file servers make it up.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
