"""Where the mail log goes and how a line looks.

One event is one line, written with one system call, so that several processes can
share a file. Nothing that fails here reaches the caller: mail matters more than its
log. Lines that could not be written are counted, and ``log_lost`` says how many. Standard
error and a file are waited for, a log daemon is not.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from restante.config.tree import Log
from restante.errors import OperatorError
from restante.eventlog import DEBUG, ERROR, INFO, WARNING, Destination, Fields, log
from restante.paths import directories_to, is_roots_alone

MAX_VALUE = 8192
"""Characters of one value; what is longer is cut, a trace at its beginning."""
FILE_MODE = 0o640
STDERR = 2
SYSLOG_SOCKET = "/dev/log"
_LOG_MAIL = 2 << 3
"""The syslog facility of mail (RFC 5424 §6.2.1)."""
_SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
CUT = "…"

Render = Callable[[str, str, str, Fields], str]
"""Makes a line of a time, the level and the name of an event, and its fields."""


class LogUnusable(OperatorError):
    """The log cannot be opened; the text says which and why."""


class Sink(Protocol):
    """Where lines go."""

    def write(self, level: str, line: bytes) -> None:
        """Take one line, without its line end; raises OSError."""
        ...

    def file(self) -> tuple[int, int] | None:
        """Device and inode of the file that is written to, if it is one; raises OSError."""
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


def setup_logging(settings: Log, directory: str) -> OpenLog:
    """Send the mail log where the settings say, from now on, in this process and its children.

    Call it again to reopen the file or to follow new settings: only when the new log is
    open, the old one is closed (by ``OpenLog.close``). Raises LogUnusable.
    """
    sink = _open_sink(settings.target, directory)
    writer = LineWriter(sink, _RENDERERS[settings.format])
    log.destination = Destination(writer.keep, _LEVELS[settings.level])
    return OpenLog(sink, writer)


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log that is written to."""

    sink: Sink
    writer: LineWriter

    @property
    def lost(self) -> int:
        """Lines that were not written, and of which no ``log_lost`` tells yet."""
        return self.writer.lost

    @property
    def file(self) -> tuple[int, int] | None:
        """Which file it is, if it is one: another one after it was moved away and made anew."""
        with suppress(OSError):  # standard error may be closed
            return self.sink.file()
        return None

    def close(self) -> None:
        """After a successor was set up, or at the end of the process."""
        self.sink.close()


# Where lines go


@dataclass(slots=True)
class LineWriter:
    """Turns events into lines and writes them; it never raises."""

    sink: Sink
    render: Render
    lost: int = 0
    """Lines that could not be written since one could."""

    def keep(self, level: str, event: str, fields: Fields) -> None:
        """Write one event."""
        if "exc_info" in fields:
            fields = _described(fields)
        try:
            if self.lost:
                self._tell_of_loss()
            line = self.render(timestamp(time.time()), level, event, fields)
            self.sink.write(level, line.encode("utf-8", "backslashreplace"))
        except OSError:
            self.lost += 1

    def _tell_of_loss(self) -> None:
        line = self.render(timestamp(time.time()), "error", "log_lost", {"lines": self.lost})
        self.sink.write("error", line.encode())
        self.lost = 0


