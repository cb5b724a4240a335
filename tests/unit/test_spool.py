"""A message while it is received: small in memory, large in a file, its header read once."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
import tracemalloc
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante import spool as spool_module
from restante.address import fold
from restante.envelope import Content, HeaderFacts
from restante.spool import BLOCK, SMALL, Spool, SpoolFailed, clean_spool, header_facts
from restante.threads import NoThread

MESSAGE = b"Received: a\nreceived : b\nDELIVERED-TO: Iain@Example.com \nSubject: x\n\nReceived: c\n"


async def fill(spool: Spool, message: bytes, step: int) -> Content:
    for start in range(0, len(message), step):
        await spool.write(message[start : start + step])
    return spool.finish(b"Trace: x\n")


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize("threshold", [0, 10, 10000])
async def test_in_memory_or_in_a_file(tmp_path: Path, step: int, threshold: int) -> None:
    spool = Spool(str(tmp_path), threshold, 1000)
    content = await fill(spool, MESSAGE, step)
    assert isinstance(content.body, bytes) == (threshold >= len(MESSAGE))
    assert content.read() == b"Trace: x\n" + MESSAGE
    assert (content.body_size, content.body_lines) == (len(MESSAGE), MESSAGE.count(b"\n"))
    assert content.facts == HeaderFacts(2, frozenset({"iain@example.com"}))
    assert spool.size == len(MESSAGE)
    assert not spool.header_too_large
    spool.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("threshold", [0, 1000 * SMALL])
async def test_pieces_of_all_sizes(tmp_path: Path, threshold: int) -> None:
    pieces = [os.urandom(size) for size in (1, SMALL, 2, 3, SMALL - 1, SMALL + 1, BLOCK, 5)]
    spool = Spool(str(tmp_path), threshold, 1000)
    for piece in pieces:
        await spool.write(piece)
    assert spool.finish(b"").read() == b"".join(pieces)
    spool.close()


def test_small_pieces_take_no_memory_of_their_own(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), BLOCK, 1000)
    tracemalloc.start()
    try:
        for _ in range(50_000):
            spool.take(os.urandom(2), 0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * spool.size
    spool.close()


async def test_a_large_message(tmp_path: Path) -> None:
    message = b"Subject: x\n\n" + os.urandom(3 * BLOCK + 17)
    spool = Spool(str(tmp_path), 1000, 1000)
    content = await fill(spool, message, 60_000)
    (name,) = os.listdir(tmp_path)
    path = tmp_path / name
    assert content.body == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == message
    spool.close()
    spool.close()
    assert os.listdir(tmp_path) == []


async def test_a_file_that_was_moved_away_stays(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 0, 1000)
    content = await fill(spool, MESSAGE, 1000)
    assert isinstance(content.body, str)
    os.rename(content.body, tmp_path / "kept")
    spool.close()
    assert (tmp_path / "kept").read_bytes() == MESSAGE


async def test_an_empty_message(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 0, 1000)
    content = spool.finish(b"")
    assert (content.body, content.facts) == (b"", HeaderFacts())
    spool.close()


async def test_closed_while_a_block_is_written(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 0, 1000)
    task = asyncio.create_task(spool.write(b"x" * BLOCK))
    await asyncio.sleep(0)
    spool.close()
    await task
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("has_threads", [True, False])
async def test_a_file_that_nobody_waits_for_is_removed_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_threads: bool
) -> None:
    unlink, there = os.unlink, list[bool]()

    def noted(path: str) -> None:
        there.append(threading.current_thread() is threading.main_thread())
        unlink(path)

    def no_thread(*_: object) -> None:
        raise NoThread("can't start new thread")

    spool = Spool(str(tmp_path), 0, 1000)
    await fill(spool, MESSAGE, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", noted)
        if not has_threads:
            patched.setattr(spool_module, "begun", no_thread)
        spool.let_go()
        async with asyncio.timeout(10):
            while os.listdir(tmp_path):  # noqa: ASYNC110 - nobody waits for it
                await asyncio.sleep(0.001)
    assert there == [not has_threads]


async def test_what_is_in_memory_is_let_go_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", None)
    spool = Spool(str(tmp_path), 1000, 1000)
    await fill(spool, MESSAGE, 1000)
    spool.let_go()


async def test_a_header_in_the_file_takes_no_memory_beside_it(tmp_path: Path) -> None:
    header = b"Received: x\n" * (4 * BLOCK // 12)
    spool = Spool(str(tmp_path), 1000, len(header))
    tracemalloc.start()
    try:
        for _ in range(4):
            await spool.write(b"Received: x\n" * (BLOCK // 12))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * BLOCK
    await spool.write(header[spool.size :] + b"\nReceived: no\n")
    assert spool.header == header
    assert spool.finish(b"").facts.received == header.count(b"\n")
    spool.close()


async def test_a_header_that_cannot_be_read_back_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    spool = Spool(str(tmp_path), 0, 1000)
    await spool.write(b"A: b\n\n" + b"x" * BLOCK)
    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(SpoolFailed, match="cannot be read"):
        spool.finish(b"")
    spool.close()


@pytest.mark.parametrize("end", [b"\n", b"\n\nbody"])
@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("excess", "too_large"), [(0, False), (1, True)])
async def test_the_header_is_bounded(
    tmp_path: Path, step: int, excess: int, too_large: bool, end: bytes
) -> None:
    spool = Spool(str(tmp_path), 10000, 100)
    await fill(spool, b"A: ".ljust(99 + excess, b"a") + end, step)
    assert spool.header_too_large == too_large
    spool.close()


@pytest.mark.parametrize("step", [1, 1000])
async def test_a_large_body_is_no_header(tmp_path: Path, step: int) -> None:
    for header in (b"", b"A: b\n"):
        spool = Spool(str(tmp_path), 10000, 100)
        content = await fill(spool, header + b"\n" + b"Received: x\n" * 100, step)
        assert not spool.header_too_large
        assert content.facts.received == 0
        spool.close()


async def test_a_full_disk_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _block: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool(str(tmp_path), 0, 1000)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SpoolFailed, match="No space left"):
        await spool.write(b"x" * BLOCK)
    monkeypatch.undo()
    spool.close()
    assert os.listdir(tmp_path) == []


async def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    """There was no room for it when the worker started."""
    spool = Spool(str(tmp_path / "spool" / "0"), 0, 1000)
    content = await fill(spool, MESSAGE, 1000)
    assert content.read().endswith(MESSAGE)
    spool.close()


async def test_a_directory_that_cannot_be_made_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    spool = Spool(str(tmp_path / "spool" / "0"), 0, 1000)
    await spool.write(b"x")
    with pytest.raises(SpoolFailed):
        spool.finish(b"")
    spool.close()


async def test_a_disk_that_fails_at_the_end_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has been accepted by then; and no descriptor is closed twice."""
    close, closed = os.close, list[int]()

    def failing(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)
        raise OSError(errno.EIO, "a disk that fails")

    spool = Spool(str(tmp_path), 0, 1000)
    await fill(spool, MESSAGE, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", failing)
        spool.close()
        spool.close()
    assert len(closed) == 1
    assert not os.listdir(tmp_path)


async def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 0, 1000)
    await fill(spool, MESSAGE, 1000)
    (tmp_path / "other").write_text("")
    assert clean_spool(str(tmp_path)) == 1
    assert os.listdir(tmp_path) == ["other"]
    spool.close()


