"""Takes what programs on this host have dropped into the queue: once each, whatever crashes.

The steps, and what a crash leaves at each, are written in docs/internals.md. This module is the
contract: what is asked of a queue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from restante.envelope import Content, Envelope
from restante.queue import LastAnswer, Target


class TakingQueue(Protocol):
    """A queue that remembers which files its messages came from, as long as it must."""

    async def add(
        self, envelope: Envelope, content: Content, targets: Sequence[Target], taken_from: str = ""
    ) -> None:
        """Queue a message and note the name it was taken from, both or neither, durably.

        Raises TemporaryError.
        """
        ...

    async def add_failed(
        self,
        envelope: Envelope,
        content: Content,
        targets: Sequence[Target],
        failure: LastAnswer,
        taken_from: str = "",
    ) -> bool:
        """Have the sender of a message told that it failed; all else as with ``add``.

        Whether the message is finished, as nobody wants to be told.
        """
        ...

    async def taken(self) -> frozenset[str]:
        """The names that were noted and not forgotten; raises TemporaryError."""
        ...

    async def forget_taken(self, names: Collection[str]) -> None:
        """Forget names whose files are gone for good; raises TemporaryError."""
        ...
