"""What a program on this host must know of the instance, published for everyone.

restante.toml may hold a password, so it is not for everyone to read. Whoever knows the settings
writes the file ``site``, anew and at once, whenever they may have changed.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

MAX_SITE = 64 * 1024
"""Octets of the file."""
_LASTING = (errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
"""What stays so until the operator does something."""


class SiteUnreadable(Exception):
    """There is no site to be read; the text says which file and why."""


class Site(NamedTuple):
    """The published settings, named as restante.toml names them."""

    me: str
    defaulthost: str
    defaultdomain: str
    plusdomain: str
    databytes: int
    """Octets in a message with CRLF line ends; 0: no limit."""
    max_header: int
    max_text_line: int
    max_received: int
    control: str
    """The control directory of an instance that has no restante.toml; empty: it has one."""


def read_site(path: str) -> Site:
    """What stands in the file.

    Raises SiteUnreadable where only the operator can help, FileNotFoundError if it is not there,
    and OSError where another attempt may go well.
    """
    try:
        octets = _read(path)
    except OSError as error:
        if error.errno not in _LASTING:
            raise
        raise SiteUnreadable(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _decode(octets.decode())
    except (ValueError, KeyError) as error:
        raise SiteUnreadable(f"{path} is damaged: {error}") from None


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, MAX_SITE)
    finally:
        os.close(descriptor)


def _decode(text: str) -> Site:
    values = dict(line.split(" ", 1) for line in text.splitlines())
    return Site(
        values["me"],
        values["defaulthost"],
        values["defaultdomain"],
        values["plusdomain"],
        int(values["databytes"]),
        int(values["max_header"]),
        int(values["max_text_line"]),
        int(values["max_received"]),
        values["control"],
    )


def write_site(path: str, site: Site) -> None:
    """Publish, wholly or not at all; raises OSError."""
    text = "".join(f"{name} {value}\n" for name, value in site._asdict().items())
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