VALUES = st.lists(st.text("abAB@.é", min_size=1, max_size=8), min_size=1, max_size=3).map(
    "\n\t ".join
)
NAMES = st.sampled_from(
    [
        "Received",
        "RECEIVED",
        "delivered-to",
        "Delivered-To",
        "X-Received",
        "Subject",
        "Received-SPF",
    ]
)


@given(st.lists(st.tuples(NAMES, VALUES)), st.text("ab:\n", max_size=20))
def test_header_facts_are_what_the_email_package_finds(
    fields: list[tuple[str, str]], body: str
) -> None:
    """Any header: the counts and values that Python's own parser finds in it."""
    header = "".join(f"{name}: {value}\n" for name, value in fields)
    parsed = message_from_bytes(f"{header}\n{body}".encode(), policy=compat32)
    facts = header_facts(header.encode())
    assert facts.received == len(parsed.get_all("received", []))
    values = (value for name, value in fields if name.lower() == "delivered-to")
    assert len(parsed.get_all("delivered-to", [])) == sum(
        name.lower() == "delivered-to" for name, _ in fields
    )
    assert facts.delivered_to == {fold(value.replace("\n", "").strip()) for value in values}


@given(st.binary(max_size=300), st.integers(1, 50), st.integers(1, 100))
def test_any_octets_in_any_pieces(message: bytes, step: int, limit: int) -> None:
    """Whole or split anywhere: the same content, facts and verdict on the header."""

    async def read(step: int) -> tuple[Content, bool]:
        spool = Spool("/nonexistent", 1000, limit)
        content = await fill(spool, message, step)
        spool.close()
        return content, spool.header_too_large

    async def both() -> None:
        assert await read(step) == await read(1000)

    asyncio.run(both())
