"""Hashes that are replaced by better ones, behind the back of the logins that show the password.

No login waits for it, and nothing is owed: what is not done now is done at the next login.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from restante import maillog
from restante.auth.schemes import hash_password, is_current
from restante.directory import Credentials, PasswordKeeper
from restante.errors import CannotKnow
from restante.threads import NoThread, in_thread

MAX_WAITING = 16
"""Upgrades that wait, with their passwords in memory; they are done one after another, so that
a morning's worth of logins leaves a core for itself."""
PAUSE = 3600.0
"""Seconds without another attempt after one that the database refused, or without a thread."""


class PasswordUpgrades:
    """Upgrades of one worker; ``make_hash`` and ``monotonic`` are seams for tests."""

    def __init__(
        self,
        keeper: PasswordKeeper,
        *,
        make_hash: Callable[[str], str] = hash_password,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._make_hash = make_hash
        self._monotonic = monotonic
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._not_before = 0.0
        self._said = ""

    def offer(self, credentials: Credentials, password: str) -> None:
        """``password`` has just proved right: replace its hash, if that is worth it, later."""
        name = credentials.account.name
        if not credentials.is_row or is_current(credentials.password or ""):
            return
        if self._monotonic() < self._not_before:
            return
        if name in self._waiting or len(self._waiting) >= MAX_WAITING:
            return
        task = asyncio.create_task(self._replace_safely(credentials, password))
        self._waiting[name] = task
        task.add_done_callback(lambda _done: self._waiting.pop(name))

    async def close(self) -> None:
        """Give up what is not done; each hash is the old one or the new one."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _replace_safely(self, credentials: Credentials, password: str) -> None:
        try:
            async with self._turn:
                await self._replace(credentials, password)
        except (CannotKnow, NoThread) as error:
            self._leave_alone(credentials.account.name, str(error))
        except Exception as error:  # noqa: BLE001 - a bug here must not be lost with its task
            maillog.unplanned("upgrade of a password", error)

    async def _replace(self, credentials: Credentials, password: str) -> None:
        if self._monotonic() < self._not_before:
            return
        better = await in_thread(self._make_hash, password)
        if await self._keeper.replace_password(credentials, better):
            maillog.password_upgraded(credentials.account.name)

    def _leave_alone(self, account: str, why: str) -> None:
        """What the database refuses now it will most likely refuse again."""
        self._not_before = self._monotonic() + PAUSE
        if why != self._said:
            maillog.password_not_upgraded(account, why)
            self._said = why
