"""What worker and helper say to each other, as octets: bounded frames of bounded fields.

A frame is a head, then as many octets as the head says. Either end takes the other for
hostile: whatever breaks a rule or a limit is a BadFrame, and ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any

from restante.errors import TemporaryError
from restante.records import record

HEAD = struct.Struct("!IIBB")
"""Octets after the head, number of the request, kind, descriptors that come with it."""
MAX_FRAME = 4 * 1024 * 1024
"""Octets after the head. The largest frames are deliveries to ``MAX_DELIVERIES`` Maildirs."""
MAX_DESCRIPTORS = 1
"""Descriptors that one frame may bring: a spooled body."""

_U8 = struct.Struct("!B")
_U32 = struct.Struct("!I")


class BadFrame(TemporaryError):
    """The other end said what it must not say, or this end was about to."""


class Kind(IntEnum):
    """What a frame is; requests go to the helper, all else comes from it."""

    DELIVER = 1
    WITHDRAW = 2
    APPEND = 3
    RUN = 4
    OPEN = 5
    READ = 6
    MORE = 7
    REMOVE = 8
    CLOSE = 9
    DOT_QMAIL = 10

    OUTCOMES = 64
    RAN = 65
    LISTING = 66
    """A part of a listing; more follows under the same number."""
    OPENED = 67
    """What the listing can be recognised by, and its last part."""
    MESSAGES = 68
    DONE = 69
    FAILED = 70
    FILE = 71
    UNCHANGED = 72
    """The listing is the one that the request can recognise."""
    WORKING = 73
    """A sign of life, and nothing else: the request, one of LASTING, is still being worked on."""

    # Under number 0: nobody asked.
    REFUSED = 96
    """There will be no helper; a text says why."""
    GOODBYE = 97
    """No more requests, please: the helper is wanted elsewhere once what was begun is done."""
    REMARK = 98
    """A line for the log."""


LASTING = frozenset((Kind.OPEN, Kind.REMOVE))
"""Requests that may take longer than a worker waits without a sign of life: a maildrop may have to
be read as a whole, or a hundred thousand messages be deleted."""


@lru_cache(maxsize=64)
def counts(number: int) -> struct.Struct:
    """So many counts."""
    return struct.Struct(f"!{number}I")


@record
class Frame:
    """One frame as it came."""

    number: int
    kind: int
    body: bytes
    descriptor: int = -1
    """Whoever takes the frame closes it; -1: none."""


class Writer:
    """Puts fields one behind the other; raises BadFrame for what no reader would take."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def octets(self) -> bytes:
        """All fields so far."""
        return b"".join(self._parts)

    def flag(self, value: bool) -> None:
        """One bit, as an octet."""
        self._parts.append(b"\1" if value else b"\0")

    def small(self, value: int) -> None:
        """0 to 255."""
        self._parts.append(_U8.pack(value))

    def count(self, value: int) -> None:
        """Less than 2^32."""
        self._parts.append(_U32.pack(value))

    def blob(self, value: bytes, limit: int) -> None:
        """Octets, ``limit`` at most."""
        self._parts.append(_U32.pack(len(value)))
        self.bare(value, limit)

    def bare(self, value: bytes, limit: int) -> None:
        """As ``blob``, for a reader who knows how many there are."""
        if len(value) > limit:
            raise BadFrame(f"{len(value)} octets are too many for a helper, the limit is {limit}")
        self._parts.append(value)

    def text(self, value: str, limit: int) -> None:
        """Text of ``limit`` octets at most; octets that are not UTF-8 are kept."""
        try:
            self.blob(value.encode("utf-8", "surrogateescape"), limit)
        except UnicodeEncodeError as error:
            raise BadFrame("a text for a helper holds what is no text") from error

    def texts(self, values: Sequence[str], limit: int) -> None:
        """So many texts as the reader expects, each of ``limit`` octets at most: the fast way."""
        try:
            octets = [value.encode("utf-8", "surrogateescape") for value in values]
        except UnicodeEncodeError as error:
            raise BadFrame("a text for a helper holds what is no text") from error
        lengths = [len(each) for each in octets]
        if lengths and max(lengths) > limit:
            raise BadFrame(f"{max(lengths)} octets are too many, the limit is {limit}")
        self._parts.append(counts(len(lengths)).pack(*lengths))
        self._parts += octets

    def packed(self, form: struct.Struct, *values: float) -> None:
        """Several numbers at once."""
        self._parts.append(form.pack(*values))

    def cut(self, value: str, limit: int) -> None:
        """Text for people: its first ``limit`` octets."""
        octets = value.encode("utf-8", "backslashreplace")
        if len(octets) > limit:
            octets = octets[:limit].decode("utf-8", "ignore").encode()
        self.blob(octets, limit)


