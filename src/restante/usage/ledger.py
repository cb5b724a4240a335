"""The ledger of one worker: the shared file, asked by a thread."""

from __future__ import annotations

import os

from restante import maillog
from restante.tally.clerk import Clerk
from restante.usage import Counts, Limits, UsageUnusable
from restante.usage.file import FILE_NAME, UsageFile


class UsageLedger:
    """Implements ``restante.usage.Ledger``."""

    def __init__(self, directory: str) -> None:
        """``directory`` holds the file, or will."""
        path = os.path.join(directory, FILE_NAME)
        self._clerk = Clerk(
            "usage",
            lambda: UsageFile.open(path, create=True),
            UsageUnusable,
            maillog.usage_failed,
        )

    async def spent(self, account: str, now: float) -> Counts:
        """What the account has sent; raises UsageUnusable."""
        return await self._clerk.ask(lambda file: file.spent(account, now), now)

    async def take(self, account: str, recipients: int, limits: Limits, now: float) -> str:
        """Count a message, unless that exceeds a limit: then its name; raises UsageUnusable."""
        return await self._clerk.ask(lambda file: file.take(account, recipients, limits, now), now)

    async def give_back(self, account: str, recipients: int, taken: float) -> None:
        """Forget a message that was counted at ``taken``; raises UsageUnusable."""
        await self._clerk.ask(lambda file: file.give_back(account, recipients, taken), taken)

    async def close(self) -> None:
        """Finish what was asked, and close the file."""
        await self._clerk.close()
