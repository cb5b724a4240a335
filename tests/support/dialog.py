"""Golden dialogs as text files, to be run against a protocol core or a live server.

A line is a letter, a colon, a space and its text; ``#`` begins a comment::

    @ databytes 1000          a limit that the server under test must have
    @ starttls 1              what else it is like: starttls, auth, plaintext_auth, requires_auth
                              (a core's profile), tls (implicit)
    C: EHLO client.example    the client sends this line and CRLF
    C= a\\x00b\\n               the client sends exactly this, escapes as in Python, no CRLF
    C* 5000 ab                the client sends ``ab`` (escapes too) so many times
    S: 250 2.1.0 *            the server's next line; a last ``*`` matches any rest
    R: 250 2.1.0 Sender ok    what a core's driver answers to the event (live: nothing)
    E: Rcpt <a@b.example>     an event that a core reports (live: nothing)
    T:                        the TLS handshake, after a core's StartTls (live: nothing)
    X:                        the server closes the connection
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from restante.status import Reply


@dataclass(frozen=True, slots=True)
class Send:
    """Octets from the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Expect:
    """A line from the server, without CRLF."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that the driver gives."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Happens:
    """An event, as the core's test describes it."""

    text: str


@dataclass(frozen=True, slots=True)
class Handshake:
    """TLS begins."""


@dataclass(frozen=True, slots=True)
class Closes:
    """The server ends the stream."""


Step = Send | Expect | Answer | Happens | Handshake | Closes


@dataclass(frozen=True, slots=True)
class Dialog:
    """What one file says."""

    limits: dict[str, int]
    steps: tuple[Step, ...]

    @property
    def sent(self) -> list[bytes]:
        """All that the client sends, parted where TLS begins."""
        parts = [b""]
        for step in self.steps:
            if isinstance(step, Send):
                parts[-1] += step.data
            elif isinstance(step, Handshake):
                parts.append(b"")
        return parts

    @property
    def expected(self) -> list[str]:
        """The patterns of all lines of the server."""
        return [step.pattern for step in self.steps if isinstance(step, Expect)]

    @property
    def answers(self) -> list[Reply]:
        """The driver's replies in order."""
        return [step.reply for step in self.steps if isinstance(step, Answer)]

    @property
    def events(self) -> list[str]:
        """The events in order."""
        return [step.text for step in self.steps if isinstance(step, Happens)]


class Transport(Protocol):
    """A client's end of a connection to a live server."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        ...

    def read_line(self) -> bytes:
        """The next line with its CRLF; nothing at the end of the stream."""
        ...


def parse(path: Path) -> Dialog:
    """The dialog in the file at ``path``; raises ValueError on a line that is none."""
    limits: dict[str, int] = {}
    steps: list[Step] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        mark, text = line[:2], line[3:]
        if line.startswith("@"):
            name, number = line[1:].split()
            limits[name] = int(number)
        else:
            steps.append(_step(mark, text))
    return Dialog(limits, tuple(steps))


def _step(mark: str, text: str) -> Step:
    match mark:
        case "C:":
            return Send(text.encode() + b"\r\n")
        case "C=":
            return Send(_unescape(text))
        case "C*":
            count, _, unit = text.partition(" ")
            return Send(_unescape(unit) * int(count))
        case "S:":
            return Expect(text)
        case "R:":
            return Answer(_reply(text))
        case "E:":
            return Happens(text)
        case "T:":
            return Handshake()
        case "X:":
            return Closes()
    raise ValueError(f"no step of a dialog: {mark} {text}")


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _reply(text: str) -> Reply:
    code, enhanced, words = text.split(" ", 2)
    return Reply(int(code), enhanced.partition(".")[2], words)


def matches(pattern: str, line: str) -> bool:
    """Whether ``line`` is what ``pattern`` says."""
    if pattern.endswith("*"):
        return line.startswith(pattern[:-1])
    return line == pattern


def run(dialog: Dialog, transport: Transport) -> None:
    """Hold the dialog with a live server; an AssertionError says where they part."""
    for step in dialog.steps:
        match step:
            case Send(data):
                transport.send(data)
            case Expect(pattern):
                line = transport.read_line().decode().removesuffix("\r\n")
                assert matches(pattern, line), f"expected {pattern!r}, got {line!r}"
            case Closes():
                rest = transport.read_line()
                assert rest == b"", f"expected the end of the stream, got {rest!r}"
