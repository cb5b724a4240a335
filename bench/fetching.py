"""POP3 sessions from generators/pop3load.c, which checks what it is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from bench.accounts import PASSWORD, address_of
from bench.processes import Component
from bench.programs import generator
from bench.systems.system import HOST, System

PER_SOURCE = 100
"""Connections that come from one address of loopback."""


class ReadingError(Exception):
    """A session was refused, broke off, or was told what cannot be."""


class Handshake(Enum):
    """How sessions over TLS begin, as pop3load has it."""

    FULL = (f"--tls={HOST}",)
    RESUMED = (*FULL, "--resume")
    """But for the first one of each client."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What is done, in so many sessions by so many users in turn."""

    mode: str
    """As pop3load has it: ``session``, ``login``, ``fetch``, ``retr``, ``one``, ``idle``."""
    clients: int = 1
    """Sessions at the same time; ``users`` is a multiple of it."""
    users: int = 1
    first: int = 1
    """The first user's number."""
    messages: int | None = None
    """That every maildrop must have; None: any number."""
    handshake: Handshake | None = None
    """None: clear text."""

    def options(self, count: int) -> list[str]:
        """For ``count`` sessions."""
        expected = [] if self.messages is None else [f"--expect={self.messages}"]
        numbers = {"users": self.users, "first": self.first, "clients": self.clients}
        options = [f"--{name}={number}" for name, number in numbers.items()]
        handshake = self.handshake.value if self.handshake else ()
        return [*options, f"--sessions={count}", *expected, *handshake, self.mode]


@dataclass(frozen=True, slots=True)
class Told:
    """What pop3load says of its sessions; they were all good."""

    sessions: int
    messages: int
    octets: int
    """Of these messages."""
    seconds: float
    """Of all sessions."""
    median: float
    p99: float
    """Seconds of a whole session."""
    generator_cpu: float
    resumed: int
    """Sessions over TLS that began with a ticket."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each command, of mode ``one``."""


def parse(text: str) -> Told:
    """What pop3load prints; raises ReadingError for anything that was not good."""
    try:
        said = json.loads(text)
    except ValueError:
        raise ReadingError(f"pop3load says nothing that can be read: {text[:200]!r}") from None
    if faults := {name: said[name] for name in ("refused", "broken", "wrong") if said[name]}:
        counted = ", ".join(f"{number} {name}" for name, number in faults.items())
        raise ReadingError(f"of the sessions {said['sessions']} were good, and {counted}")
    return Told(**{name: said[name] for name in Told.__slots__ if name in said})


@dataclass(frozen=True, slots=True)
class Reader:
    """The users of one system."""

    system: System
    component: Component

    def read(self, sessions: Sessions, count: int) -> Told:
        """Do so many sessions; raises ReadingError."""
        with subprocess.Popen(
            self._command(self._port(sessions), sessions.options(count)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.component.adopt(process.pid)
            output, faults = process.communicate()
        return self._understood(output, faults)

    def seconds(self, sessions: Sessions, count: int) -> float:
        """How long so many sessions take; raises ReadingError."""
        return self.read(sessions, count).seconds

    @contextmanager
    def idle(self, count: int, first: int = 1) -> Iterator[Told]:
        """So many users, each with a session that does nothing; raises ReadingError."""
        sessions = Sessions("idle", clients=min(count, 20), users=count, first=first)
        sources = f"--sources={-(-count // PER_SOURCE)}"
        with subprocess.Popen(
            self._command(self._port(sessions), [sources, *sessions.options(count)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                self.component.adopt(process.pid)
                assert process.stdout is not None
                output = process.stdout.readline()
                yield self._understood(output, "")
                _, faults = process.communicate("")  # closes its standard input: it says QUIT
                if process.returncode:
                    raise self._error("the sessions did not last", faults)
            finally:
                process.kill()

    def _port(self, sessions: Sessions) -> int:
        return self.system.pop3s_port if sessions.handshake else self.system.pop3_port

    def _command(self, port: int, options: Sequence[str]) -> list[str]:
        user = address_of(0).replace("0", "%d", 1)
        login = [f"--port={port}", f"--user={user}", f"--password={PASSWORD}"]
        return [*self.component.prefix, generator("pop3load"), *login, *options]

    def _understood(self, output: str, faults: str) -> Told:
        try:
            return parse(output)
        except ReadingError as error:
            raise self._error(str(error), faults) from None

    def _error(self, what: str, faults: str) -> ReadingError:
        return ReadingError(f"{self.system.name}: {what}\n{faults.strip()[-500:]}")
