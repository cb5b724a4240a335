"""Deletions of messages that another program renames at the same time, as when it sets flags."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.helper.pool import Helpers
from restante.helper.store import HelperStore
from restante.mda.writer import BatchWriter
from restante.store import MaildropUnavailable, MailStore, entries, scan
from restante.store.maildir import MaildirStore
from tests.support.deliveries import HOST
from tests.support.helpers import HereSupplier
from tests.support.maildrop_box import Box

MESSAGES = 10


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path)
    for number in range(MESSAGES):
        box.put(f"cur/{1_700_000_000 + number}.a,S=13,W=16:2,")
    return box


@pytest.fixture(params=["here", "by a helper"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MailStore]:
    if request.param == "here":
        yield MaildirStore()
        return
    writer = BatchWriter(HOST, 1, 1)
    helpers = Helpers(HereSupplier(writer), 60.0)
    yield HelperStore(helpers)
    await helpers.close()
    await writer.close()


class Rival:
    """A program that sets another flag just before a message is unlinked."""

    def __init__(self, box: Box, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        """``times``: how often it does so to each."""
        self.cur = box.path / "cur"
        self.times = times
        self.renamed: dict[str, int] = {}
        self.unlink = os.unlink
        monkeypatch.setattr(os, "unlink", self.rename_first)

    def rename_first(self, path: bytes) -> None:
        base = os.fsdecode(path).rpartition("/")[2].partition(":")[0]
        before = self.renamed.get(base, 0)
        if base[0].isdigit() and before < self.times:
            self.renamed[base] = before + 1
            os.rename(path, f"{self.cur}/{base}:2,{'FRS'[before % 3]}")
        self.unlink(path)


@pytest.mark.parametrize("times", [1, 2, scan.LOOKS])
async def test_what_is_renamed_meanwhile_is_deleted(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    drop = await store.open(box.account)
    rival = Rival(box, monkeypatch, times)
    await drop.remove(range(MESSAGES))
    drop.close()
    assert set(rival.renamed.values()) == {times}
    assert os.listdir(box.path / "cur") == []


async def test_what_is_renamed_without_end_is_not_said_to_be_deleted(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that believes it has its mail back as new mail (RFC 1939 §6 wants -ERR)."""
    drop = await store.open(box.account)
    Rival(box, monkeypatch, float("inf"))
    with pytest.raises(MaildropUnavailable, match=r"\(0 are gone.* go on renaming them"):
        await drop.remove(range(MESSAGES))
    drop.close()
    assert len(os.listdir(box.path / "cur")) == MESSAGES


