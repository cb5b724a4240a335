"""Machines on this machine: network namespaces on two bridges, which nothing leaves.

Each has its loopback, an address on the front bridge, where clients are, and one on the back
bridge, where the machines talk to one another and which they can be cut off from. The clients
are in a namespace of their own, the hub, which holds the bridges. Root alone can make them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import TypeVar

CLONE_NEWNET = 0x40000000
"""setns(2): the descriptor is a network namespace."""
NAMESPACES = "/run/netns"
FRONT = "192.0.2"
BACK = "198.51.100"
"""Networks of documentation (RFC 5737): nothing here is mistaken for a real host."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """One of them; numbers begin at 1."""

    namespace: str
    number: int

    @property
    def front(self) -> str:
        """Its address for clients."""
        return f"{FRONT}.{self.number}"

    @property
    def back(self) -> str:
        """Its address for the other machines."""
        return f"{BACK}.{self.number}"

    @property
    def entrance(self) -> list[str]:
        """A command that runs another one there, as the same process.

        Not ``ip netns exec``: that makes a namespace of mounts too, in which whatever others have
        mounted meanwhile stays in use.
        """
        return ["nsenter", f"--net={NAMESPACES}/{self.namespace}"]

    def does(self, work: Callable[[], T]) -> Future[T]:
        """Do work in a thread whose sockets are those of a program on it."""
        return _within(self.namespace, work)


class Machines:
    """So many machines and the hub."""

    def __init__(self, count: int) -> None:
        prefix = f"restante-{os.getpid()}"
        self._hub = f"{prefix}-hub"
        self.all = [Machine(f"{prefix}-{number}", number) for number in range(1, count + 1)]
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def cut_off(self, machine: Machine) -> None:
        """The others hear nothing of it, nor it of them; clients reach it as before."""
        _ip("-n", self._hub, "link", "set", f"back{machine.number}", "down")

    def mend(self, machine: Machine) -> None:
        """It is among the others again."""
        _ip("-n", self._hub, "link", "set", f"back{machine.number}", "up")

    def at_the_hub(self, work: Callable[[], T]) -> Future[T]:
        """Do work in a thread whose sockets are those of a client at the hub."""
        return _within(self._hub, work)

    def remove(self) -> None:
        """End what still runs there, and leave no trace."""
        for namespace in (self._hub, *(machine.namespace for machine in self.all)):
            if os.path.exists(f"{NAMESPACES}/{namespace}"):
                for pid in _ip("netns", "pids", namespace).split():
                    with contextlib.suppress(ProcessLookupError):
                        _end(int(pid))
                _ip("netns", "del", namespace)

    def _make(self) -> None:
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "set", "lo", "up")
        for name in ("front", "back"):
            _ip("-n", self._hub, "link", "add", name, "type", "bridge")
            _ip("-n", self._hub, "link", "set", name, "up")
        _ip("-n", self._hub, "addr", "add", f"{FRONT}.254/24", "dev", "front")
        for machine in self.all:
            self._add(machine)

    def _add(self, machine: Machine) -> None:
        _ip("netns", "add", machine.namespace)
        _ip("-n", machine.namespace, "link", "set", "lo", "up")
        for bridge, address in (("front", machine.front), ("back", machine.back)):
            port = f"{bridge}{machine.number}"
            peer = ("peer", "name", bridge, "netns", machine.namespace)
            _ip("-n", self._hub, "link", "add", port, "type", "veth", *peer)
            _ip("-n", self._hub, "link", "set", port, "master", bridge, "up")
            _ip("-n", machine.namespace, "addr", "add", f"{address}/24", "dev", bridge)
            _ip("-n", machine.namespace, "link", "set", bridge, "up")


@contextlib.contextmanager
def machines(count: int) -> Iterator[Machines]:
    """Machines, and an end to them whatever happens."""
    made = Machines(count)
    try:
        yield made
    finally:
        made.remove()


def _ip(*arguments: str) -> str:
    program = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert program is not None, "these tests need ip: apt install iproute2"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _within(namespace: str, work: Callable[[], T]) -> Future[T]:
    done: Future[T] = Future()

    def run() -> None:
        try:
            _enter(namespace)
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            done.set_exception(error)

    Thread(target=run).start()
    return done


def _enter(namespace: str) -> None:
    """This thread from now on, and it alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"{NAMESPACES}/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def _end(pid: int) -> None:
    if pid != os.getpid():
        os.kill(pid, 9)
