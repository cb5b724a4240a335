"""Sizes of messages: told by names or measured and remembered, and very many of them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from restante.store import files, maildir, scan
from restante.store.sizes import CACHE
from tests.support.maildrop_box import Box, read

PATH_MAX = 4096
"""Octets of a path, with the one that ends it."""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


_MESSAGE = re.compile(r"/(?:new|cur)/.")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths under new and cur that are opened or stat'ed from now on."""
    paths: list[str] = []

    def counting(original: Callable[..., object]) -> Callable[..., object]:
        def wrapped(path: bytes | str, *rest: object, **more: object) -> object:
            if isinstance(path, bytes | str) and _MESSAGE.search(os.fsdecode(path)):
                paths.append(os.fsdecode(path))
            return original(path, *rest, **more)

        return wrapped

    for function in ("open", "stat", "lstat"):
        monkeypatch.setattr(os, function, counting(getattr(os, function)))
    return paths


async def test_sizes_come_from_the_names(box: Box, opened: list[str]) -> None:
    box.put("new/1.a,S=12,W=15")
    box.put("cur/2.b,W=77:2,S")
    box.put("cur/3.c,S=12,W=24,x:2,W=3")
    assert [size for _, size in await box.listing()] == [15, 77, 24]
    assert opened == []


@pytest.mark.parametrize(
    "name", ["1.a", "1.a,S=12", "1.a,S=12,W=11", "1.a,S=12,W=25", "1.a,W=", "1.a,W=99999999999999"]
)
async def test_sizes_that_cannot_be_are_measured(box: Box, name: str) -> None:
    box.put(f"new/{name}")
    assert [size for _, size in await box.listing()] == [15]


async def test_measured_sizes_are_remembered(box: Box, opened: list[str]) -> None:
    box.put("new/1.a")
    box.put("new/2.b", b"x\n" * 300_000)
    first = await box.listing()
    assert len(opened) >= 2
    opened.clear()
    os.rename(box.path / "new" / "1.a", box.path / "cur" / "1.a:2,S")
    box.put("new/3.c")
    assert (await box.listing())[:2] == first
    assert {os.path.basename(path) for path in opened} == {"3.c"}


def test_messages_that_move_while_they_are_measured_are_found_together(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Dovecot moves all out of ``new`` when somebody looks at it for the first time."""
    for number in range(100):
        box.put(f"new/{number}.a", b"x\n" * number)
    look, measure = scan.look, files.wire_sizes
    looks = 0

    def counting(path: bytes) -> scan.Found:
        nonlocal looks
        looks += 1
        return look(path)

    def measuring_while_they_move(paths: Sequence[bytes]) -> list[int | OSError]:
        for path in list((box.path / "new").iterdir())[:40]:
            path.rename(box.path / "cur" / f"{path.name}:2,")
        return measure(paths)

    monkeypatch.setattr(scan, "look", counting)
    monkeypatch.setattr(files, "wire_sizes", measuring_while_they_move)
    listing = scan.listing(os.fsencode(box.path))
    assert list(listing.messages.sizes) == [3 * number for number in range(100)]
    assert looks < 5


def test_what_vanishes_while_it_is_measured_is_gone(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        box.put(f"new/{number}.a")
    measure = files.wire_sizes

    def measuring_what_vanishes(paths: Sequence[bytes]) -> list[int | OSError]:
        (box.path / "new" / "1.a").unlink(missing_ok=True)
        return measure(paths)

    monkeypatch.setattr(files, "wire_sizes", measuring_what_vanishes)
    listing = scan.listing(os.fsencode(box.path))
    assert list(listing.messages.uids) == [b"0.a", b"2.a"]
    assert (box.path / CACHE).read_bytes() == b"15 0.a\n15 2.a\n"


def test_the_size_of_what_cannot_be_read_is_not_remembered(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put("new/1.a")
    with monkeypatch.context() as failing:

        def bad_sector(descriptor: int, count: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        failing.setattr(os, "read", bad_sector)
        guessed = scan.listing(os.fsencode(box.path))
    assert (list(guessed.messages.sizes), guessed.stamps) == ([12], ())
    listing = scan.listing(os.fsencode(box.path))
    assert list(listing.messages.sizes) == [15]
    assert listing.stamps


async def test_sizes_of_deleted_messages_are_forgotten(box: Box) -> None:
    for number in range(10):
        box.put(f"new/{number}.a")
    drop = await box.open()
    await drop.remove(range(9))
    drop.close()
    await box.listing()
    assert (box.path / CACHE).read_bytes() == b"15 9.a\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\0\n\n", b"x 1.a\n", b"-1 1.a\n", b"9999999999999 1.a\n", b"15 1.a", b"7" * 99999],
)
async def test_remembered_nonsense_is_ignored(box: Box, content: bytes) -> None:
    box.put("new/1.a")
    box.put(CACHE, content)
    assert await box.listing() == [("1.a", 15)]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_the_memory_of_sizes_may_be_anything(box: Box, tmp_path: Path, kind: str) -> None:
    box.put("new/1.a")
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    if kind == "link":
        (box.path / CACHE).symlink_to(victim)
        (box.path / f"{CACHE}.new").symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(box.path / CACHE)
    else:
        (box.path / CACHE).mkdir()
    assert await box.listing() == [("1.a", 15)]
    assert await box.listing() == [("1.a", 15)]
    assert victim.read_bytes() == b"untouched"


async def test_20_000_messages_open_without_touching_one(box: Box, opened: list[str]) -> None:
    touch = os.O_CREAT | os.O_WRONLY
    for number in range(20_000):
        name = f"{1_700_000_000 + number}.q{number}.host,S=12,W=15"
        os.close(os.open(f"{box.path}/new/{name}", touch))
    opened.clear()
    drop = await box.open()
    assert len(drop.messages) == 20_000
    assert drop.messages.uids[19_999] == b"1700019999.q19999.host,S=12,W=15"
    assert opened == []
    drop.close()


async def test_sizes_that_lie_do_not_make_more_be_read_ahead(box: Box) -> None:
    """A helper's answer would be larger than a frame may be."""
    content = b"x" * 199_999 + b"\n"
    for number in range(maildir.READ_AHEAD + 1):
        box.put(f"new/{1_700_000_000 + number}.a,S=12,W=15", content)
    drop = await box.open()
    fetched = await drop.fetch(0, maildir.READ_AHEAD)
    assert sum(map(len, fetched.ahead.values())) <= maildir.READ_AHEAD_OCTETS
    for index in range(len(drop.messages)):
        assert await read(drop, index) == content
    drop.close()


async def test_a_message_that_cannot_be_looked_at_keeps_nobody_from_the_others(
    tmp_path: Path,
) -> None:
    """As where its inode is damaged: here its path is longer than the kernel takes."""
    root = tmp_path
    while len(f"{root}/Maildir/new") < PATH_MAX - 200:
        root /= "d" * 100
    box = Box(root)
    box.put("new/1.a.h")
    directory = os.open(box.path / "new", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(os.open("2." + "b" * 250, os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    finally:
        os.close(directory)
    assert [size for _, size in await box.listing()] == [15, 0]
