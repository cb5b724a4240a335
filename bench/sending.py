"""Messages to a system, timed until the last one is in its mailbox.

They come from smtp-source of Postfix, or, as that cannot do TLS, from generators/smtpload.c.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.accounts import (
    DOMAIN,
    NUMBERED,
    empty_maildirs,
    maildir_of,
    make_maildirs,
    recipients,
    stored_sizes,
)
from bench.processes import Component
from bench.programs import generator, program
from bench.systems.system import HOST, LOOPBACK, System
from restante.mda.maildir import SETTLED_AFTER

PATIENCE = 120
"""Seconds after which a message that is not in its mailbox counts as lost."""
SENDER = "sender@example.net"


class LostError(Exception):
    """Messages were refused, or acknowledged and did not arrive."""


SHORTEST_LINE = 64
"""Octets: smtp-source counts CR LF, its lines are longer than this, and mail is stored with LF."""


@dataclass(frozen=True, slots=True)
class Load:
    """How messages are sent."""

    sessions: int
    octets: int = 4096
    kept: bool = False
    """A session goes on with the next message; otherwise each has a connection of its own."""
    tls: bool = False
    """STARTTLS, with a full handshake for each connection; these are not kept."""

    def secured(self, messages: int) -> list[str]:
        """For smtpload, to mailboxes of their own."""
        numbers = {"clients": self.sessions, "messages": messages, "octets": self.octets}
        options = [f"--{name}={number}" for name, number in numbers.items()]
        return [f"--tls={HOST}", f"--to=%d{NUMBERED}", *options]

    def options(self, messages: int) -> list[str]:
        """For smtp-source."""
        kept = ["-d"] if self.kept else []
        sizes = ["-s", str(min(self.sessions, messages)), "-l", str(self.octets)]
        return [*kept, *sizes, "-m", str(messages)]


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends to one system, and looks into its mailboxes, which are named by their numbers."""

    system: System
    component: Component

    def prepare(self, numbers: Sequence[int]) -> None:
        """These mailboxes are there, and empty."""
        make_maildirs(self.system.mail, numbers, self.system.owner)
        empty_maildirs(self.system.mail, numbers)

    def send(self, load: Load, messages: int) -> float:
        """Seconds until all are acknowledged, each in a mailbox of its own; raises LostError."""
        numbers = recipients(messages)
        with self.arrivals(numbers, messages) as last:
            began = time.monotonic()
            if load.tls:
                self._run(self._smtpload(load.secured(messages)))
            else:
                self.source(["-N", "-t", NUMBERED, *load.options(messages)])
            seconds = max(time.monotonic(), last()) - began
        self.check(numbers, messages, load.octets)
        return seconds

    def check(self, numbers: Iterable[int], messages: int, octets: int) -> None:
        """That so many messages of such a size are in these mailboxes; raises LostError."""
        sizes = stored_sizes(self.system.mail, numbers)
        least = octets - octets // SHORTEST_LINE
        whole = sum(size >= least for size in sizes)
        if not whole == len(sizes) == messages:
            raise LostError(f"{messages} messages sent, {len(sizes)} stored, {whole} of them whole")

    def source(self, options: Sequence[str]) -> None:
        """Run smtp-source to its end; raises LostError."""
        host = f"{LOOPBACK}:{self.system.smtp_port}"
        self._run([program("smtp-source"), "-f", SENDER, *options, host])

    def _let_settle(self) -> None:
        """Mailboxes are a minute old, as nearly all are: Restante syncs more for newer ones."""
        made = os.stat(self.system.mail / DOMAIN).st_mtime
        time.sleep(max(made + SETTLED_AFTER + 1 - time.time(), 0))

    def _smtpload(self, options: Sequence[str]) -> list[str]:
        return [generator("smtpload"), f"--port={self.system.smtp_port}", *options]

    def _run(self, command: Sequence[str]) -> None:
        """A generator of messages, to its end; raises LostError."""
        with subprocess.Popen(
            [*self.component.prefix, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            self.component.adopt(process.pid)
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace")
        if process.returncode:
            raise LostError(f"{Path(command[0]).name} gave up: {said.strip()[-500:]}")

    @contextmanager
    def arrivals(self, numbers: Iterable[int], messages: int) -> Iterator[Callable[[], float]]:
        """Watches these mailboxes; the callable, once all are sent, waits for so many messages.

        It returns when the last one came, by the monotonic clock, or raises LostError.
        """
        self._let_settle()
        command = [*self.component.prefix, generator("arrivals"), str(messages), str(PATIENCE)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as watcher:
            try:
                self.component.adopt(watcher.pid)
                assert watcher.stdin is not None
                assert watcher.stdout is not None
                watcher.stdin.write(_folders(self.system.mail, numbers) + "\n")
                watcher.stdin.flush()
                assert watcher.stdout.readline() == "ready\n"
                yield lambda: _last_arrival(watcher, messages)
            finally:
                watcher.kill()


def _folders(mail: Path, numbers: Iterable[int]) -> str:
    return "".join(f"{maildir_of(mail, each)}/new\n" for each in numbers)


def _last_arrival(watcher: subprocess.Popen[str], messages: int) -> float:
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    watcher.stdin.close()
    said = watcher.stdout.readline().split()
    if not said:
        raise LostError("messages were not counted, as said above")
    count, last = said
    if watcher.wait() != 0:
        raise LostError(f"{count} of {messages} messages are in their mailboxes")
    return float(last)
