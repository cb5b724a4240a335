"""What is known of xfs by the kernel's table of mounts; and one of this kernel, at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.mda import ext4, xfs
from restante.mda.durable import LocalDisk
from restante.mda.remembered import REMEMBERED, Clock
from restante.mda.xfs import Xfs
from tests.support.deliveries import delivery, settle
from tests.support.faulty_disk import FaultyDisk
from tests.support.mailbox_writers import deliver_anew
from tests.support.other_disks import other_disk

ROOT = "21 1 0:1 / / rw,relatime shared:1 - ext4 /dev/vda rw,logdev=/dev/vdc\n"
OPTIONS = "rw,attr2,inode64,logbufs=8,logbsize=32k,noquota"


@pytest.fixture
def fd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a file on what is taken for an xfs."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(xfs, "KIND", ext4.kind(descriptor))
    yield descriptor
    os.close(descriptor)


def table(
    root: Path, fd: int, *options: str, release: str = "5.2.0", clock: Clock = time.monotonic
) -> Xfs:
    """What is known where it is mounted with these, at as many places."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = [f"30 21 {number} /a /srv rw - xfs /dev/vdb {each}\n" for each in options]
    (root / "mountinfo").write_text(ROOT + "".join(lines))
    return Xfs(str(root / "mountinfo"), release, clock)


@pytest.mark.parametrize(
    ("release", "keeps"), [("5.2.0", True), ("6.1.0-9", True), ("5.1.9", False), ("?", False)]
)
def test_where_all_is_on_one_device_order_is_kept(
    tmp_path: Path, fd: int, release: str, keeps: bool
) -> None:
    assert table(tmp_path, fd, OPTIONS, OPTIONS, release=release).keeps_order(fd) is keeps


@pytest.mark.parametrize(
    "options",
    [
        (),
        (f"{OPTIONS},logdev=/dev/vdc",),
        (f"rtdev=/dev/vdc,{OPTIONS}",),
        (OPTIONS, f"{OPTIONS},logdev=/dev/vdc"),
    ],
)
def test_where_it_is_not_or_nobody_says_it_is_not(
    tmp_path: Path, fd: int, options: tuple[str, ...]
) -> None:
    assert not table(tmp_path, fd, *options).keeps_order(fd)


@pytest.mark.parametrize("name", ["a\rb", "a\x1cb", "a\u2028b\xa0c"])
def test_whatever_the_name_of_its_place_holds(tmp_path: Path, fd: int, name: str) -> None:
    known = table(tmp_path, fd, f"{OPTIONS},logdev=/dev/vdc", OPTIONS)
    lines = tmp_path / "mountinfo"
    lines.write_bytes(lines.read_bytes().replace(b"/srv", f"/{name}".encode(), 1))
    assert not known.keeps_order(fd)


def test_without_the_table_nothing_is_known(tmp_path: Path, fd: int) -> None:
    assert not Xfs(str(tmp_path / "missing")).keeps_order(fd)


def test_other_file_systems_are_not_asked_about(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = table(tmp_path, fd, OPTIONS)
    monkeypatch.setattr(xfs, "KIND", ext4.kind(fd) + 1)
    assert not known.keeps_order(fd)


def test_what_is_known_is_asked_again_after_a_while(tmp_path: Path, fd: int) -> None:
    now = 0.0
    known = table(tmp_path, fd, OPTIONS, clock=lambda: now)
    assert known.keeps_order(fd)
    (tmp_path / "mountinfo").unlink()
    now = REMEMBERED - 0.1
    assert known.keeps_order(fd)
    now = REMEMBERED
    assert not known.keeps_order(fd)


class OfThisKernel(FaultyDisk):
    """Keeps what order the kernel says that it does."""

    def keeps_order(self, fd: int) -> bool:
        return LocalDisk.keeps_order(self, fd)


@pytest.mark.parametrize("number", [1, 5])
async def test_one_of_this_kernel_is_synced_once(tmp_path: Path, number: int) -> None:
    with other_disk(tmp_path / "xfs", "xfs") as root:
        deliveries = [delivery(root, f"user{i}") for i in range(number)]
        disk = OfThisKernel()
        await deliver_anew(disk, deliveries)
        settle(*deliveries)
        await deliver_anew(disk, deliveries)
        assert (disk.counts["order"], disk.counts["fsync"]) == (number, 1)
        assert disk.counts["order_all"] == disk.counts["syncfs"] == 0
