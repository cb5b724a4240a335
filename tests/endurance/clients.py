"""Clients that go on while servers come and go: senders, and readers that fetch and delete."""

from __future__ import annotations

import contextlib
import itertools
import poplib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.endurance.ledger import Copy, Ledger, TornError, content, read_copy
from tests.support.instance import PATIENCE, Instance
from tests.support.pop3_client import Session

PAUSE = 0.05
"""Seconds between two attempts to connect."""
AT_A_TIME = 50
"""How many messages a reader takes in one session."""
SIZES = (300, *[4096] * 20, 20_000, 20_000, 300_000)

Target = tuple[str, tuple[str, ...], bool]
"""An address, the mailboxes that it leads to, and whether a far host has a copy as well."""


@dataclass
class Promises:
    """What all clients together were told, and what they had to bear."""

    ledger: Ledger
    tokens: Iterator[int]
    far: set[int] = field(default_factory=set)
    """Tokens that a far host is to get."""
    arrived: set[int] = field(default_factory=set)
    """Tokens that it has got, some of them before their sender has heard the 250."""
    complaints: list[str] = field(default_factory=list)
    """What no client may hear."""
    borne: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    total: int = 0
    """How many messages were acknowledged, in all periods."""

    def begin(self, ledger: Ledger) -> None:
        """Forget what was promised."""
        self.ledger = ledger
        self.far.clear()
        self.arrived.clear()

    def missing(self) -> set[int]:
        """What the far host was to get, and has not."""
        with self.lock:
            return self.far - self.arrived


class Refusal(Exception):
    """A reply that is not the one that was hoped for."""


class Wire:
    """One SMTP connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._lines = self._socket.makefile("rb")
        try:
            self.expect("220")
            self.say("EHLO endurance.example.net")
            self.expect("250")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Without a word."""
        self._lines.close()
        self._socket.close()

    def say(self, *commands: str) -> None:
        """Send them at once."""
        self._socket.sendall("".join(f"{each}\r\n" for each in commands).encode("ascii"))

    def send(self, message: bytes) -> None:
        """A content, with its end. (No line of ours begins with a dot.)"""
        self._socket.sendall(message + b".\r\n")

    def expect(self, code: str) -> None:
        """Read a reply. Raises Refusal for another, ConnectionError where none comes."""
        while True:
            line = self._lines.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("no reply")
            if line[3:4] != b"-":
                break
        if not line.startswith(code.encode()):
            raise Refusal(line.decode("ascii", "replace").strip())


class Load:
    """Senders and readers, until the block ends; their promises are in ``promises``."""

    def __init__(
        self,
        instance: Instance,
        promises: Promises,
        targets: list[Target],
        readable: list[str],
        *,
        seed: int,
        senders: int,
        readers: int,
        pace: float = 0.0,
    ) -> None:
        """``pace``: seconds that each client rests between two pieces of work."""
        self._instance = instance
        self._promises = promises
        self._targets = targets
        self._readable = readable
        self._pace = pace
        self._stop = threading.Event()
        works: list[Callable[[random.Random], None]] = [self._send_some] * senders
        works += [self._read_one] * readers
        self._threads = [
            threading.Thread(target=self._go_on, args=(work, random.Random(f"{seed} {number}")))
            for number, work in enumerate(works)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                work(chance)
            except (OSError, EOFError, poplib.error_proto, Refusal) as error:
                self._bear(error)
                time.sleep(PAUSE)
            self._stop.wait(self._pace)

    def _bear(self, error: Exception) -> None:
        said = error.args[0] if error.args else ""
        text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
        with self._promises.lock:
            if isinstance(error, OSError):
                self._promises.borne[type(error).__name__] += 1
                return
            self._promises.borne[text[:40]] += 1
            # "-ERR EOF" is poplib's own word for a connection that has ended.
            if not text.startswith(("4", "-ERR EOF", "-ERR [IN-USE]", "-ERR [SYS/TEMP]")):
                self._promises.complaints.append(text)

    def _send_some(self, chance: random.Random) -> None:
        with contextlib.closing(Wire(self._instance.smtp_port)) as wire:
            for _ in range(chance.choice((1, 1, 5, 50))):
                if self._stop.is_set():
                    break
                self._send(wire, chance)
                self._stop.wait(self._pace)
            wire.say("QUIT")
            wire.expect("221")

    def _send(self, wire: Wire, chance: random.Random) -> None:
        chosen = chance.sample(self._targets, chance.choice((1, 1, 1, 1, 1, 4)))
        with self._promises.lock:
            token = next(self._promises.tokens)
        wire.say(
            "MAIL FROM:<sender@example.net>",
            *(f"RCPT TO:<{address}>" for address, _, _ in chosen),
            "DATA",
        )
        for code in ("250", *("250" for _ in chosen), "354"):
            wire.expect(code)
        wire.send(content(token, chance.choice(SIZES)))
        wire.expect("250")
        with self._promises.lock:
            self._promises.total += 1
            self._promises.ledger.acknowledged[token] = tuple(
                mailbox for _, mailboxes, _ in chosen for mailbox in mailboxes
            )
            if any(far for _, _, far in chosen):
                self._promises.far.add(token)

    def _read_one(self, chance: random.Random) -> None:
        mailbox = chance.choice(self._readable)
        session = Session("127.0.0.1", self._instance.pop3_port)
        try:
            session.user(mailbox)
            session.pass_("secret")
            self._fetch(session, mailbox)
        finally:
            session.close()

    def _fetch(self, session: Session, mailbox: str) -> None:
        copies: list[Copy] = []
        ledger = self._promises.ledger
        for number in itertools.islice(range(1, session.stat()[0] + 1), AT_A_TIME):
            try:
                copies.append(read_copy(b"\n".join([*session.retr(number)[1], b""])))
            except TornError as error:
                with self._promises.lock:
                    ledger.torn.append(f"{mailbox} by POP3: {error}")
            session.dele(number)
        pairs = {(copy.token, mailbox) for copy in copies}
        with self._promises.lock:
            ledger.perhaps |= pairs
        session.quit()
        with self._promises.lock:
            ledger.perhaps -= pairs
            for copy in copies:
                ledger.fetched[copy.token, mailbox].append(copy)
