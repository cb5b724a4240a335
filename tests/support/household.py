"""The processes of a server that root has started, and a way into a worker's office."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.instance import PATIENCE, Instance, until
from tests.support.serving import Sections, configure, start, workers

PASSWORD = "secret"
OWNERS = (54101, 54102, 54103)
"""Uids, and gids, that no user of the system has."""
_PIDFD_GETFD = 438
"""The system call's number, the same on all architectures (pidfd_getfd(2))."""
_SEQPACKET = "0005"
_libc = ctypes.CDLL(None, use_errno=True)
_SERVANT = r"event=servant_started name={} pid=(\d+)"


def address_of(uid: int) -> str:
    """The account of ``add_owner``."""
    return f"u{uid}@example.com"


def home_of(instance: Instance, uid: int) -> Path:
    """Its home."""
    return instance.directory / "homes" / str(uid)


def add_owner(instance: Instance, uid: int, gid: int | None = None) -> None:
    """An account of this uid, with a home of its own."""
    gid = uid if gid is None else gid
    home = home_of(instance, uid)
    home.parent.mkdir(mode=0o755, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, gid)
    local, domain = address_of(uid).split("@")
    with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.execute(
            "INSERT INTO mailbox VALUES (?, ?, ?, ?, ?, 'Password')",
            (address_of(uid), uid, gid, str(home), PASSWORD),
        )
        database.execute("INSERT INTO virtual VALUES (?, ?, ?)", (address_of(uid), local, domain))
        database.commit()


@contextmanager
def household(instance: Instance, sections: Sections | None = None) -> Iterator[Instance]:
    """The instance with an account for each of OWNERS, running; one of them has looked for mail,
    which has brought the registrar and the nursery about."""
    instance.here("domain", "add", "example.com")
    for uid in OWNERS:
        add_owner(instance, uid)
    configure(instance, {"mail": {"user": "nobody"}, **(sections or {})})
    start(instance)
    assert instance.messages(address_of(OWNERS[0]), PASSWORD) == []
    yield instance


def descendants(pid: int) -> set[int]:
    """A process's children, and theirs."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def status_of(pid: int) -> dict[str, str]:
    """What /proc says of a process; empty if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {}


def uids_of(pid: int) -> tuple[int, ...]:
    """Real, effective, saved and file system uid; empty if the process is gone."""
    return tuple(map(int, status_of(pid).get("Uid", "").split()))


def servant(instance: Instance, name: str) -> int:
    """The process id of the registrar or the nursery that was started last."""
    return servants(instance, name)[-1]


def servants(instance: Instance, name: str) -> list[int]:
    """Those of all that were started by that name."""
    return list(map(int, re.findall(_SERVANT.format(name), instance.log())))


def helpers(instance: Instance) -> set[int]:
    """The living helpers."""
    return {pid for pid in descendants(servant(instance, "nursery")) if uids_of(pid)}


class Office:
    """A worker's own end of its office, taken from it while it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: status_of(pid)["State"].startswith("T"), "the worker is stopped")
        self._socket = socket.socket(fileno=_taken(pid, _office_descriptor(pid)))
        self._socket.setblocking(True)
        self._socket.settimeout(PATIENCE)

    def __enter__(self) -> Office:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.setblocking(False)  # the flag is the worker's too
        self._socket.close()
        os.kill(self._pid, signal.SIGCONT)

    def send(self, datagram: bytes) -> None:
        """As it is."""
        self._socket.send(datagram)

    def ask(self, **request: object) -> dict[str, object]:
        """The answer; a descriptor in it is counted as ``descriptors`` and closed."""
        self.send(json.dumps({"id": 4711, **request}).encode())
        return self.answer()

    def answer(self) -> dict[str, object]:
        """The next answer to ``ask``."""
        while True:
            octets, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 4)
            for descriptor in descriptors:
                os.close(descriptor)
            answer: dict[str, object] = json.loads(octets)
            if answer["id"] == 4711:
                return answer | {"descriptors": len(descriptors)}


def office_of(instance: Instance) -> Office:
    """The office of one of the workers."""
    return Office(min(workers(instance, 1)))


def _office_descriptor(pid: int) -> int:
    """The only socket of its kind that a worker has."""
    table = Path("/proc/net/unix").read_text().splitlines()[1:]
    kinds = {line.split()[6]: line.split()[4] for line in table}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:[") and kinds.get(target[8:-1]) == _SEQPACKET:
            return int(entry.name)
    raise AssertionError("the worker has no office")


def _taken(pid: int, descriptor: int) -> int:
    process = os.pidfd_open(pid)
    try:
        taken: int = _libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    assert taken >= 0, os.strerror(ctypes.get_errno())
    return taken
