"""What every mail store promises: the contract in restante.store, held by each of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import pytest

from restante.directory import Account
from restante.helper.pool import Helpers
from restante.helper.store import HelperStore
from restante.mda.writer import BatchWriter
from restante.store import Maildrop, MaildropInUse, MailStore, MessageGone
from restante.store.maildir import MaildirStore
from tests.support.deliveries import HOST
from tests.support.helpers import HereSupplier
from tests.support.memory_store import MemoryStore


class World(Protocol):
    """A store, and what happens to its mail behind its back."""

    store: MailStore
    account: Account
    other: Account

    def arrive(self, uid: str, content: bytes) -> None: ...

    def vanish(self, uid: str) -> None: ...

    def present(self) -> set[str]: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.store: MailStore = self.memory
        self.account = Account("iain", 1000, 1000, "/nowhere/iain")
        self.other = Account("ann", 1000, 1000, "/nowhere/ann")

    def arrive(self, uid: str, content: bytes) -> None:
        self.memory.add(self.account, uid, content)

    def vanish(self, uid: str) -> None:
        self.memory.take_away(self.account, uid)

    def present(self) -> set[str]:
        return set(self.memory.mail.get(self.account.name, {}))


class MaildirWorld:
    def __init__(self, root: Path, store: MailStore | None = None) -> None:
        self.store: MailStore = store or MaildirStore()
        self.account = Account("iain", os.getuid(), os.getgid(), str(root / "iain"))
        self.other = Account("ann", os.getuid(), os.getgid(), str(root / "ann"))
        self.new = root / "iain" / "Maildir" / "new"

    def arrive(self, uid: str, content: bytes) -> None:
        self.new.mkdir(parents=True, exist_ok=True)
        (self.new / uid).write_bytes(content)

    def vanish(self, uid: str) -> None:
        (self.new / uid).unlink()

    def present(self) -> set[str]:
        return set(os.listdir(self.new)) if self.new.exists() else set()


@pytest.fixture(params=["memory", "maildir", "by a helper"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param != "by a helper":
        yield MemoryWorld() if request.param == "memory" else MaildirWorld(tmp_path)
        return
    writer = BatchWriter(HOST, 1, 1)
    helpers = Helpers(HereSupplier(writer), 60.0)
    yield MaildirWorld(tmp_path, HelperStore(helpers))
    await helpers.close()
    await writer.close()


ONE = "1700000001.a.host"
TWO = "1700000002.b.host"
THREE = "1700000003.c.host"


def uids(drop: Maildrop) -> list[str]:
    return [uid.decode("ascii") for uid in drop.messages.uids]


async def read(drop: Maildrop, index: int) -> bytes:
    return b"".join([piece async for piece in drop.read(index)])


async def test_a_maildrop_that_does_not_exist_is_empty(world: World) -> None:
    drop = await world.store.open(world.account)
    assert len(drop.messages) == 0
    await drop.remove([])
    drop.close()
    assert world.present() == set()


async def test_messages_are_listed_in_order_with_uid_and_wire_size(world: World) -> None:
    world.arrive(ONE, b"A: 1\n\nHello\n")
    world.arrive(TWO, b"")
    world.arrive(THREE, b"A: 1\r\n\r\nno end")
    drop = await world.store.open(world.account)
    assert uids(drop) == [ONE, TWO, THREE]
    assert list(drop.messages.sizes) == [15, 0, 16]
    drop.close()


async def test_a_message_is_read_as_it_was_stored(world: World) -> None:
    contents = [b"A: 1\n\n\xff\0\r\n", b"x" * 3_000_000 + b"\n", b""]
    for uid, content in zip((ONE, TWO, THREE), contents, strict=True):
        world.arrive(uid, content)
    drop = await world.store.open(world.account)
    assert [await read(drop, index) for index in (0, 1, 2)] == contents
    assert [await read(drop, index) for index in (2, 0, 1, 1)] == [
        contents[index] for index in (2, 0, 1, 1)
    ]
    drop.close()


async def test_reading_may_stop_early(world: World) -> None:
    world.arrive(ONE, b"x" * 3_000_000)
    drop = await world.store.open(world.account)
    async with aclosing(drop.read(0)) as pieces:
        assert (await anext(pieces)).startswith(b"x")
    assert len(await read(drop, 0)) == 3_000_000
    drop.close()


async def test_one_session_at_a_time(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    drop = await world.store.open(world.account)
    with pytest.raises(MaildropInUse):
        await world.store.open(world.account)
    other = await world.store.open(world.other)
    other.close()
    drop.close()
    (await world.store.open(world.account)).close()


async def test_closing_twice_lets_nobody_else_out(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    drop = await world.store.open(world.account)
    drop.close()
    drop.close()
    drop = await world.store.open(world.account)
    with pytest.raises(MaildropInUse):
        await world.store.open(world.account)
    drop.close()


async def test_uids_stay_the_same(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    world.arrive(TWO, b"A: 2\n")
    drop = await world.store.open(world.account)
    await drop.remove([0])
    drop.close()
    world.arrive(THREE, b"A: 3\n")
    drop = await world.store.open(world.account)
    assert uids(drop) == [TWO, THREE]
    drop.close()


async def test_what_arrives_later_is_neither_seen_nor_deleted(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    drop = await world.store.open(world.account)
    world.arrive(TWO, b"A: 2\n")
    assert uids(drop) == [ONE]
    await drop.remove([0])
    drop.close()
    assert world.present() == {TWO}


async def test_only_what_is_named_is_deleted(world: World) -> None:
    for uid in (ONE, TWO, THREE):
        world.arrive(uid, b"A: 1\n")
    drop = await world.store.open(world.account)
    await drop.remove({0, 2})
    drop.close()
    assert world.present() == {TWO}


async def test_a_message_that_vanished_is_gone(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    world.arrive(TWO, b"A: 2\n")
    drop = await world.store.open(world.account)
    world.vanish(ONE)
    with pytest.raises(MessageGone):
        await read(drop, 0)
    assert await read(drop, 1) == b"A: 2\n"
    drop.close()


async def test_a_message_that_vanished_counts_as_deleted(world: World) -> None:
    world.arrive(ONE, b"A: 1\n")
    world.arrive(TWO, b"A: 2\n")
    drop = await world.store.open(world.account)
    world.vanish(ONE)
    await drop.remove([0, 1])
    drop.close()
    assert world.present() == set()
