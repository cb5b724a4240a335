"""Mailbox writers at work on disks with trouble, with the rights of root or of an owner."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Sequence

from restante.mda import Delivery, MailboxWriter
from restante.mda.writer import BatchWriter
from restante.status import Delivered, Outcome
from tests.support.deliveries import CONTENT, HOST, envelope
from tests.support.faulty_disk import FaultyDisk
from tests.support.helpers import FarWriter

IN_ITS_LOOP = "as its owner, in its loop"
SYNCS = ("fsync", "syncfs", "order_all", "begin_order", "order")


class NoLinks(FaultyDisk):
    """A policy of the system forbids link(2)."""

    error = errno.EPERM
    asked = 0

    def link(self, fd: int, name: str, parent: int | None) -> None:
        self.asked += 1
        raise OSError(self.error, os.strerror(self.error))


def fail_after(syncs: int, disk: FaultyDisk) -> list[int]:
    """Let one sync fail, of whatever kind, after so many; what is still to come of this."""
    left = [*[0] * syncs, errno.EIO]
    disk.faults = dict.fromkeys(SYNCS, lambda _name: left.pop(0) if left else 0)
    return left


@contextlib.asynccontextmanager
async def writer_at_work(disk: FaultyDisk, where: str) -> AsyncIterator[MailboxWriter]:
    """All reach the same disk; the helper's code serves a connection of this process."""
    near = BatchWriter(HOST, 100, 1, disk, may_block=where == IN_ITS_LOOP)
    writer = FarWriter(near) if where == "by a helper" else near
    yield writer
    await writer.close()


def reply_of(outcome: Outcome) -> str:
    assert not isinstance(outcome, Delivered)
    return f"{outcome.reply.code} {outcome.reply.enhanced}"


async def deliver_anew(disk: FaultyDisk, deliveries: Sequence[Delivery]) -> None:
    """By a writer that knows of none of their Maildirs; the disk counts what it does for it."""
    disk.counts.clear()
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    await writer.close()
