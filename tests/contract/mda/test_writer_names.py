"""Files that are written without a name, or in tmp, and get theirs when they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from restante.mda import MailboxWriter
from restante.mda.writer import BatchWriter
from restante.status import Delivered
from tests.support.deliveries import CONTENT, HOST, delivery, envelope, expected, messages, settle
from tests.support.faulty_disk import FaultyDisk
from tests.support.mailbox_writers import NoLinks


async def test_what_a_crash_left_in_tmp_is_replaced(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    disk.named_only = True
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    (Path(one.maildir) / "new" / name).rename(Path(one.maildir) / "tmp" / name)
    (Path(one.maildir) / "tmp" / name).write_bytes(b"half")
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    assert messages(one) == {name: expected(one)}
    assert messages(one, "tmp") == {}


async def test_more_copies_than_files_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.mda.unnamed.MOST", 2)
    made: list[str] = []

    def note(name: str) -> int:
        made.append(name)
        return 0

    disk = FaultyDisk(faults={"create": note})
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(5)]
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    await writer.close()
    assert [bool(name) for name in made] == [False, False, True, True, True]
    for each in deliveries:
        assert list(messages(each).values()) == [expected(each)]
        assert messages(each, "tmp") == {}


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOSYS])
@pytest.mark.parametrize("copies", [1, 3])
async def test_where_files_may_get_no_name_later(tmp_path: Path, error: int, copies: int) -> None:
    """They are written again, with names, and so is whatever comes after them."""
    disk = NoLinks()
    disk.error = error
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(copies)]
    writer = BatchWriter(HOST, 1, 1, disk)
    for number in range(2):
        outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
        assert isinstance(outcome, Delivered)
    await writer.close()
    assert disk.asked == copies
    disk.lose_power(entries_lost=True)
    for each in deliveries:
        assert list(messages(each).values()) == [expected(each)] * 2
        assert messages(each, "tmp") == {}


async def test_where_files_without_names_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.mda.unnamed._KEEPING", {0x9123683E: "btrfs"})
    made: list[str] = []

    def note(name: str) -> int:
        made.append(name)
        return 0

    one = delivery(tmp_path)
    writer = BatchWriter(HOST, 1, 1, FaultyDisk(faults={"create": note}))
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(2):
        assert isinstance(await writer.deliver_all(envelope(number), CONTENT, [one]), Delivered)
    assert [bool(name) for name in made] == [False, True, True]
    await writer.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert len(messages(one)) == 2


@pytest.mark.parametrize("error", [errno.EISDIR, errno.EINVAL, errno.ENOSYS])
async def test_where_nobody_has_heard_of_files_without_names(tmp_path: Path, error: int) -> None:
    one = delivery(tmp_path)
    disk = FaultyDisk(faults={"create": lambda name: 0 if name else error})
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    await writer.close()
    assert list(messages(one).values()) == [expected(one)]


async def test_what_bears_the_name_already_is_replaced(
    tmp_path: Path, writer: MailboxWriter
) -> None:
    """An attempt that failed could not take its copy back."""
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    assert messages(one) == {name: expected(one)}


async def test_a_name_that_is_refused_leaves_nothing_open(tmp_path: Path, disk: FaultyDisk) -> None:
    one = delivery(tmp_path)
    writer = BatchWriter(HOST, 1, 1, disk)
    await writer.deliver_all(envelope(0), CONTENT, [one])
    settle(one)
    held = len(os.listdir("/proc/self/fd"))
    disk.faults["rename"] = lambda _name: errno.EIO
    assert not isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)
    assert len(os.listdir("/proc/self/fd")) == held
    await writer.close()
