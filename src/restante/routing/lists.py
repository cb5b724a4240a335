"""Instructions as routing reads them: long lists piece by piece, and those of late not again."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from restante.routing.decision import Instruction
from restante.routing.instructions import BadInstruction, parse_instructions, portions

LONG = 100
"""Lines of a list that is kept as it was read: ten thousand take a fifth of a second, and strangers
may ask for the address as often as they like."""
MOST_KEPT = 32 * 1024 * 1024
"""Octets in memory of all that are kept: nine lists of ten thousand addresses. A list that has more
alone is read each time."""

_Lines = tuple[tuple[str, ...], str]
"""And the path of the file that they are from."""


class ListReader:
    """Reads lists of instructions, and lets others have their turn meanwhile."""

    def __init__(self, most: int) -> None:
        """``most`` instructions are what a list may have."""
        self._most = most
        self._kept: dict[_Lines, tuple[Instruction, ...] | str] = {}
        """What was read, or why nothing was."""
        self._sizes: deque[int] = deque()
        """Of those that are kept, in their order."""
        self._size = 0
        self._turn = asyncio.Lock()
        """One long list at a time: many may ask for the same one, and need it read once."""

    async def read(self, lines: tuple[str, ...], path: str = "") -> tuple[Instruction, ...]:
        """See ``parse_instructions``."""
        if len(lines) < LONG:
            return parse_instructions(lines, path, self._most)
        asked = lines, path
        await asyncio.sleep(0)  # to find it among those that are kept takes a while, too
        found = self._kept.get(asked)
        if found is None:
            async with self._turn:
                found = self._kept.get(asked)
                if found is None:
                    found = await self._read(lines, path)
                    self._keep(asked, found)
        if isinstance(found, str):
            raise BadInstruction(found)
        return found

    async def _read(self, lines: tuple[str, ...], path: str) -> tuple[Instruction, ...] | str:
        found: dict[Instruction, None] = {}
        try:
            for _ in portions(lines, path, self._most, found):
                await asyncio.sleep(0)
        except BadInstruction as error:
            return str(error)
        return tuple(found)

    def _keep(self, asked: _Lines, found: tuple[Instruction, ...] | str) -> None:
        size = _size(asked[0])
        if size > MOST_KEPT:
            return
        self._kept[asked] = found
        self._sizes.append(size)
        self._size += size
        while self._size > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
            self._size -= self._sizes.popleft()


def _size(lines: tuple[str, ...]) -> int:
    """Octets of a list in memory, rather too many than too few.

    What is read of addresses has nearly three times as many as their lines, all else has fewer.
    """
    return 4 * sum(map(sys.getsizeof, lines))
