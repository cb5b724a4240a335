"""For each account either this process itself, which may be its owner, or its owner's helper."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from restante.directory import Account, DotQmail, SystemFiles
from restante.envelope import Content, Envelope
from restante.errors import TemporaryError
from restante.helper.files import HelperFiles
from restante.helper.writer import HelperWriter
from restante.mda import Delivery, MailboxWriter, MboxDelivery, ProgramDelivery, Ran
from restante.mda.writer import BatchWriter
from restante.status import Delivered, Outcome
from restante.store import Maildrop, MailStore


def is_own(account: Account) -> bool:
    """Whether this process is the account's owner."""
    return account.uid == os.geteuid()


class ChoosingWriter:
    """See MailboxWriter. Belongs to one event loop."""

    def __init__(self, near: BatchWriter, far: HelperWriter) -> None:
        self._near = near
        self._far = far

    def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Coroutine[Any, Any, Outcome]:
        """See MailboxWriter."""
        if len(deliveries) == 1:
            return self._of(deliveries[0].account).deliver_all(envelope, content, deliveries)
        near, far = _divided(deliveries)
        if not near or not far:
            return self._of(deliveries[0].account).deliver_all(envelope, content, deliveries)
        return self._deliver_all(envelope, content, near, far)

    async def _deliver_all(
        self,
        envelope: Envelope,
        content: Content,
        near: Sequence[Delivery],
        far: Sequence[Delivery],
    ) -> Outcome:
        outcomes = await asyncio.gather(
            self._near.deliver_all(envelope, content, near),
            self._far.deliver_all(envelope, content, far),
        )
        failures = [each for each in outcomes if not isinstance(each, Delivered)]
        if not failures:
            return Delivered(f"{len(near) + len(far)} mailboxes")
        if isinstance(outcomes[0], Delivered):
            # What cannot be removed either is at worst delivered twice; nothing is lost by it.
            with contextlib.suppress(OSError, TemporaryError):
                await self._near.withdraw(envelope, content, near)
        if isinstance(outcomes[1], Delivered):
            await self._far.withdraw(envelope, content, far)
        return failures[0]

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        """See MailboxWriter."""
        near, far = _divided(deliveries)
        if not near or not far:
            writer = self._of(deliveries[0].account) if deliveries else self._near
            return await writer.deliver_each(envelope, content, deliveries, again=again)
        by_near, by_far = await asyncio.gather(
            self._near.deliver_each(envelope, content, near, again=again),
            self._far.deliver_each(envelope, content, far, again=again),
        )
        some, others = iter(by_near), iter(by_far)
        return tuple(next(some if is_own(each.account) else others) for each in deliveries)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        return await self._of(mbox.account).append(envelope, content, mbox, again=again)

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        """See MailboxWriter."""
        return await self._of(program.account).run(envelope, content, program)

    async def close(self) -> None:
        """See MailboxWriter."""
        await self._far.close()
        await self._near.close()

    def _of(self, account: Account) -> MailboxWriter:
        return self._near if is_own(account) else self._far


def _divided(deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Those for this process, and those for others."""
    parts: tuple[list[Delivery], list[Delivery]] = [], []
    for each in deliveries:
        parts[not is_own(each.account)].append(each)
    return parts


class ChoosingStore:
    """See MailStore."""

    def __init__(self, near: MailStore, far: MailStore) -> None:
        self._near = near
        self._far = far

    def open(self, account: Account) -> Coroutine[Any, Any, Maildrop]:
        """See ``MailStore.open``."""
        return (self._near if is_own(account) else self._far).open(account)


class ChoosingFiles:
    """See SystemFiles: users are looked up here, their files by their owners."""

    def __init__(self, near: SystemFiles, far: HelperFiles) -> None:
        self._near = near
        self._far = far

    async def user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._near.user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await (self._near if is_own(account) else self._far).dot_qmail(account, extension)
