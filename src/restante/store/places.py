"""Where messages lie in a Maildir: ``new/BASE`` or ``cur/BASE:INFO``, in little memory.

The end of a place is what it has besides the base: its info, and its folder behind a slash where
the info does not tell it. As a rule it does: messages in ``new`` have none, and those in ``cur``
have one (maildir(5)). Of ends there are few, whatever the number of messages.
"""

from __future__ import annotations

import operator
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from restante.store.columns import Column

TOGETHER = 1000
"""Names that are taken apart together; see ``names``."""

_NOT_BASE = re.compile(r"[:/]")


class Ends:
    """The ends of places, in order."""

    __slots__ = ("_ends", "_kinds", "_numbers")

    def __init__(self, ends: Iterable[str] = ()) -> None:
        self._ends: list[str] = []
        self._numbers: dict[str, int] = {}
        self._kinds = array("I")
        self.extend(list(ends))

    def extend(self, ends: Sequence[str]) -> None:
        """Add some."""
        for end in set(ends).difference(self._numbers):
            self._numbers[end] = len(self._ends)
            self._ends.append(end)
        self._kinds.extend(map(self._numbers.__getitem__, ends))

    def __getitem__(self, index: int, /) -> str:
        return self._ends[self._kinds[index]]

    @property
    def octets(self) -> int:
        """What they take in memory, about."""
        return len(self._kinds) * self._kinds.itemsize + sum(map(len, self._ends))


class Places:
    """See ``Strings``."""

    __slots__ = ("_bases", "_ends")

    def __init__(self, bases: Column, ends: Ends) -> None:
        self._bases = bases
        self._ends = ends

    def __len__(self) -> int:
        return len(self._bases)

    def __iter__(self) -> Iterator[bytes]:
        for index, base in enumerate(self._bases):
            yield place(base, self._ends[index])

    def __getitem__(self, index: int, /) -> bytes:
        return place(self._bases[index], self._ends[index])


def place(base: bytes, end: str) -> bytes:
    """Where the message is."""
    info, told, folder = end.partition("/")
    if not told:
        folder = "cur" if info else "new"
    return b"%b/%b%b" % (folder.encode(), base, info.encode("latin-1"))


def rows(folder: str, names: list[str]) -> list[str]:
    """The names of files in ``new`` or ``cur``, each with a slash and the folder if need be."""
    have_info = map(operator.contains, names, repeat(":"))
    info_tells = not any(have_info) if folder == "new" else all(have_info)
    if info_tells:
        return names
    return [name if (":" in name) == (folder == "cur") else f"{name}/{folder}" for name in names]


def apart(rows: list[str]) -> tuple[list[str], Ends]:
    """Bases and ends. Of the rows nothing is left, since there may be a million."""
    ends = Ends()
    for start in range(0, len(rows), TOGETHER):
        chunk = slice(start, start + TOGETHER)
        rows[chunk], some = _apart(rows[chunk])
        ends.extend(some)
    return rows, ends


def _apart(rows: list[str]) -> tuple[list[str], list[str]]:
    text = "\0".join(rows)
    if ":" not in text and "/" not in text:
        return rows, [""] * len(rows)
    parts = text.replace(":", "\0:").split("\0")
    bases, ends = parts[0::2], parts[1::2]
    # An end begins with a colon, and a base has none: so they alternate.
    if len(bases) == len(ends) == len(rows) and all(end[:1] == ":" for end in set(ends)):
        return bases, ends
    bases = [_NOT_BASE.split(row, 1)[0] for row in rows]
    return bases, [row[len(base) :] for base, row in zip(bases, rows, strict=True)]
