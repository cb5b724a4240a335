"""A guard of passwords where guesses are no matter."""

from __future__ import annotations

from restante.guessing import CLEAR, UNSUSPECTED, Look, Standing


class Unguarded:
    """Counts nothing."""

    async def look(self, account: str, peer: str) -> Look:
        """Nothing speaks against it."""
        return UNSUSPECTED

    async def wrong(self, account: str, peer: str, password: str | None) -> Standing:
        """CLEAR."""
        return CLEAR

    async def right(self, account: str, peer: str, before: Look) -> None:
        """Nothing."""
