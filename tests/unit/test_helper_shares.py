"""A helper that hangs, or all for one file system that does, holds a part of the queue's places."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.directory import Account
from restante.envelope import HeaderFacts, memory_content
from restante.helper import Supplied, pool
from restante.helper.channel import FULL
from restante.helper.messages import MAX_INLINE, write_outcomes
from restante.helper.pool import Helpers
from restante.helper.wire import HEAD, Kind, Writer, head
from restante.helper.writer import CROWD_PAUSE, HelperWriter
from restante.mda import Delivery
from restante.mounts import FarPlaces
from restante.status import Delivered, Outcome, TemporaryFailure
from tests.support.deliveries import CONTENT, OWNER, TRACE, account, delivery, envelope

SHARE = 2
FAR = "/srv/far"
DONE = Delivered("there")

Delivering = asyncio.Task[tuple[Outcome, ...]]


class Hanging:
    """A supplier of helpers that say nothing before they are told to."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    async def supply(self, account: Account) -> Supplied:
        ours, its = socket.socketpair()
        self.ends.append(its)
        return Supplied(ours, account.uid, account.gid)

    def wake(self) -> None:
        """All that was asked is done by now."""
        for end in self.ends:
            while self.answer(end):
                pass

    def answer(self, end: socket.socket) -> bool:
        """The next that was asked is done; whether there was any."""
        octets = _read(end, HEAD.size)
        if not octets:
            return False
        length, number, _, _ = HEAD.unpack(octets)
        _read(end, length)
        out = Writer()
        write_outcomes(out, [DONE])
        end.sendall(head(number, Kind.OUTCOMES, [out.octets()]) + out.octets())
        return True


