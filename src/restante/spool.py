"""A message while it is received: in memory, and in a file once it is large."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading

from restante.address import fold
from restante.envelope import Content, HeaderFacts, line_feeds
from restante.errors import TemporaryError
from restante.threads import NoThread, begun, in_thread

BLOCK = 256 * 1024
"""Octets that are gathered before they are written to the file."""
SMALL = 1024
"""Octets of a piece that is no object of its own: an object takes some 40 octets more."""
PREFIX = "spool-"
"""How the names of spool files begin."""

# The line end before a field is what is looked for: a search for it does not stop at each octet.
_FIELD = re.compile(rb"\n(?:received[ \t]*:|delivered-to[ \t]*:(.*(?:\n[ \t].*)*))", re.IGNORECASE)


class SpoolFailed(TemporaryError):
    """The spool file cannot be written: a full disk, a failing one, no thread."""


def clean_spool(directory: str) -> int:
    """Remove what a crash left in ``directory``, which one process has to itself; how many files.

    Raises OSError.
    """
    left = [name for name in os.listdir(directory) if name.startswith(PREFIX)]
    for name in left:
        os.unlink(os.path.join(directory, name))
    return len(left)


def header_facts(header: bytes) -> HeaderFacts:
    """What delivery must know of a header block with LF line ends."""
    received = 0
    delivered_to = set()
    for field in _FIELD.finditer(b"\n" + header):
        value = field.group(1)
        if value is None:
            received += 1
        else:
            text = value.replace(b"\n", b"").decode("utf-8", "replace")
            delivered_to.add(fold(text.strip()))
    return HeaderFacts(received, frozenset(delivered_to))


class Spool:
    """Collects one message, line ends LF.

    ``threshold`` and ``max_header`` are octets. The file has mode 0600 and is gone
    after ``close``, unless somebody has moved it away. Not durable: a message that
    is to last is made durable by whoever takes its content.
    """

    def __init__(self, directory: str, threshold: int, max_header: int) -> None:
        self._directory = directory
        self._threshold = threshold
        self._max_header = max_header
        self._header_size = 0
        """How much has come of it. It is read out of the rest when it is asked for: kept beside
        the file, it would be memory for as long as a client takes its time."""
        self._in_header = True
        self._begins_line = True
        """Whether a line has ended: an empty one ends the header, even as the first."""
        self._waiting: list[bytes | bytearray] = []
        """What has come in small pieces is a bytearray."""
        self._waiting_size = 0
        self._file: int | None = None
        self._path = ""
        self._lines = 0
        self._closed = False
        self._lock = threading.Lock()
        self.size = 0
        """Octets so far."""
        self.header_too_large = False
        """The header is longer than it may be; its facts are incomplete."""

    async def write(self, chunk: bytes) -> None:
        """Append; raises SpoolFailed. Blocks of a large message are written in a thread."""
        if self.take(chunk, line_feeds(chunk)):
            await self.spill()

    def take(self, chunk: bytes, lines: int) -> bool:
        """Append to what is in memory; whether that is so much now that ``spill`` has to follow.

        ``lines``: the line feeds in ``chunk``.
        """
        self.size += len(chunk)
        self._lines += lines
        if len(chunk) < SMALL:
            self._add_small(chunk)
        else:
            self._waiting.append(chunk)
        self._waiting_size += len(chunk)
        if self._in_header and chunk:
            self._read_header(chunk)
        return self.size > self._threshold and self._waiting_size >= BLOCK

    async def spill(self) -> None:
        """Write what is in memory, in a thread; raises SpoolFailed."""
        try:
            await in_thread(self._spill)
        except NoThread as error:
            raise SpoolFailed(f"{self._directory}: the spool cannot be written: {error}") from error

    @property
    def is_large(self) -> bool:
        """Whether it is, or will be, in a file; ``finish`` writes what is not there yet."""
        return self.size > self._threshold

    @property
    def header(self) -> bytes:
        """What has come before the first empty line, up to the most that a header may have.

        Raises SpoolFailed.
        """
        size = min(self._header_size, self._max_header)
        waiting = b"".join(self._waiting)
        if self._file is None:
            return waiting[:size]
        try:
            return (os.pread(self._file, size, 0) + waiting)[:size]
        except OSError as error:
            raise SpoolFailed(f"{self._path}: the spool cannot be read: {error}") from error

    def finish(self, trace: bytes) -> Content:
        """The whole message behind its trace fields; raises SpoolFailed.

        Of a large one ``spill`` is to have written the rest: here it would be waited for.
        """
        if not self.is_large:
            body = b"".join(self._waiting)
            facts = header_facts(body[: min(self._header_size, self._max_header)])
            return Content(trace, body, self.size, self._lines, facts)
        self._spill()
        return Content(trace, self._path, self.size, self._lines, header_facts(self.header))

    def close(self) -> None:
        """Forget the message and remove its file, also while a block is being written.

        What fails then is nobody's concern: the message has had its answer, or needs none.
        """
        with self._lock:
            self._closed = True
            self._waiting.clear()
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):  # the descriptor is free all the same
                    os.close(file)
                with contextlib.suppress(OSError):  # moved away, or left to ``clean_spool``
                    os.unlink(self._path)

    def let_go(self) -> None:
        """Close, in a thread where there is a file: nobody waits until it is gone."""
        if self.is_large:
            with contextlib.suppress(NoThread):
                begun(None, self.close)
                return
        self.close()

    def _add_small(self, chunk: bytes) -> None:
        """A client that sends octet by octet takes no more memory than they do."""
        waiting = self._waiting
        if waiting and isinstance(waiting[-1], bytearray):
            waiting[-1] += chunk
        else:
            waiting.append(bytearray(chunk))

    def _read_header(self, chunk: bytes) -> None:
        if self._begins_line and chunk.startswith(b"\n"):
            self._in_header = False
            return
        end = chunk.find(b"\n\n") + 1
        self._header_size += end or len(chunk)
        self._begins_line = chunk.endswith(b"\n")
        self.header_too_large = self._header_size > self._max_header
        self._in_header = not (end or self.header_too_large)

    def _spill(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._append(b"".join(self._waiting))
            except OSError as error:
                raise SpoolFailed(f"{self._directory}: the spool cannot be written: {error}") from (
                    error
                )
            self._waiting.clear()
            self._waiting_size = 0

    def _append(self, block: bytes) -> None:
        if self._file is None:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._file, self._path = tempfile.mkstemp(prefix=PREFIX, dir=self._directory)
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(self._file, rest) :]
