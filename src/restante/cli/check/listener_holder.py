"""Which process listens at an address, and whether it belongs to the server of an instance.

A server's processes hold the directory of their instance open (restante.service.supervisor), and
their listening sockets. What a process holds open can be seen by its own user and by root.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restante.cli.output import one_line
from restante.config.tree import HostPort

_TABLES = (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6))
_LISTENS = "0A"
"""TCP_LISTEN, as these tables have it (proc_net_tcp(5))."""
_ANY = ("0.0.0.0", "::")  # noqa: S104 - these are compared with
_WORD = 8
"""Digits of a part of an address, which stands there in the machine's own order of octets."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens."""

    pid: int
    name: str
    """As it calls itself, in one line."""
    is_ours: bool
    """It belongs to the server of the instance that was asked about."""


def holder_of(address: HostPort, directory: str) -> Holder | None:
    """Who listens at ``address``, the server of the instance in ``directory`` before others.

    None: nobody does, or this user may not know.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(address)}
    found = None
    for pid in _processes() if sockets else ():
        with contextlib.suppress(OSError):  # it has ended, or is none of this user's business
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
            if sockets.isdisjoint(_targets(descriptors)):
                continue
            is_ours = any(_is_at(each, directory) for each in descriptors)
            # Any octets but NUL; and the kernel cuts it, be it within a character.
            name = os.fsdecode(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
            found = Holder(pid, one_line(name), is_ours)
            if is_ours:
                break
    return found


def _listening(address: HostPort) -> Iterator[str]:
    """The inodes of the sockets that listen there, or at all addresses with that port."""
    try:
        (*_, (host, port, *_)), *_ = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return
    for table, family in _TABLES:
        for at, number, inode in _listeners(table, family):
            if number == port and at in (host, *_ANY):
                yield inode


def _listeners(table: str, family: socket.AddressFamily) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of each socket in a table that listens."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                digits, _, number = fields[1].partition(":")
                yield _address(digits, family), int(number, 16), fields[9]


def _address(digits: str, family: socket.AddressFamily) -> str:
    words = [int(digits[at : at + _WORD], 16) for at in range(0, len(digits), _WORD)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _targets(descriptors: list[Path]) -> Iterator[str]:
    for each in descriptors:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(each)


def _is_at(descriptor: Path, directory: str) -> bool:
    with contextlib.suppress(OSError):  # of a control directory alone, the first server makes it
        return os.path.samefile(descriptor, directory)
    return False
