"""What all systems have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Component

LOOPBACK = "127.0.0.1"
HOST = "mail.bench.test"
"""Whom clients want to reach by TLS, and whose certificate there is."""
STARTING = 60.0
"""Seconds until a server answers."""
ENDING = 60.0
"""Seconds until it has ended."""


@dataclass(frozen=True, slots=True)
class System:
    """A running mail server with all accounts."""

    name: str
    """As in the tables."""
    components: Sequence[Component]
    """Its own processes, and then those of the database that it asks."""
    mail: Path
    """Its Maildirs, see ``bench.accounts.maildir_of``."""
    owner: tuple[int, int]
    """The uid and gid whom they belong to."""
    log: Path
    """Where it says what it does and what is wrong."""
    smtp_port: int = 0
    pop3_port: int = 0
    pop3s_port: int = 0
    """On loopback; 0: it does not listen."""


class NotServingError(Exception):
    """A server does not start; the text holds the end of its log."""


def wait_for_greeting(port: int, greeting: bytes, log: Path) -> None:
    """Returns when a server greets on loopback; raises NotServingError."""
    deadline = time.monotonic() + STARTING
    while not _greets(port, greeting):
        if time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise NotServingError(f"nobody greets on port {port}: {said}")
        time.sleep(0.02)


def pid_in(path: Path, log: Path) -> int:
    """What a daemon, which is nobody's child, writes of itself; raises NotServingError."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(path.read_text())
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise NotServingError(f"nobody writes {path}: {said}")


@contextlib.contextmanager
def ended_by_pid(pid: int) -> Iterator[None]:
    """A daemon that is nobody's child ends with SIGTERM at the end."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + ENDING
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


def _greets(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5) as probe:
            return probe.recv(len(greeting)) == greeting
    except OSError:
        return False
