"""Several workers take connections from one socket: here, all of them in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from itertools import count

import pytest

from restante.net import acceptor, shares
from restante.net.acceptor import Acceptor
from restante.net.shares import COMPANY, Board, Share
from tests.support.no_descriptors import no_descriptors

SOON = 60.0


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


class Worker:
    """Takes connections and holds them."""

    def __init__(
        self, bound: socket.socket, share: Share, room: int = 1000, *, in_company: bool = False
    ) -> None:
        self.share = share
        self.in_company = in_company
        self.room = room
        self.turned_away = 0
        self.held: list[socket.socket] = []
        self.failures: list[OSError] = []
        share.open()
        self.acceptor = Acceptor(bound.dup(), share, self._due, self._take, self.failures.append)

    def _due(self) -> int:
        return self.share.due_for_company(COMPANY, 1000) if self.in_company else self.share.due()

    def _take(self, accepted: socket.socket, address: str) -> bool:
        assert address == "127.0.0.1"
        if len(self.held) == self.room:
            accepted.close()
            self.turned_away += 1
            return False
        self.held.append(accepted)
        self.share.enter(in_company=self.in_company)
        return True

    def drop(self, count: int) -> None:
        for _ in range(count):
            self.held.pop().close()
            self.share.leave(in_company=self.in_company)

    def close(self) -> None:
        self.acceptor.close()
        self.drop(len(self.held))


@contextlib.contextmanager
def working(
    bound: socket.socket, workers: int, *, in_company: bool = False
) -> Iterator[list[Worker]]:
    board = Board(workers)
    all_of_them = [
        Worker(bound, board.share(number), in_company=in_company) for number in range(workers)
    ]
    try:
        yield all_of_them
    finally:
        for worker in all_of_them:
            worker.close()


def beside_one_that_hangs(bound: socket.socket, room: int = 1000) -> Worker:
    """A worker whose only fellow holds no connection, and takes none."""
    board = Board(2)
    board.share(0).open()
    return Worker(bound, board.share(1), room)


@contextlib.contextmanager
def clients(bound: socket.socket, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(bound.getsockname()))
        yield


async def until_held(workers: list[Worker], count: int) -> list[int]:
    """How many each holds, once all of them hold so many."""

    def all_held() -> int:
        return sum(len(worker.held) for worker in workers)

    async with asyncio.timeout(SOON):
        while all_held() < count:  # noqa: ASYNC110 - the kernel tells of nothing
            await asyncio.sleep(0.001)
    return [len(worker.held) for worker in workers]


async def test_connections_are_spread_evenly(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "ALONE", 0.0)  # a machine that is busy may stop for a moment
    with working(bound, 3) as workers, clients(bound, 30):
        held = await until_held(workers, 30)
    assert sum(held) == 30
    assert max(held) - min(held) <= 4


async def test_whoever_has_more_leaves_the_next_to_the_others(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    with working(bound, 2) as (one, other):
        for _ in range(5):
            one.share.enter()
        with clients(bound, 3):
            assert await until_held([other], 3) == [3]
        assert one.held == []


async def test_sessions_that_like_company_are_all_with_one(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    monkeypatch.setattr(shares, "LOOK", 3600.0)
    with working(bound, 2, in_company=True) as workers, clients(bound, COMPANY):
        assert await until_held(workers, COMPANY) == [COMPANY, 0]


async def test_whoever_is_due_and_at_work_is_left_what_is_its(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = beside_one_that_hangs(bound)
    for _ in range(5):
        worker.share.enter()
    taken = count()
    with contextlib.closing(worker), clients(bound, 1):
        with monkeypatch.context() as at_work:
            at_work.setattr(Share, "taken_by", lambda _share, _number: next(taken))
            await asyncio.sleep(3 * acceptor.MOST_PATIENCE)
            assert worker.held == []
        assert await until_held([worker], 1) == [1]


async def test_what_it_takes_itself_hides_no_worker_that_hangs(bound: socket.socket) -> None:
    """Of another socket, as clients come to it all the time."""
    worker = beside_one_that_hangs(bound)
    for _ in range(5):
        worker.share.enter()

    async def be_busy() -> None:
        while True:
            worker.share.enter()
            await asyncio.sleep(0)

    busy = asyncio.create_task(be_busy())
    with contextlib.closing(worker), clients(bound, 1):
        assert await until_held([worker], 1) == [1]
    busy.cancel()


async def test_a_crowd_finds_a_worker_that_had_nothing_to_do(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens only now and then, as it is seldom due; so whoever is full waits for it."""
    monkeypatch.setattr(shares, "LOOK", 3600.0)
    with working(bound, 2, in_company=True) as workers:
        for _ in range(20):
            with clients(bound, 1):
                held = await until_held(workers, 1)
            workers[held.index(1)].drop(1)
            await asyncio.sleep(0.001)
        with clients(bound, 2 * COMPANY + 10):
            first, second = await until_held(workers, 2 * COMPANY + 10)
    assert min(first, second) >= COMPANY - 1


