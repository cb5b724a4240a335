"""Golden dialogs with a running server, and the mail that must come of them, as text files.

First the dialog, a letter, a mark and a text a line; ``#`` begins a comment::

    @ unverified               the instance it is held with (the one called ``plain`` otherwise)
    M: ann@example.com a.1 A: 1\\n\\nhello\\n    a message lies in a mailbox: file name, content
    T: ann@example.com a.1     another program takes that message away
    N: 2                       what follows is on this connection; 1 at the beginning
    C: EHLO client.example     the client sends this line and CRLF
    C= a\\x00b\\n                the client sends exactly this, escapes as in Python, no CRLF
    C* 5000 ab                 the client sends ``ab`` (escapes too) so many times
    S: 250 2.1.0 sender ok     the server's next line
    S+ 250                     the server's next reply, of however many lines, has this code
    D:                         the client drops the connection, and the server notices
    X:                         the server closes the connection

A connection is made when it is first used, and anew after D or X. Then what must be in the
mailboxes when all sessions are over: these messages, in this order, and no others anywhere::

    Mail for ann@example.com:
    | Subject: hello           a line of the message; ``|=`` and ``|*`` as with C
    Nothing arrives.
    Nothing is accepted.       and so nothing arrives
    Waits for far@elsewhere.test.
    Logged: event=bounce_dropped

In all that is expected ``{id}``, ``{date}``, ``{name}``, ``{number}`` and ``{any}`` stand for
something of that kind; ``{name first}`` also gives it a name: where the name comes again, the
same text must come again.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.instance import PATIENCE, Instance, until

LOOPBACK = "127.0.0.1"
_KINDS = {
    "id": rb"[0-9a-hjkmnp-tv-z]{19}",
    "date": rb"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
    "name": rb"[!-~]{1,70}",
    "number": rb"\d+",
    "any": rb"[^\n]*",
}
_PLACEHOLDER = re.compile(r"\{(\w+)(?: (\w+))?\}")
_STEPS = ("M:", "T:", "N:", "C:", "C=", "C*", "S:", "S+", "D:", "X:")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a dialog."""

    line: int
    mark: str
    text: str


@dataclass
class LiveDialog:
    """One file."""

    path: Path
    instance: str = "plain"
    steps: list[Step] = field(default_factory=list)
    mail: list[tuple[str, list[bytes]]] = field(default_factory=list)
    """Mailbox and lines of every message, as patterns."""
    nothing: bool = False
    """Nothing arrives."""
    refused: bool = False
    """Nothing is accepted."""
    waits: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)


