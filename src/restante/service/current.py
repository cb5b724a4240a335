"""Parts of a worker that follow the control files: each asks for the one of its kind in force.

What is made of settings stays a function of settings; whoever holds one for long holds one of
these in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from restante import maillog
from restante.queue import (
    Attempted,
    Courier,
    Lanes,
    Notice,
    QueuedMessage,
    Reporter,
    Submission,
    Undeliverable,
)


class ControlLog:
    """Tells the mail log what becomes of changes in the control directory."""

    def reread(self, changed: list[str], passed_over: list[str]) -> None:
        """As ``config.live.Listener`` has it; so does ``refused``."""
        maillog.control_reread(changed, passed_over)

    def refused(self, problems: list[str]) -> None:
        """The old values stay in force."""
        maillog.control_refused(problems)


@dataclass(frozen=True, slots=True)
class CurrentLanes:
    """The lanes by the routes in force."""

    current: Callable[[], Lanes]

    def of(self, domain: str) -> str:
        """As ``queue.Lanes`` has it."""
        return self.current().of(domain)


@dataclass(frozen=True, slots=True)
class CurrentCourier:
    """A courier that routes by the settings in force when an attempt begins."""

    current: Callable[[], Courier]

    async def attempt(self, message: QueuedMessage) -> Attempted:
        """As ``queue.Courier`` has it."""
        return await self.current().attempt(message)


@dataclass(frozen=True, slots=True)
class CurrentReporter:
    """Reports signed and addressed as the settings in force have it."""

    current: Callable[[], Reporter]

    def report(
        self, message: QueuedMessage, notices: Sequence[Notice], now: float, queue_id: str
    ) -> Submission | Undeliverable:
        """As ``queue.Reporter`` has it."""
        return self.current().report(message, notices, now, queue_id)
