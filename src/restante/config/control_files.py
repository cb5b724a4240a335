"""The files of a qmail control directory as lines: what is read, and what it is known again by.

As qmail reads them: blanks and tabs at the end of a line do not count, nor does a missing line
end at the end of the file. What the lines mean is not known here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_FILE = 16 * 1024 * 1024
"""Octets of one file: about half a million domains in morercpthosts."""
MAX_COMPLAINTS = 20
"""Problems, or warnings, of one file that are told one by one."""

_COMMENT = ord("#")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Any but the tab."""

Stamp = tuple[int, int, int, int]
"""Inode, size, and times of content and inode in nanoseconds: another one is another content."""
Stamps = Mapping[str, Stamp | None]
"""By the name of the file; None: there is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not empty, unless it is the first one."""

    number: int
    text: str


@dataclass(slots=True)
class Files:
    """The control directory while it is read: complaints are collected, nothing is raised."""

    directory: str
    environ: Mapping[str, str]
    me: str = ""
    """The host's name, which is the default of several files."""
    stamps: dict[str, Stamp | None] = field(default_factory=dict)
    """Of the files that were asked for, from before they were read."""
    _problems: dict[str, list[str]] = field(default_factory=dict)
    _warnings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What keeps the directory from being used, in the order of the files."""
        return [text for texts in self._problems.values() for text in texts]

    @property
    def warnings(self) -> list[str]:
        """What qmail passes over in silence."""
        return [text for texts in self._warnings.values() for text in texts]

    def problem(self, name: str, what: str, line: int = 0) -> None:
        """Something is wrong with a file, or with one line of it."""
        self._complain(self._problems, name, what, line)

    def warn(self, name: str, what: str, line: int = 0) -> None:
        """Something in a file is not obeyed."""
        self._complain(self._warnings, name, what, line)

    def place(self, name: str, line: int = 0) -> str:
        """A file, or a line of it, as complaints name it."""
        path = os.path.join(self.directory, name)
        return f"{path}: line {line}" if line else path

    def first_line(self, name: str) -> Line | None:
        """The only line that counts in most files; None where there is no file.

        It is taken as it is: a # there begins no comment (qmail's control_readline).
        """
        raws = self._raw_lines(name)
        if raws is None:
            return None
        if any(raws[1:]):
            self.warn(name, "only the first line counts")
        return Line(1, self._decoded(name, raws[0], 1))

    def lines(self, name: str) -> list[Line] | None:
        """Lines that are neither empty nor comments (qmail's control_readfile); None: no file."""
        raws = self._raw_lines(name)
        if raws is None:
            return None
        return [
            Line(number, text)
            for number, raw in enumerate(raws, start=1)
            if raw and raw[0] != _COMMENT and (text := self._decoded(name, raw, number))
        ]

    def _raw_lines(self, name: str) -> list[bytes] | None:
        """All lines, one at least, without blanks at their ends; None where none can be read."""
        octets = self._read(name)
        return None if octets is None else [raw.rstrip(b" \t") for raw in octets.split(b"\n")]

    def _decoded(self, name: str, raw: bytes, number: int) -> str:
        """The text of a line; empty, and a problem, where it has none."""
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            self.problem(name, "is not UTF-8", number)
            return ""
        if _CONTROL_CHARACTER.search(text):
            self.problem(name, "holds a control character", number)
            return ""
        # A byte order mark, a no-break space: what was meant is there to see, and does not match.
        if unseen := _unseen(text):
            self.problem(name, f"holds {unseen!r}, which cannot be seen", number)
            return ""
        return text

    def _read(self, name: str) -> bytes | None:
        path = os.path.join(self.directory, name)
        try:
            # A FIFO must not keep the server waiting for somebody to write.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self.stamps[name] = None
            return None
        except OSError as error:
            self.stamps[name] = stamp_of(path)
            self.problem(name, f"cannot be read: {error.strerror}")
            return None
        try:
            found = os.fstat(descriptor)
            self.stamps[name] = _stamp(found)
            octets = _whole(descriptor) if stat.S_ISREG(found.st_mode) else None
        except OSError as error:
            self.problem(name, f"cannot be read: {error.strerror}")
            return None
        finally:
            os.close(descriptor)
        if octets is None:
            self.problem(name, "is no regular file")
            return None
        if len(octets) > MAX_FILE:
            self.problem(name, f"is larger than {MAX_FILE} octets")
            return None
        return octets

    def _complain(self, complaints: dict[str, list[str]], name: str, what: str, line: int) -> None:
        told = complaints.setdefault(name, [])
        complaint = f"{self.place(name, line)}: {what}"
        if complaint in told:
            return
        if len(told) < MAX_COMPLAINTS:
            told.append(complaint)
        elif len(told) == MAX_COMPLAINTS:
            told.append(f"{self.place(name)}: there is more of this kind")


def _unseen(text: str) -> str:
    """The first character that is neither to be seen nor a blank; empty if there is none."""
    if text.isprintable():
        return ""  # as nearly all lines are
    return next((each for each in text if each != "\t" and not each.isprintable()), "")


def _whole(descriptor: int) -> bytes:
    """The content of a file, or its first MAX_FILE + 1 octets."""
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(MAX_FILE + 1)


def stamp_of(path: str) -> Stamp | None:
    """What a file is known again by; None if there is none, or none that can be looked at."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
