"""The nursery's processes that make homes: one for each, a few at a time, none for long.

Whoever asked hears on the connection that came with the order: MADE, or NOT_MADE and why; if
nothing comes before its end, the process was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass

from restante.errors import TemporaryError
from restante.helper.become import leave_surroundings
from restante.helper.homes import HomeRules, make_home
from restante.helper.messages import Owner

MOST = 4
"""Processes at the same time: a file system that does not answer holds up as many."""
MAX_WAITING = 1000
"""Homes that wait for their turn; one more is refused at once."""
PATIENCE = 10.0
"""Seconds until a process is killed."""
MADE, NOT_MADE = b"+", b"-"
MAX_WORDS = 4096
"""Octets of the reason."""
_UMASK = 0o022
"""Directories above a home are for everybody to pass through."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A home to be made."""

    home: str
    owner: Owner
    connection: socket.socket

    def refuse(self, why: str) -> None:
        """Tell whoever asked, who may not be there any more."""
        with contextlib.suppress(OSError):
            self.connection.send(_not_made(why), socket.MSG_DONTWAIT)
        self.connection.close()


class Makers:
    """Homes that are being made, or wait for it."""

    def __init__(self, rules: HomeRules) -> None:
        self._rules = rules
        self._waiting: deque[Wish] = deque()
        self._running: dict[int, float] = {}
        """Process ids, and when they are killed, on the monotonic clock."""

    @property
    def is_busy(self) -> bool:
        """Whether there is a reason to ``look`` again."""
        return bool(self._waiting or self._running)

    def take(self, wish: Wish) -> None:
        """Make it soon."""
        if len(self._waiting) >= MAX_WAITING:
            wish.refuse("too many homes wait to be made")
            return
        self._waiting.append(wish)
        self.look()

    def look(self) -> None:
        """Take note of what has ended, kill what takes too long, and begin what waits."""
        reap(self._running)
        while self._waiting and len(self._running) < MOST:
            self._begin(self._waiting.popleft())

    def refuse_all(self, why: str) -> None:
        """Begin nothing more."""
        while self._waiting:
            self._waiting.popleft().refuse(why)

    def _begin(self, wish: Wish) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            wish.refuse(f"no process can be started: {error.strerror}")
            return
        if pid == 0:
            _live(wish, self._rules)
        self._running[pid] = time.monotonic() + PATIENCE
        wish.connection.close()


def reap(children: dict[int, float]) -> None:
    """Forget children that have ended, and kill those whose time is over (monotonic clock)."""
    for pid, until in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            del children[pid]
        elif until < time.monotonic():
            os.kill(pid, signal.SIGKILL)


def _live(wish: Wish, rules: HomeRules) -> None:
    """Never returns: the child's only way out is its exit status."""
    status = 1
    try:
        connection = socket.socket(fileno=leave_surroundings(wish.connection.detach()))
        os.umask(_UMASK)
        connection.send(_made(wish, rules), socket.MSG_DONTWAIT)
        status = 0
    finally:
        os._exit(status)


def _made(wish: Wish, rules: HomeRules) -> bytes:
    try:
        make_home(wish.home, wish.owner, rules)
    except (TemporaryError, OSError, ValueError) as error:
        return _not_made(str(error))
    return MADE


def _not_made(why: str) -> bytes:
    return (NOT_MADE + why.encode("utf-8", "backslashreplace"))[:MAX_WORDS]
