"""Other ends that go and leave something unread: what they had said is heard, and that they went.

The kernel tells of an error then, and uvloop, as servers have it, tells of that once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from restante.directory import Account
from restante.helper import NoHelper, Supplied
from restante.helper.pool import Helpers, Link
from restante.helper.wire import HEAD, Frame, Kind, Writer, head
from restante.service.window import NotGiven, Window
from tests.support.deliveries import GROUP, OWNER, account
from tests.support.instance import PATIENCE

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs on one of the two loops, for no longer than it may take."""

    def in_time(work: Coroutine[Any, Any, None]) -> None:
        request.param(asyncio.wait_for(work, PATIENCE))

    return in_time


class Far:
    """A supplier whose helper is the test itself."""

    def __init__(self) -> None:
        self.end, self._ours = socket.socketpair()

    async def supply(self, _: Account) -> Supplied:
        return Supplied(self._ours, OWNER, GROUP)

    def take(self) -> int:
        """The number of the next request, and nothing that follows it."""
        length, number, _, _ = HEAD.unpack(self.end.recv(HEAD.size, socket.MSG_WAITALL))
        self.end.recv(length, socket.MSG_WAITALL)
        return int(number)

    def say(self, number: int, kind: Kind, body: bytes = b"") -> None:
        self.end.send(head(number, kind, [body]) + body)


async def two_requests(far: Far) -> tuple[Link, list[asyncio.Task[Frame]]]:
    """On their way to it."""
    link = await Helpers(far, PATIENCE).link(account("ann"))
    tasks = [asyncio.create_task(link.request(Kind.READ, [b"x"])) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    return link, tasks


def test_a_helper_that_ends_with_a_request_unread(run: Run) -> None:
    async def work() -> None:
        far = Far()
        link, (answered, lost) = await two_requests(far)
        far.say(far.take(), Kind.DONE)
        far.end.close()
        assert (await answered).kind == Kind.DONE
        with pytest.raises(NoHelper):
            await lost
        assert not link.is_usable

    run(work())


def test_a_nursery_that_has_no_room(run: Run) -> None:
    """It has read nothing of what was asked."""

    async def work() -> None:
        far = Far()
        _, tasks = await two_requests(far)
        why = Writer()
        why.cut("all 8 helpers are busy", 100)
        far.say(0, Kind.REFUSED, why.octets())
        far.end.close()
        for each in tasks:
            with pytest.raises(NoHelper, match="all 8 helpers are busy"):
                await each

    run(work())


def test_a_supervisor_that_ends_with_a_question_unread(run: Run) -> None:
    """The worker is told elsewhere, and has nothing to say of it."""

    async def work() -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        window = Window(ours)
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        asking = asyncio.create_task(window.ask("account", "ann"))
        await asyncio.sleep(0)
        its.close()
        await asyncio.sleep(0.01)
        assert told == []
        window.close()
        with pytest.raises((asyncio.CancelledError, NotGiven)):
            await asking

    run(work())
