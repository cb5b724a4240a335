"""How much an account may send: ``submission.messages_per_hour`` and its three fellows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from restante import maillog
from restante.address import fold
from restante.config.tree import Submission
from restante.errors import TemporaryError
from restante.receiver import Allowance, Client, Refusal
from restante.status import Reply
from restante.usage import Counts, Ledger, Limits

CANNOT_COUNT = Reply(451, "3.0", "cannot count what this account sends now, try again later")


def limit_reached(limit: str) -> Reply:
    """What a client hears whose account has reached ``limit``, the name of a setting."""
    what = limit.replace("_per_", " per ")
    return Reply(452, "7.1", f"this account has reached its limit of {what}, try again later")


def limits_of(settings: Submission) -> Limits:
    """What the settings allow every account."""
    return Limits(
        Counts(
            settings.messages_per_hour,
            settings.messages_per_day,
            settings.recipients_per_hour,
            settings.recipients_per_day,
        )
    )


class SendingLimits:
    """Gives every transaction of an account what is left of the account's allowance."""

    def __init__(self, settings: Submission, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._limits = limits_of(settings)
        self._ledger = ledger
        self._clock = clock

    async def begin(self, client: Client) -> Allowance | Refusal | None:
        """At MAIL: what the client may still send; None if there is no limit for it."""
        if client.account is None or not self._limits.any:
            return None
        account = fold(client.account.name)
        try:
            spent = await self._ledger.spent(account, self._clock())
        except TemporaryError as error:
            return Refusal(CANNOT_COUNT, str(error))
        allowance = _Allowance(
            client.session, account, self._limits, spent, self._ledger, self._clock
        )
        return allowance.room_for(1) or allowance


@dataclass(slots=True)
class _Allowance:
    """What ``spent`` leaves of the limits, and the counting of one message."""

    session: str
    account: str
    limits: Limits
    spent: Counts
    ledger: Ledger
    clock: Callable[[], float]
    taken: tuple[int, float] | None = None
    """Recipients and time of what was counted."""
    said: bool = False
    """The log has it that a limit is reached."""

    def room_for(self, recipients: int) -> Refusal | None:
        """Whether one more message to so many was within the limits when MAIL came."""
        return self._refusal(self.limits.exceeded(self.spent, recipients))

    async def take(self, recipients: int) -> Refusal | None:
        """Count the message, unless other sessions have used up what was left."""
        now = self.clock()
        try:
            exceeded = await self.ledger.take(self.account, recipients, self.limits, now)
        except TemporaryError as error:
            return Refusal(CANNOT_COUNT, str(error))
        if not exceeded:
            self.taken = (recipients, now)
        return self._refusal(exceeded)

    async def give_back(self) -> None:
        """Forget the message that was taken; where that fails, it stays counted."""
        if self.taken is None:
            return
        recipients, now = self.taken
        self.taken = None
        try:
            await self.ledger.give_back(self.account, recipients, now)
        except TemporaryError as error:
            maillog.usage_failed(str(error))

    def _refusal(self, exceeded: str) -> Refusal | None:
        if not exceeded:
            return None
        if not self.said:  # once for a message, however many of its recipients are refused
            self.said = True
            allowed = getattr(self.limits.allowed, exceeded)
            maillog.rate_limited(self.session, self.account, exceeded, allowed)
        return Refusal(limit_reached(exceeded), f"submission.{exceeded}")