@dataclass(slots=True)
class _Descriptor:
    """Standard error, or a file opened for appending."""

    descriptor: int
    owned: bool
    torn: bool = False
    """The last line was written in part only (the disk is full)."""

    def write(self, level: str, line: bytes) -> None:
        wanted = b"\n" + line + b"\n" if self.torn else line + b"\n"
        written = os.write(self.descriptor, wanted)
        if written < len(wanted):
            self.torn = True
            raise OSError("the line was written in part")
        self.torn = False

    def file(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_dev, found.st_ino

    def close(self) -> None:
        if self.owned:
            os.close(self.descriptor)


class _Syslog:
    """The system's log daemon, never waited for (RFC 3164 as local daemons take it)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.setblocking(False)
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        return made

    def write(self, level: str, line: bytes) -> None:
        head = f"<{_LOG_MAIL | _SEVERITIES[level]}>restante[{os.getpid()}]: "
        datagram = head.encode("ascii") + line
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            raise
        except OSError:  # the daemon was restarted: its socket is another one now
            fresh = self._connect()
            self._socket.close()
            self._socket = fresh
            fresh.send(datagram)

    def file(self) -> None:
        return None

    def close(self) -> None:
        self._socket.close()


def _open_sink(target: str, directory: str) -> Sink:
    if target == "stderr":
        return _Descriptor(STDERR, owned=False)
    if target == "syslog":
        return _open_syslog(SYSLOG_SOCKET)
    path = os.path.join(directory, target)
    try:
        return _Descriptor(_open_file(path), owned=True)
    except OSError as error:
        raise LogUnusable(
            f"log.target: {path} cannot be opened for writing: {error.strerror}"
        ) from error


def _open_file(path: str) -> int:
    """The log to append to; raises LogUnusable and OSError.

    Root takes none but a plain file where others may have put something in its place: a link
    would have it write to any file, and a FIFO would have it wait.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    if os.geteuid() != 0 or all(map(is_roots_alone, directories_to(path))):
        descriptor = os.open(path, flags, FILE_MODE)  # a FIFO that nobody reads is refused
        os.set_blocking(descriptor, True)
        return descriptor
    descriptor = os.open(path, flags | os.O_NOFOLLOW, FILE_MODE)
    try:
        found = os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise LogUnusable(
        f"log.target: {path} is no plain file, or has other names (hard links), and others than "
        "root can write to the directory"
    )


def _open_syslog(path: str) -> Sink:
    try:
        return _Syslog(path)
    except OSError as error:
        raise LogUnusable(
            f"log.target: no syslog daemon answers at {path} ({error.strerror}); "
            f"start one, or set log.target to stderr or a file"
        ) from error


# How a line looks


def _described(fields: Fields) -> Fields:
    """``fields`` with an exception in words."""
    told = dict(fields)
    error = told.pop("exc_info")
    if isinstance(error, BaseException):
        told["error"] = _describe(error)
        told["trace"] = _trace(error)
    return told


def timestamp(now: float) -> str:
    """UTC in ISO 8601 with milliseconds: ``2026-01-31T23:59:59.999Z``."""
    second, rest = divmod(int(now * 1000), 1000)
    return f"{_whole_second(second)}.{rest:03}Z"


@lru_cache(maxsize=2)
def _whole_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def logfmt(ts: str, level: str, event: str, fields: Fields) -> str:
    """``key=value`` pairs; a value with blanks, quotes or the like is quoted.

    Whatever a value holds, it can neither end the line nor look like another key.
    """
    line = f"ts={ts} level={level} event={event}"
    for key, value in fields.items():
        kind = type(value)
        if (kind is str and _is_bare(value)) or kind is int or kind is float:
            line += f" {key}={value}"
        else:
            line += f" {key}={_logfmt_text(_text(value))}"
    return line


def _logfmt_text(text: str) -> str:
    return text if _is_bare(text) else f'"{_escape(text)}"'


_is_bare = re.compile(rf"[!#-&(-<>-\[\]-~]{{1,{MAX_VALUE}}}").fullmatch
"""Values that need no quotes: visible ASCII without quotes, ``=`` and the backslash."""
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(text: str) -> str:
    if text.isprintable() and "\\" not in text and '"' not in text:
        return text
    return "".join([_ESCAPES.get(char) or _visible(char) for char in text])


def _visible(char: str) -> str:
    """Control characters, line separators, bidi marks and surrogates as escapes."""
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return _cut("; ".join(str(item) for item in value))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + CUT


def as_json(ts: str, level: str, event: str, fields: Fields) -> str:
    """One JSON object, in ASCII."""
    told = {"ts": ts, "level": level, "event": event}
    return json.dumps(told | {key: _json_value(value) for key, value in fields.items()})


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return _text(value)


_RENDERERS: Mapping[str, Render] = {"logfmt": logfmt, "json": as_json}


def _describe(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].rstrip("\n")


def _trace(error: BaseException) -> str:
    """Its end names the error and the place, so that is what is kept."""
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    return text if len(text) <= MAX_VALUE else CUT + text[1 - MAX_VALUE :]