class Names:
    """What the named placeholders of one dialog stand for."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def match(self, pattern: bytes, found: bytes) -> bool:
        """Whether ``found`` is what the pattern says; names that are new are learnt."""
        match = re.fullmatch(self._compiled(pattern), found)
        if match is not None:
            self._known.update(match.groupdict())
        return match is not None

    def _compiled(self, pattern: bytes) -> bytes:
        text = pattern.decode("latin-1")
        result, end = b"", 0
        for placeholder in _PLACEHOLDER.finditer(text):
            result += re.escape(text[end : placeholder.start()].encode("latin-1"))
            result += self._group(placeholder[1], placeholder[2], result)
            end = placeholder.end()
        return result + re.escape(text[end:].encode("latin-1"))

    def _group(self, kind: str, name: str | None, before: bytes) -> bytes:
        if name is None:
            return _KINDS[kind]
        if name in self._known:
            return re.escape(self._known[name])
        group = f"(?P<{name}>".encode()
        return f"(?P={name})".encode() if group in before else group + _KINDS[kind] + b")"


# Files


def parse(path: Path) -> LiveDialog:
    """The dialog in the file at ``path``; raises ValueError on a line that is none."""
    dialog = LiveDialog(path)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            _parse_line(dialog, number, line)
    if not (dialog.mail or dialog.nothing):
        raise ValueError(f"{path.name} does not say what mail must result")
    return dialog


def _parse_line(dialog: LiveDialog, number: int, line: str) -> None:
    if line.startswith("@ "):
        dialog.instance = line[2:]
    elif line[:2] in _STEPS:
        dialog.steps.append(Step(number, line[:2], line[3:]))
    elif line.startswith("|"):
        dialog.mail[-1][1].append(_message_line(line))
    elif match := re.fullmatch(r"Mail for (.+):", line):
        dialog.mail.append((match[1], []))
    elif line == "Nothing arrives.":
        dialog.nothing = True
    elif line == "Nothing is accepted.":
        dialog.nothing = dialog.refused = True
    elif match := re.fullmatch(r"Waits for (.+)\.", line):
        dialog.waits.append(match[1])
    elif line.startswith("Logged: "):
        dialog.logged.append(line.removeprefix("Logged: "))
    else:
        raise ValueError(f"{dialog.path.name}, line {number}: no line of a dialog: {line}")


def _message_line(line: str) -> bytes:
    match line[1:2]:
        case "=":
            return _unescape(line[3:])
        case "*":
            return _repeated(line[3:])
    return line[2:].encode() + b"\n"


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _repeated(text: str) -> bytes:
    count, _, unit = text.partition(" ")
    return _unescape(unit) * int(count)


# Mailboxes


@dataclass
class World:
    """A running instance, and where its mailboxes lie."""

    instance: Instance
    maildirs: dict[str, Path]

    def put(self, mailbox: str, name: str, content: bytes) -> None:
        """A message comes into a mailbox by another way than SMTP."""
        maildir = self.maildirs[mailbox]
        (maildir / "tmp" / name).write_bytes(content)
        (maildir / "tmp" / name).rename(maildir / "new" / name)

    def take(self, mailbox: str, name: str) -> None:
        """Another program removes a message, whatever its flags are."""
        (found,) = (file for file in self._files(mailbox) if file.name.partition(":")[0] == name)
        found.unlink()

    def messages(self) -> dict[str, list[bytes]]:
        """All messages of all mailboxes that have any, oldest first."""
        found = {
            mailbox: [file.read_bytes() for file in self._files(mailbox)]
            for mailbox in self.maildirs
        }
        return {mailbox: messages for mailbox, messages in found.items() if messages}

    def empty(self) -> None:
        """Empty all mailboxes."""
        for mailbox in self.maildirs:
            for file in self._files(mailbox):
                file.unlink()

    def sessions(self) -> int:
        """How many sessions are open, as the log has it."""
        log = self.instance.log()
        return log.count("event=session_opened") - log.count("event=session_closed")

    def _files(self, mailbox: str) -> list[Path]:
        folders = [self.maildirs[mailbox] / folder for folder in ("cur", "new")]
        files = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
        return sorted(files, key=lambda file: file.name)


# Dialogs


class _Wire:
    """A client's end of a connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=PATIENCE)
        self._lines = self._socket.makefile("rb")

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def read_line(self) -> bytes:
        return self._lines.readline()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class _Holder:
    """Holds one dialog."""

    def __init__(self, dialog: LiveDialog, world: World, port: int) -> None:
        self._dialog = dialog
        self._world = world
        self._port = port
        self._wires: dict[str, _Wire] = {}
        self._at = "1"
        self._names = Names()

    def hold(self) -> Names:
        try:
            for step in self._dialog.steps:
                self._step(step)
        finally:
            for wire in self._wires.values():
                wire.close()
        return self._names

    def _step(self, step: Step) -> None:
        match step.mark:
            case "M:":
                mailbox, name, content = step.text.split(" ", 2)
                self._world.put(mailbox, name, _unescape(content))
            case "T:":
                self._world.take(*step.text.split())
            case "N:":
                self._at = step.text
            case "C:":
                self._wire().send(step.text.encode() + b"\r\n")
            case "C=":
                self._wire().send(_unescape(step.text))
            case "C*":
                self._wire().send(_repeated(step.text))
            case "S:":
                self._expect(step, step.text.encode())
            case "S+":
                self._expect_reply(step)
            case "D:" | "X:":
                self._end(step)

    def _wire(self) -> _Wire:
        if self._at not in self._wires:
            self._wires[self._at] = _Wire(self._port)
        return self._wires[self._at]

    def _expect(self, step: Step, pattern: bytes) -> bytes:
        line = self._wire().read_line()
        found = line.removesuffix(b"\r\n")
        where = f"{self._dialog.path.name}, line {step.line}"
        assert found + b"\r\n" == line, f"{where}: no whole line: {line!r}"
        assert self._names.match(pattern, found), f"{where}: expected {pattern!r}, got {found!r}"
        return found

    def _expect_reply(self, step: Step) -> None:
        code = step.text.encode()
        while self._expect(step, code + b"{any}")[3:4] == b"-":
            pass

    def _end(self, step: Step) -> None:
        wire = self._wires.pop(self._at)
        if step.mark == "X:":
            rest = wire.read_line()
            assert rest == b"", f"line {step.line}: expected the end of the stream, got {rest!r}"
        wire.close()
        left = len(self._wires)
        until(lambda: self._world.sessions() <= left, "the server took note of the end")


def hold(dialog: LiveDialog, world: World, port: int) -> None:
    """Hold the dialog with the server at ``port``, then look for the mail that must result."""
    world.empty()
    before = len(world.instance.log())
    names = _Holder(dialog, world, port).hold()
    until(lambda: world.sessions() == 0, "all sessions ended")
    _await_log(dialog, world, before)
    _check_mail(dialog, world, names)
    if dialog.refused:
        assert "event=message_accepted" not in world.instance.log()[before:]
    if dialog.waits:
        assert set(dialog.waits) <= set(_waiting(world.instance))


def _await_log(dialog: LiveDialog, world: World, before: int) -> None:
    for text in dialog.logged:
        until(lambda text=text: text in world.instance.log()[before:], f"logged: {text}")


def _check_mail(dialog: LiveDialog, world: World, names: Names) -> None:
    """What goes through the queue takes a moment."""
    wanted: dict[str, list[bytes]] = defaultdict(list)
    for mailbox, lines in dialog.mail:
        wanted[mailbox].append(b"".join(lines))
    deadline = time.monotonic() + PATIENCE
    while _shape(found := world.messages()) != _shape(wanted) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _shape(found) == _shape(wanted), f"{dialog.path.name}: {found}"
    for mailbox, patterns in wanted.items():
        for pattern, message in zip(patterns, found[mailbox], strict=True):
            assert names.match(pattern, message), (
                f"{dialog.path.name}: expected in {mailbox}:\n{_shown(pattern)}"
                f"\nfound:\n{_shown(message)}"
            )


def _shape(mail: dict[str, list[bytes]]) -> dict[str, int]:
    return {mailbox: len(messages) for mailbox, messages in mail.items()}


def _shown(message: bytes) -> str:
    return message.decode("utf-8", "backslashreplace")


def _waiting(instance: Instance) -> Iterator[str]:
    for message in instance.queued():
        for recipient in message["recipients"]:
            if recipient["state"] == "waiting":
                yield recipient["address"]


def make_maildir(maildir: Path, uid: int, gid: int) -> None:
    """An empty Maildir of its owner's."""
    for directory in (maildir.parent, maildir, *(maildir / name for name in ("cur", "new", "tmp"))):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(directory, uid, gid)
