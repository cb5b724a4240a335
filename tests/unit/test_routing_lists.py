"""How long lists are read: piece by piece, once, and no more of them than there may be."""

from __future__ import annotations

import asyncio
from itertools import chain
from sys import getsizeof

import pytest

from restante.routing import lists as module
from restante.routing.decision import ToProgram
from restante.routing.instructions import PORTION, BadInstruction
from restante.routing.lists import LONG, ListReader

MOST = 4 * PORTION


def _lines(count: int, host: str = "x.org") -> tuple[str, ...]:
    return tuple(f"{number}@{host}" for number in range(count))


@pytest.fixture
def reader() -> ListReader:
    return ListReader(MOST)


async def test_a_long_list_is_read_once(reader: ListReader) -> None:
    """Each RCPT for it, from whomever, would keep a worker busy."""
    read = await reader.read(_lines(LONG))
    assert len(read) == LONG
    assert await reader.read(_lines(LONG)) is read
    assert (await reader.read((*_lines(LONG), "|a")))[-1] == ToProgram("a")
    for _ in range(2):
        with pytest.raises(BadInstruction, match=r"/x/\.qmail:101:"):
            await reader.read((*_lines(LONG), "&no address"), "/x/.qmail")


async def test_others_have_their_turn_while_a_long_list_is_read(reader: ListReader) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(other())
    await reader.read(_lines(4 * PORTION))
    assert turns >= 3
    turns = 0
    for _ in range(9):
        await reader.read(_lines(4 * PORTION))
    task.cancel()
    assert turns >= 9, "it is kept, and named by many addresses of a message"


async def test_who_asks_at_the_same_time_has_it_read_once(reader: ListReader) -> None:
    one, two = await asyncio.gather(*(reader.read(_lines(2 * PORTION)) for _ in range(2)))
    assert one is two


async def test_as_many_are_kept_as_have_room_in_memory(
    reader: ListReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [_lines(LONG, f"{number}.example") for number in range(10)]
    monkeypatch.setattr(module, "MOST_KEPT", 4 * sum(map(getsizeof, chain(*wanted))))
    read = [await reader.read(each) for each in wanted]
    for lines, kept in zip(wanted, read, strict=True):
        assert await reader.read(lines) is kept
    await reader.read(_lines(LONG))
    assert await reader.read(wanted[1]) is read[1]
    assert await reader.read(wanted[0]) is not read[0]
    large = await reader.read(_lines(11 * LONG))
    assert await reader.read(_lines(11 * LONG)) is not large
    assert await reader.read(wanted[2]) is read[2]


@pytest.mark.parametrize(("character", "kept"), [("x", 4), ("\udcff", 2), ("\U0001f4ec", 1)])
async def test_few_long_lines_are_a_large_list(
    reader: ListReader, monkeypatch: pytest.MonkeyPatch, character: str, kept: int
) -> None:
    """Comments, too; and one character may make all others of its line larger."""
    comments = [f"#{character}{'x' * 10_000}"] * LONG
    monkeypatch.setattr(module, "MOST_KEPT", 20 * 10_000 * LONG)
    lists = [(f"{number}@x.org", *comments) for number in range(6)]
    read = [await reader.read(each) for each in lists]
    again = [await reader.read(each) for each in reversed(lists)]
    found = [one is two for one, two in zip(reversed(read), again, strict=True)]
    assert found.index(False) == kept


@pytest.mark.parametrize("over", [1, MOST])
async def test_more_than_there_may_be_is_nothing(reader: ListReader, over: int) -> None:
    assert len(await reader.read((*_lines(MOST), *_lines(LONG)))) == MOST
    with pytest.raises(BadInstruction, match=r"^/x/\.qmail: more than 2000 instructions \("):
        await reader.read(_lines(MOST + over), "/x/.qmail")
