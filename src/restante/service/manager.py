"""The service manager's two interfaces: what it is told (sd_notify(3)), and the sockets that it
passes (sd_listen_fds(3)). Nothing of systemd is needed for either, nor anything done without one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from restante.config.listeners import LISTENERS
from restante.errors import OperatorError

FIRST_PASSED = 3
"""The first descriptor that a service manager passes (SD_LISTEN_FDS_START)."""
ACTIVATED = tuple(each.name for each in LISTENERS if each.name != "metrics")
"""Services that may have passed sockets, as FileDescriptorName= names them (systemd.socket(5))."""


class Manager:
    """Tells the service manager how the server is; where there is none, nobody."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Reads, and removes, what is meant for this process alone."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = self._address and meant and microseconds.isdecimal()
        self._interval = int(microseconds) / 2e6 if watched else 0.0
        self._said = time.monotonic()

    def ready(self, status: str) -> None:
        """The server serves, for the first time or after a reload."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """SIGHUP has come; ``ready`` follows, whatever becomes of it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the settings again")

    def stopping(self) -> None:
        """The server ends."""
        self._tell("STOPPING=1\nSTATUS=letting sessions finish")

    def timeout(self) -> float | None:
        """Seconds after which ``tick`` is due; None: never."""
        if not self._interval:
            return None
        return max(self._said + self._interval - time.monotonic(), 0)

    def tick(self) -> None:
        """Say that the supervisor's loop runs, in time for the watchdog."""
        if self._interval and time.monotonic() >= self._said + self._interval:
            self._said = time.monotonic()
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        """A manager that does not listen is its own trouble."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as teller,
        ):
            teller.sendto(text.encode(), socket.MSG_DONTWAIT, address)


Passed = Mapping[str, tuple[socket.socket, ...]]
"""Listening sockets by service."""


def passed_sockets(environ: MutableMapping[str, str]) -> Passed:
    """The sockets that a service manager has bound for this process; usually none.

    What says so is removed from the environment. Raises OperatorError where one of them cannot
    be used.
    """
    count, meant = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdecimal() or meant != str(os.getpid()):
        return {}
    found: dict[str, tuple[socket.socket, ...]] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        if name not in ACTIVATED:
            raise OperatorError(
                f"the service manager passes a socket called {name!r}; FileDescriptorName= must be "
                f"one of {', '.join(ACTIVATED)}"
            )
        found[name] = (*found.get(name, ()), _passed(FIRST_PASSED + number, name))
    return found


def _passed(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        bound = socket.socket(fileno=descriptor)
        listens = bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise OperatorError(f"the socket passed for {name} is none: {error.strerror}") from error
    if not listens or bound.family not in (socket.AF_INET, socket.AF_INET6):
        raise OperatorError(f"the socket passed for {name} does not listen for TCP")
    bound.setblocking(False)
    return bound
