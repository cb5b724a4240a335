"""Instructions as routing reads them: long lists piece by piece, and those of late not again."""

from __future__ import annotations

import asyncio

from restante.routing.decision import Instruction
from restante.routing.instructions import BadInstruction, parse_instructions, portions

LONG = 100
"""Lines of a list that is kept as it was read: ten thousand take a fifth of a second, and strangers
may ask for the address as often as they like."""
MOST_KEPT = 80_000
"""Lines of all that are kept; the list that was read last is in any case."""

_Lines = tuple[tuple[str, ...], str]
"""And the path of the file that they are from."""


class ListReader:
    """Reads lists of instructions, and lets others have their turn meanwhile."""

    def __init__(self, most: int) -> None:
        """``most`` instructions are what a list may have."""
        self._most = most
        self._kept: dict[_Lines, tuple[Instruction, ...] | str] = {}
        """What was read, or why nothing was."""
        self._lines = 0
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
        self._kept[asked] = found
        self._lines += len(asked[0])
        while self._lines > MOST_KEPT and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._lines -= len(oldest[0])
