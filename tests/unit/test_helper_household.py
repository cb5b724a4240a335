"""The connections of a helper are counted, or it is never let go."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from restante.directory import Account, DotQmail, NoSystemFiles
from restante.helper import messages
from restante.helper.messages import Owner
from restante.helper.nursery import CONNECTION, COUNT
from restante.helper.process import Household
from restante.helper.serving import Tools
from restante.helper.wire import Kind, Writer, head
from restante.mda.writer import BatchWriter
from restante.store.maildir import MaildirStore
from tests.support.deliveries import GROUP, HOST, OWNER, account
from tests.support.instance import PATIENCE


class Leaving(NoSystemFiles):
    """Files that are asked for by a worker that is killed meanwhile."""

    worker: socket.socket

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        self.worker.close()
        return await super().dot_qmail(account, extension)


class Nursery:
    """The nursery's end of a helper's hatch."""

    def __init__(self, writer: BatchWriter) -> None:
        self.files = Leaving()
        self._hatch, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._hatch.setblocking(False)
        tools = Tools(writer, MaildirStore(), self.files)
        self._household = Household(its, Owner(OWNER, GROUP), tools)

    def hand(self) -> socket.socket:
        """The worker's end of a connection that the helper is given."""
        worker, its = socket.socketpair()
        with its:
            socket.send_fds(self._hatch, [CONNECTION], [its.fileno()])
        return worker

    async def count(self) -> int:
        """What the helper says, when it has nothing left."""
        octets = await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(self._hatch, COUNT.size), PATIENCE
        )
        (count,) = COUNT.unpack(octets)
        return int(count)

    async def shut(self) -> None:
        """The helper is let go, and ends."""
        self._hatch.close()
        await asyncio.wait_for(self._household.ended.wait(), PATIENCE)


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    writer = BatchWriter(HOST, 1, 1)
    nursery = Nursery(writer)
    yield nursery
    await nursery.shut()
    await writer.close()


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Within, what comes with descriptors comes without them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_that_there_is_no_descriptor_for_counts(nursery: Nursery) -> None:
    with nursery.hand() as worker:
        with no_more_descriptors():
            assert await nursery.count() == 1
        assert worker.recv(1) == b""
    nursery.hand().close()
    assert await nursery.count() == 2


async def test_an_end_that_the_last_answer_finds_out_is_told_of_once(nursery: Nursery) -> None:
    unplanned: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unplanned.append(context))
    nursery.files.worker = nursery.hand()
    out = Writer()
    messages.write_account(out, account("iain"))
    out.text("", messages.MAX_NAME)
    request = out.octets()
    nursery.files.worker.sendall(head(1, Kind.DOT_QMAIL, [request]) + request)
    assert await nursery.count() == 1
    await asyncio.sleep(0)
    assert unplanned == []
