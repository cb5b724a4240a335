"""Frames between a worker and a helper: in order, whole, with their descriptors, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import pytest

from restante.helper.channel import Channel
from restante.helper.wire import BadFrame, Frame, Kind, head
from tests.support.instance import PATIENCE


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn."""
    while not is_so():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("at_once", [False, True])
async def test_more_than_the_socket_takes_arrives_in_order(at_once: bool) -> None:
    ours, its = socket.socketpair()
    arrived: list[Frame] = []
    there = Channel(its, arrived.append, lambda _why: None, takes_descriptors=True)
    here = Channel(ours, lambda _frame: None, lambda _why: None, takes_descriptors=False)
    for number in range(1, 400):
        descriptor = os.dup(0) if number % 7 == 0 else -1
        body = bytes([number % 256]) * 20_000
        here.send(number, Kind.DELIVER, [body], descriptor, at_once=at_once)
    await here.drain()
    await until(lambda: len(arrived) == 399)
    assert [frame.number for frame in arrived] == list(range(1, 400))
    assert all(frame.body == bytes([frame.number % 256]) * 20_000 for frame in arrived)
    assert [frame.number for frame in arrived if frame.descriptor >= 0] == list(range(7, 400, 7))
    for frame in arrived:
        if frame.descriptor >= 0:
            os.close(frame.descriptor)
    here.close()
    there.close()


async def test_two_ends_that_have_much_to_say_hear_each_other() -> None:
    ours, its = socket.socketpair()
    requests: list[Frame] = []
    answers: list[Frame] = []
    there = Channel(its, requests.append, lambda _why: None, takes_descriptors=True)
    here = Channel(ours, answers.append, lambda _why: None, takes_descriptors=False)
    for number in range(1, 31):
        here.send(number, Kind.DELIVER, [bytes(256 * 1024)])
        there.send(number, Kind.MESSAGES, [bytes(256 * 1024)])
    async with asyncio.timeout(PATIENCE):
        await until(lambda: len(requests) == len(answers) == 30)
    here.close()
    there.close()


async def test_an_end_that_is_never_silent_leaves_others_their_turn() -> None:
    ours, its = socket.socketpair()
    its.setblocking(False)
    frame = head(0, Kind.REMARK, [bytes(4)]) + bytes(4)
    turns, taken, rest = 0, 0, b""

    def fill() -> None:
        nonlocal rest
        with contextlib.suppress(BlockingIOError):
            while taken < 100_000:
                rest = rest or frame * 4096
                rest = rest[its.send(rest) :]

    def take(_frame: Frame) -> None:
        nonlocal taken
        taken += 1
        if taken % 1000 == 0:
            fill()  # as another process would

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    here = Channel(ours, take, lambda _why: None, takes_descriptors=False)
    fill()
    turn()
    async with asyncio.timeout(PATIENCE):
        await until(lambda: taken >= 100_000)
    assert turns >= 5
    here.close()
    its.close()


async def test_what_a_dead_end_has_said_is_taken_to_its_last_octet() -> None:
    """The loop may tell of it once alone, since it had left something unread."""
    ours, its = socket.socketpair()
    arrived: list[Frame] = []
    lost: list[str] = []
    here = Channel(ours, arrived.append, lost.append, takes_descriptors=False)
    here.send(1, Kind.READ, [b"x"], at_once=True)
    its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
    its.setblocking(False)
    answer = head(1, Kind.MESSAGES, [bytes(40_000)]) + bytes(40_000)
    said = its.send(answer * 100) // len(answer)
    its.close()
    async with asyncio.timeout(PATIENCE):
        await until(lambda: bool(lost))
    assert len(arrived) == said
    here.close()


async def test_a_helper_whose_answers_nobody_takes_reads_no_requests() -> None:
    ours, its = socket.socketpair()
    ours.setblocking(False)
    requests: list[Frame] = []
    there = Channel(its, requests.append, lambda _why: None, takes_descriptors=True)
    for number in range(1, 31):
        there.send(number, Kind.MESSAGES, [bytes(256 * 1024)])
    await asyncio.sleep(0)
    ours.send(head(31, Kind.DELIVER, []))
    await asyncio.sleep(0.05)
    assert not requests
    while not requests:
        await asyncio.get_running_loop().sock_recv(ours, 1024 * 1024)
    there.close()
    ours.close()


async def test_a_frame_that_is_sent_at_once_overtakes_none() -> None:
    ours, its = socket.socketpair()
    arrived: list[int] = []
    there = Channel(
        its, lambda f: arrived.append(f.number), lambda _why: None, takes_descriptors=True
    )
    here = Channel(ours, lambda _frame: None, lambda _why: None, takes_descriptors=False)
    for number in range(1, 7):
        here.send(number, Kind.CLOSE, [b"x"], at_once=number % 3 == 0)
    await until(lambda: len(arrived) == 6)
    assert arrived == [1, 2, 3, 4, 5, 6]
    here.close()
    there.close()


async def test_a_frame_that_is_too_large_is_not_sent() -> None:
    ours, its = socket.socketpair()
    channel = Channel(ours, lambda _frame: None, lambda _why: None, takes_descriptors=False)
    descriptor = os.dup(0)
    with pytest.raises(BadFrame):
        channel.send(1, Kind.DELIVER, [bytes(5_000_000)], descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    channel.close()
    its.close()


async def test_a_frame_larger_than_the_socket_takes_is_sent_on() -> None:
    ours, its = socket.socketpair()
    arrived: list[Frame] = []
    here = Channel(ours, lambda _frame: None, lambda _why: None, takes_descriptors=False)
    bodies = [bytes([number]) * 3_000_000 for number in (1, 2)]
    for body in bodies:
        here.send(body[0], Kind.DELIVER, [body[:10], body[10:]], at_once=True)
    there = Channel(its, arrived.append, lambda _why: None, takes_descriptors=True)
    await until(lambda: len(arrived) == 2)
    assert [frame.body for frame in arrived] == bodies
    here.close()
    there.close()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_sender_whose_peer_is_gone(at_once: bool) -> None:
    ours, its = socket.socketpair()
    lost: list[str] = []
    channel = Channel(ours, lambda _frame: None, lost.append, takes_descriptors=False)
    its.close()
    channel.send(1, Kind.DELIVER, [b"x"], -1 if at_once else os.dup(0), at_once=at_once)
    await until(lambda: bool(lost))
    assert not channel.is_open
    channel.send(2, Kind.DELIVER, [b"x"], os.dup(0))
    await channel.drain()