async def test_it_is_told_how_many_are_deleted_where_some_are_not(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could say where the mail is."""
    drop = await store.open(box.account)
    original = os.unlink

    def denied(path: bytes) -> None:
        if b"3.a" in path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        original(path)

    monkeypatch.setattr(os, "unlink", denied)
    with pytest.raises(
        MaildropUnavailable, match=rf"{MESSAGES} messages \({MESSAGES - 1} are gone"
    ):
        await drop.remove(range(MESSAGES))
    drop.close()
    assert len(os.listdir(box.path / "cur")) == 1


async def test_what_is_not_found_is_looked_for_while_others_are_renamed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a directory may miss a file again and again that is renamed meanwhile."""
    drop = await store.open(box.account)
    Rival(box, monkeypatch, 2)
    original, readings = entries.read, 0

    def without_the_last(directory: bytes) -> entries.Entries:
        nonlocal readings
        found = original(directory)
        readings += 1
        if readings <= 2 * len(scan.FOLDERS):
            del found.names[MESSAGES - 1 :]
        return found

    monkeypatch.setattr(entries, "read", without_the_last)
    await drop.remove(range(MESSAGES))
    drop.close()
    assert os.listdir(box.path / "cur") == []


async def test_what_a_program_has_removed_counts_as_deleted_beside_what_it_renames(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = await store.open(box.account)
    for name in sorted(os.listdir(box.path / "cur"))[::2]:
        (box.path / "cur" / name).unlink()
    Rival(box, monkeypatch, 2)
    await drop.remove(range(MESSAGES))
    drop.close()
    assert os.listdir(box.path / "cur") == []


async def test_deletions_look_at_no_directory_where_nothing_is_renamed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = await store.open(box.account)
    monkeypatch.setattr(scan, "look", None)
    await drop.remove(range(MESSAGES))
    drop.close()
    assert os.listdir(box.path / "cur") == []


class Flags:
    """A program that sets a flag of some message whenever ``cur`` is read, so that it is missed."""

    def __init__(self, box: Box, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        """``times``: how often it does so, each time to another one."""
        self.cur = box.path / "cur"
        self.names = sorted(os.listdir(self.cur))
        self.times = times
        self.readings = 0
        self.read, self.regular_files = entries.read, entries._regular_files
        monkeypatch.setattr(entries, "read", self.count)
        monkeypatch.setattr(entries, "_regular_files", self.rename)

    def count(self, directory: bytes) -> entries.Entries:
        self.readings += directory.endswith(b"/cur")
        return self.read(directory)

    def rename(self, directory: bytes, block: bytes) -> list[str]:
        found = self.regular_files(directory, block)
        if not directory.endswith(b"/cur") or self.readings > self.times:
            return found
        name = self.names[self.readings]
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.cur / name, self.cur / f"{name}S")
        return [each for each in found if not each.startswith(name)]


@pytest.mark.parametrize("times", [0, 1, scan.LOOKS])
async def test_what_is_renamed_while_a_large_directory_is_read_is_listed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A client that leaves its mail on the server would fetch it again."""
    for number in range(entries.BLOCK // 200):
        box.put(f"cur/{1_800_000_000 + number}.a,S=13,W=16:2,{'x' * 200}")
    await asyncio.sleep(2 * entries.TICK)
    flags = Flags(box, monkeypatch, times)
    drop = await store.open(box.account)
    assert [uid.decode() for uid in drop.messages.uids] == [
        name.partition(":")[0] for name in flags.names
    ]
    assert (times < flags.readings) == (times < scan.LOOKS)
    assert flags.readings <= scan.LOOKS
    drop.close()


@pytest.mark.parametrize("times", [0, 1, scan.LOOKS])
async def test_what_is_renamed_while_a_network_s_directory_is_read_is_listed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """NFS has one block of several answers of its server, between which others set flags."""
    monkeypatch.setattr(entries, "stamp_of", lambda _: None)
    await asyncio.sleep(2 * entries.TICK)
    flags = Flags(box, monkeypatch, times)
    drop = await store.open(box.account)
    assert len(drop.messages) == MESSAGES
    assert (flags.readings == 1) == (times == 0)
    drop.close()


async def test_what_is_renamed_before_it_is_known_for_a_file_is_listed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems do not say with a name what it is that of."""
    monkeypatch.setattr(entries, "_REGULAR", -1)
    monkeypatch.setattr(entries, "_UNKNOWN", 8)
    original = os.lstat

    def renamed_first(path: bytes) -> os.stat_result:
        if os.fsencode(path).endswith(b":2,"):
            os.rename(path, path + b"S")
        return original(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", renamed_first)
        drop = await store.open(box.account)
    assert len(drop.messages) == MESSAGES
    assert [piece async for piece in drop.read(0)] == [b"A: 1\n\nHello\n"]
    await drop.remove(range(MESSAGES))
    drop.close()
    assert os.listdir(box.path / "cur") == []


@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_is_new_again_while_the_maildrop_is_read_is_listed(
    box: Box, store: MailStore, monkeypatch: pytest.MonkeyPatch, *, is_whole: bool
) -> None:
    """Mutt moves a message back that its user has marked as new; it may rename others meanwhile."""
    await asyncio.sleep(2 * entries.TICK)
    original = entries.read

    def moving_first(directory: bytes) -> entries.Entries:
        if directory.endswith(b"/cur"):
            name = min(os.listdir(box.path / "cur"))
            os.rename(box.path / "cur" / name, box.path / "new" / name.partition(":")[0])
            return replace(original(directory), is_whole=is_whole)
        return original(directory)

    monkeypatch.setattr(entries, "read", moving_first)
    drop = await store.open(box.account)
    assert len(drop.messages) == MESSAGES
    assert len(set(drop.messages.uids)) == MESSAGES
    drop.close()