def _read(end: socket.socket, size: int) -> bytes:
    try:
        return end.recv(size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


@pytest.fixture
def supplier() -> Hanging:
    return Hanging()


@pytest.fixture
async def writer(
    tmp_path: Path, supplier: Hanging, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HelperWriter]:
    monkeypatch.setattr(pool, "CROWDED", 0.1)
    monkeypatch.setattr(pool, "LOOK_INTERVAL", 0.01)
    table = tmp_path / "mounts"
    table.write_text(f"server:/mail {FAR} nfs4 rw,hard 0 0\n")
    helpers = Helpers(supplier, 60.0, FarPlaces(str(table)), share=SHARE)
    yield HelperWriter(helpers)
    await helpers.close()
    for end in supplier.ends:
        end.close()


def begin(writer: HelperWriter, to: Delivery, numbers: range) -> list[Delivering]:
    return [
        asyncio.create_task(writer.deliver_each(envelope(each), CONTENT, [to], again=False))
        for each in numbers
    ]


def why(answered: Delivering) -> str:
    (outcome,) = answered.result()
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.pause == CROWD_PAUSE, "it is not its last attempt"
    return outcome.detail


def far_of(uid: int) -> Delivery:
    return Delivery(f"{FAR}/{uid}", account("x", f"{FAR}/{uid}", uid), ("x",))


async def test_one_helper_has_a_share_and_no_more(
    tmp_path: Path, writer: HelperWriter, supplier: Hanging
) -> None:
    to = delivery(tmp_path)
    *held, third, fourth = begin(writer, to, range(4))
    accepting = asyncio.create_task(writer.deliver_all(envelope(9), CONTENT, [to]))
    await asyncio.wait((third, fourth))
    assert why(third) == why(fourth) == f"the helper of uid {OWNER}: others wait for it already"
    assert [writer.doubts(envelope(each)) for each in range(4)] == [False, False, True, True]
    (fifth,) = begin(writer, to, range(4, 5))
    await asyncio.wait((fifth,))
    assert "others wait for it already" in why(fifth)
    assert not writer.doubts(envelope(4)), "nothing was sent"
    elsewhere = begin(writer, delivery(tmp_path, uid=OWNER + 1), range(5, 6))
    await asyncio.sleep(0.05)
    supplier.wake()
    for answered in (*held, *elsewhere):
        assert await answered == (DONE,)
    assert await accepting == DONE, "who waits for a reply has no place of the queue's"
    await asyncio.sleep(0.05)
    again = begin(writer, to, range(6, 7))
    await asyncio.sleep(0.05)
    supplier.wake()
    assert await again[0] == (DONE,)


async def test_a_file_system_has_a_share_over_all_uids(
    writer: HelperWriter, supplier: Hanging
) -> None:
    those = [
        begin(writer, far_of(uid), each)[0]
        for uid, each in ((OWNER, range(1)), (OWNER + 1, range(1, 2)), (OWNER + 2, range(2, 3)))
    ]
    at_home = begin(writer, Delivery("/home/x", account("x", "/home/x"), ("x",)), range(3, 4))
    done, held = await asyncio.wait((*those, *at_home), return_when=asyncio.FIRST_COMPLETED)
    assert [why(each) for each in done] == [
        f"the helper of uid {OWNER + 2}: others wait for it already"
    ]
    supplier.wake()
    for answered in held:
        assert await answered == (DONE,)


async def test_who_answers_now_and_then_is_busy(
    tmp_path: Path, writer: HelperWriter, supplier: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CROWDED", 0.4)
    waiting = begin(writer, delivery(tmp_path), range(12))
    await asyncio.sleep(0.05)
    for _ in waiting:
        assert supplier.answer(supplier.ends[0])
        await asyncio.sleep(0.05)
    assert [await each for each in waiting] == [(DONE,)] * 12


async def test_who_answers_what_was_given_up_is_busy(
    tmp_path: Path, writer: HelperWriter, supplier: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still, and now does in turn what it was asked for then."""
    monkeypatch.setattr(pool, "CROWDED", 0.4)
    to = delivery(tmp_path)
    stopped = begin(writer, to, range(SHARE + 12))
    await asyncio.wait(stopped[SHARE:])
    for each in stopped[:SHARE]:
        assert supplier.answer(supplier.ends[0])
        assert await each == (DONE,)
    await asyncio.sleep(0.05)  # until somebody has looked
    fresh = begin(writer, to, range(20, 20 + SHARE + 1))
    for _ in stopped[SHARE:]:
        await asyncio.sleep(0.05)
        assert supplier.answer(supplier.ends[0])
    supplier.wake()
    assert [await each for each in fresh] == [(DONE,)] * len(fresh)


async def test_a_helper_that_was_stopped_is_not_its_file_system(
    writer: HelperWriter, supplier: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others who have homes there are answered."""
    monkeypatch.setattr(pool, "CROWDED", 0.4)
    stopped = begin(writer, far_of(OWNER), range(SHARE + 1))
    await asyncio.sleep(0.01)
    for number in range(10, 40):
        (neighbour,) = begin(writer, far_of(OWNER + 1), range(number, number + 1))
        await asyncio.sleep(0.02)
        assert supplier.answer(supplier.ends[1])
        assert await neighbour == (DONE,)
    assert why(stopped[-1]) == f"the helper of uid {OWNER}: others wait for it already"
    assert not any(each.done() for each in stopped[:SHARE])
    supplier.wake()
    assert [await each for each in stopped[:SHARE]] == [(DONE,)] * SHARE


async def test_what_waits_to_be_sent_gives_its_place_back(
    tmp_path: Path, writer: HelperWriter
) -> None:
    """Others have sent more than a helper takes that was stopped."""
    to, large = delivery(tmp_path), memory_content(TRACE, bytes(MAX_INLINE), HeaderFacts())
    accepting = [
        asyncio.create_task(writer.deliver_all(envelope(each), large, [to]))
        for each in range(10, 10 + 2 * FULL // MAX_INLINE)
    ]
    await asyncio.sleep(0.01)
    *held, third, fourth = begin(writer, to, range(4))
    await asyncio.wait((third, fourth), timeout=5.0)
    assert why(third) == why(fourth) == f"the helper of uid {OWNER}: others wait for it already"
    assert not any(each.done() for each in (*held, *accepting))
