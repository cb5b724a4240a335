"""How much each account has sent lately, for the limits on it. This module is the contract.

Windows slide by the minute: what counts for an hour is what was sent in this minute and in
the sixty before it, for a day 1,440. So a limit is never exceeded in any hour or day, and what
was sent is forgotten at most a minute late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from restante.errors import TemporaryError

HOUR = 60
"""Minutes in the shorter window."""
DAY = 24 * HOUR
"""Minutes in the longer window."""


class UsageUnusable(TemporaryError):
    """What was sent cannot be counted: the disk or the file fails."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages and recipients an hour and a day: how many were sent, or how many may be."""

    messages_per_hour: int = 0
    messages_per_day: int = 0
    recipients_per_hour: int = 0
    recipients_per_day: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What each account may send; 0 is no limit."""

    allowed: Counts

    @property
    def any(self) -> bool:
        """Whether there is anything to count for."""
        return self.allowed != Counts()

    def exceeded(self, spent: Counts, recipients: int) -> str:
        """The limit that one more message to so many recipients would exceed, or empty."""
        for name, more in (
            ("messages_per_hour", 1),
            ("messages_per_day", 1),
            ("recipients_per_hour", recipients),
            ("recipients_per_day", recipients),
        ):
            limit = getattr(self.allowed, name)
            if limit and getattr(spent, name) + more > limit:
                return name
        return ""


class Ledger(Protocol):
    """Counts what accounts send, durably, for all workers of an instance together.

    Every method raises UsageUnusable. Names of accounts are folded; ``now`` is in seconds since
    the epoch.
    """

    async def spent(self, account: str, now: float) -> Counts:
        """What the account has sent in the hour and the day before ``now``."""
        ...

    async def take(self, account: str, recipients: int, limits: Limits, now: float) -> str:
        """Count one message to so many recipients, unless that exceeds a limit: then its name."""
        ...

    async def give_back(self, account: str, recipients: int, taken: float) -> None:
        """The message that was counted at ``taken`` was not accepted after all."""
        ...
