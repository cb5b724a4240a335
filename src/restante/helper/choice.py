"""For each account either this process itself, which may be its owner, or its owner's helper.

A home on a file system that may hang is its helper's in any case: what hangs holds up a helper that
is there for it alone, and not a worker with all of its sessions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from restante.directory import Account, DotQmail, SystemFiles
from restante.envelope import Content, Envelope
from restante.helper.files import HelperFiles
from restante.helper.writer import HelperWriter
from restante.mda import Delivery, MailboxWriter, MboxDelivery, ProgramDelivery, Ran
from restante.mda.writer import BatchWriter
from restante.mounts import FarPlaces
from restante.status import Delivered, Outcome
from restante.store import Maildrop, MailStore


class Nearness:
    """Whose mail this process works with itself. Belongs to one event loop.

    It may be another answer the next time, as file systems are mounted meanwhile.
    """

    def __init__(self, places: FarPlaces) -> None:
        self._uid = os.geteuid()
        self._places = places

    def of(self, account: Account) -> bool:
        """Whether the account is this process's own, and its home on a disk of this machine."""
        return account.uid == self._uid and not self._places.of(account.home)


class ChoosingWriter:
    """See MailboxWriter. Belongs to one event loop."""

    def __init__(self, near: BatchWriter, far: HelperWriter, nearness: Nearness) -> None:
        self._near = near
        self._far = far
        self._nearness = nearness

    def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Coroutine[Any, Any, Outcome]:
        """See MailboxWriter."""
        if len(deliveries) == 1:
            return self._of(deliveries[0].account).deliver_all(envelope, content, deliveries)
        near, far = _divided(deliveries, self._are_near(deliveries))
        if not near or not far:
            writer: MailboxWriter = self._near if near else self._far
            return writer.deliver_all(envelope, content, deliveries)
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
            self._far.doubt(envelope)
            await self._near.withdraw(envelope, content, near)
        if isinstance(outcomes[1], Delivered):
            await self._far.withdraw(envelope, content, far)
        return failures[0]

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        """See MailboxWriter."""
        again = again or self._far.doubts(envelope)  # of both
        are_near = self._are_near(deliveries)
        near, far = _divided(deliveries, are_near)
        if not near or not far:
            writer: MailboxWriter = self._far if far else self._near
            return await writer.deliver_each(envelope, content, deliveries, again=again)
        by_near, by_far = await asyncio.gather(
            self._near.deliver_each(envelope, content, near, again=again),
            self._far.deliver_each(envelope, content, far, again=again),
        )
        some, others = iter(by_near), iter(by_far)
        return tuple(next(some if is_near else others) for is_near in are_near)

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
        return self._near if self._nearness.of(account) else self._far

    def _are_near(self, deliveries: Sequence[Delivery]) -> list[bool]:
        return [self._nearness.of(each.account) for each in deliveries]


def _divided(
    deliveries: Sequence[Delivery], are_near: Sequence[bool]
) -> tuple[list[Delivery], list[Delivery]]:
    """Those for this process, and those for others."""
    parts: tuple[list[Delivery], list[Delivery]] = [], []
    for each, is_near in zip(deliveries, are_near, strict=True):
        parts[not is_near].append(each)
    return parts


class ChoosingStore:
    """See MailStore."""

    def __init__(self, near: MailStore, far: MailStore, nearness: Nearness) -> None:
        self._near = near
        self._far = far
        self._nearness = nearness

    def open(self, account: Account) -> Coroutine[Any, Any, Maildrop]:
        """See ``MailStore.open``."""
        return (self._near if self._nearness.of(account) else self._far).open(account)


class ChoosingFiles:
    """See SystemFiles: users are looked up here, their files by their owners."""

    def __init__(self, near: SystemFiles, far: HelperFiles, nearness: Nearness) -> None:
        self._near = near
        self._far = far
        self._nearness = nearness

    async def user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._near.user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        files: SystemFiles | HelperFiles = self._near if self._nearness.of(account) else self._far
        return await files.dot_qmail(account, extension)