class Reader:
    """Takes fields in the order in which they were put; raises BadFrame."""

    __slots__ = ("_octets", "_place")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._place = 0

    def flag(self) -> bool:
        """See Writer."""
        value = self.small()
        if value > 1:
            raise BadFrame(f"a flag is {value}")
        return value == 1

    def small(self) -> int:
        """See Writer."""
        try:
            value = self._octets[self._place]
        except IndexError:
            raise BadFrame("a frame ends within a field") from None
        self._place += 1
        return value

    def count(self, limit: int) -> int:
        """A number that is ``limit`` at most."""
        try:
            (value,) = _U32.unpack_from(self._octets, self._place)
        except struct.error:
            raise BadFrame("a frame ends within a field") from None
        self._place += _U32.size
        if value > limit:
            raise BadFrame(f"{value} exceeds the limit {limit}")
        return int(value)

    def blob(self, limit: int) -> bytes:
        """See Writer."""
        return self.take(self.count(limit))

    def take(self, length: int) -> bytes:
        """So many octets as they are."""
        end = self._place + length
        if end > len(self._octets):
            raise BadFrame("a frame ends within a field")
        found = self._octets[self._place : end]
        self._place = end
        return found

    def text(self, limit: int) -> str:
        """See Writer."""
        return self.blob(limit).decode("utf-8", "surrogateescape")

    def told(self, limit: int) -> str:
        """Text for people, as ``Writer.cut`` puts it: replies and the queue take no other."""
        try:
            return self.blob(limit).decode()
        except UnicodeDecodeError:
            raise BadFrame("a text for people is no UTF-8") from None

    def texts(self, number: int, limit: int) -> list[str]:
        """So many texts; see Writer. The caller bounds their number."""
        lengths = self.unpacked(counts(number))
        octets, place = self._octets, self._place
        found: list[str] = []
        for length in lengths:
            if length > limit:
                raise BadFrame(f"{length} octets are too many, the limit is {limit}")
            found.append(octets[place : place + length].decode("utf-8", "surrogateescape"))
            place += length
        if place > len(octets):
            raise BadFrame("a frame ends within a field")
        self._place = place
        return found

    def unpacked(self, form: struct.Struct) -> tuple[Any, ...]:
        """Several numbers at once."""
        try:
            values = form.unpack_from(self._octets, self._place)
        except struct.error:
            raise BadFrame("a frame ends within a field") from None
        self._place += form.size
        return values

    def rest(self) -> bytes:
        """All that is left."""
        found = self._octets[self._place :]
        self._place = len(self._octets)
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if self._place != len(self._octets):
            raise BadFrame("a frame is longer than its fields")


def head(number: int, kind: int, buffers: Sequence[bytes], descriptors: int = 0) -> bytes:
    """The head of a frame that consists of these buffers; raises BadFrame if it is too large."""
    length = sum(map(len, buffers))
    if length > MAX_FRAME:
        raise BadFrame(f"{length} octets are too many for a helper, the limit is {MAX_FRAME}")
    return HEAD.pack(length, number, kind, descriptors)


class Parser:
    """Finds frames in octets that come in pieces, and gives each the descriptor that it names."""

    def __init__(self) -> None:
        self._missing = HEAD.size
        """So many octets more can tell something new."""
        self._pieces: list[bytes] = []
        self._descriptors: list[int] = []

    def feed(self, octets: bytes, descriptors: Sequence[int] = ()) -> Iterator[Frame]:
        """The frames that are whole now; raises BadFrame after the last good one.

        The descriptors belong to the parser from here on.
        """
        self._descriptors += descriptors
        if len(octets) < self._missing:
            self._pieces.append(octets)
            self._missing -= len(octets)
            return iter(())
        whole = b"".join((*self._pieces, octets)) if self._pieces else octets
        self._pieces.clear()
        return self._frames(whole)

    def take_descriptors(self) -> list[int]:
        """Those that no frame has; the caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def _frames(self, octets: bytes) -> Iterator[Frame]:
        place = 0
        self._missing = HEAD.size
        while len(octets) - place >= HEAD.size:
            length, number, kind, count = HEAD.unpack_from(octets, place)
            if length > MAX_FRAME or count > MAX_DESCRIPTORS:
                raise BadFrame(f"a frame of {length} octets and {count} descriptors")
            begin, end = place + HEAD.size, place + HEAD.size + length
            if end > len(octets):
                self._missing = HEAD.size + length
                break
            yield Frame(number, kind, octets[begin:end], self._claim() if count else -1)
            place = end
        if place < len(octets):
            self._pieces.append(octets[place:])
            self._missing -= len(octets) - place
        if len(self._descriptors) > MAX_DESCRIPTORS:
            raise BadFrame("descriptors that no frame names")

    def _claim(self) -> int:
        if not self._descriptors:
            raise BadFrame("a frame without the descriptor that it names")
        return self._descriptors.pop(0)