async def test_a_worker_that_hangs_keeps_nobody_waiting(bound: socket.socket) -> None:
    worker = beside_one_that_hangs(bound)
    with contextlib.closing(worker), clients(bound, 20):
        assert await until_held([worker], 20) == [20]


async def alone(bound: socket.socket, patch: pytest.MonkeyPatch, room: int = 1000) -> Worker:
    """One that has found its fellow to hang, and would not find that again for an hour."""
    patch.setattr(acceptor, "ALONE", 3600.0)
    patch.setattr(acceptor, "MOST_PATIENCE", acceptor.PATIENCE)
    worker = beside_one_that_hangs(bound, room)
    with clients(bound, 3):
        await until_held([worker], 3)
    patch.setattr(acceptor, "MOST_PATIENCE", 3600.0)
    return worker


async def test_after_a_wait_it_takes_them_at_once_for_a_while(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await alone(bound, monkeypatch)
    with contextlib.closing(worker), clients(bound, 20):  # twice the patience for each otherwise
        await until_held([worker], 23)


async def test_one_that_is_full_leaves_them_to_whoever_may_have_room(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await alone(bound, monkeypatch, room=3)
    with contextlib.closing(worker), clients(bound, 20):
        await asyncio.sleep(0.01)
    assert 0 < worker.turned_away < 20


async def test_a_session_that_ends_makes_it_listen_at_once(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    worker = beside_one_that_hangs(bound)
    with contextlib.closing(worker), clients(bound, 3):
        assert await until_held([worker], 2) == [2]
        await asyncio.sleep(0.01)
        assert len(worker.held) == 2
        worker.drop(1)
        assert await until_held([worker], 2) == [2]


async def test_a_connection_tells_its_kind_in_plain_numbers(bound: socket.socket) -> None:
    """What an enumeration has to be asked for costs more than to accept."""
    with working(bound, 1) as (worker,), clients(bound, 1):
        await until_held([worker], 1)
        (accepted,) = worker.held
        assert (accepted.family, accepted.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert [type(accepted.family), type(accepted.type)] == [int, int]
        assert accepted.getpeername()[0] == "127.0.0.1"


async def test_no_descriptor_is_left(bound: socket.socket) -> None:
    with working(bound, 1) as (worker,), clients(bound, 1):
        with no_descriptors():
            async with asyncio.timeout(SOON):
                while not worker.failures:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.001)
        assert "Too many open files" in str(worker.failures[0])
        assert await until_held([worker], 1) == [1]


async def test_nothing_is_taken_once_it_is_closed(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    worker = beside_one_that_hangs(bound)
    with clients(bound, 3):
        await until_held([worker], 2)
        await asyncio.sleep(0.01)
        worker.close()  # and with it its sessions, of which the first to end makes it due
        with clients(bound, 1):
            await asyncio.sleep(0.01)
    assert worker.held == []
