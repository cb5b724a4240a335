"""What the kernel's pages say of a file system, and what is made of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from restante.mda import ext4
from restante.mda.ext4 import Ext4
from restante.mda.remembered import REMEMBERED

OPTIONS = "rw\ndelalloc\nbarrier\ndata=ordered\n"


@pytest.fixture
def fd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A file on what counts as ext4 here, whatever it is."""
    fd = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(ext4, "KIND", ext4.kind(fd))
    yield fd
    os.close(fd)


def pages(
    root: Path,
    fd: int,
    *,
    task: str | None = "4711\n",
    options: str | None = OPTIONS,
    journals: tuple[str, ...] | None = ("dm-1-8", "sdb"),
    name: str = "dm-1",
    release: str = "5.2.0",
    clock: Callable[[], float] = time.monotonic,
) -> Ext4:
    """What is known where the kernel says this; None: that page is missing."""
    device = os.fstat(fd).st_dev
    blocks = root / "sys/dev/block"
    blocks.mkdir(parents=True)
    number = f"{os.major(device)}:{os.minor(device)}"
    (blocks / number).symlink_to(f"../../devices/virtual/block/{name}")
    (root / f"sys/fs/ext4/{name}").mkdir(parents=True)
    if task is not None:
        (root / f"sys/fs/ext4/{name}/journal_task").write_text(task)
    if options is not None:
        (root / f"proc/fs/ext4/{name}").mkdir(parents=True)
        (root / f"proc/fs/ext4/{name}/options").write_text(options)
    for journal in journals or ():
        (root / f"proc/fs/jbd2/{journal}").mkdir(parents=True)
    return Ext4(f"{root}/proc", f"{root}/sys", release, clock)


@pytest.mark.parametrize(
    ("release", "keeps"), [("5.2.0", True), ("6.1.0-9", True), ("5.1.9", False)]
)
def test_a_journal_in_the_file_system_keeps_order(
    tmp_path: Path, fd: int, release: str, keeps: bool
) -> None:
    assert pages(tmp_path, fd, release=release).keeps_order(fd) is keeps


@pytest.mark.parametrize("journals", [None, (), ("sdb",), ("dm-10-8",), ("dm-1",)])
def test_no_journal_or_one_elsewhere_does_not(
    tmp_path: Path, fd: int, journals: tuple[str, ...] | None
) -> None:
    assert not pages(tmp_path, fd, journals=journals).keeps_order(fd)


@pytest.mark.parametrize("options", [None, OPTIONS + "journal_async_commit\n"])
def test_a_commit_that_may_overtake_its_octets_does_not(
    tmp_path: Path, fd: int, options: str | None
) -> None:
    assert not pages(tmp_path, fd, options=options).keeps_order(fd)


@pytest.mark.parametrize(
    ("task", "may_be_left"), [("4711\n", False), ("<none>\n", True), ("", True), (None, True)]
)
def test_what_syncfs_leaves_in_the_cache(
    tmp_path: Path, fd: int, task: str | None, may_be_left: bool
) -> None:
    assert pages(tmp_path, fd, task=task).flushes_early(fd) is may_be_left


@pytest.mark.parametrize(
    ("task", "lacks"), [("4711\n", False), ("<none>\n", True), ("", False), (None, False)]
)
def test_a_journal_is_missed_only_where_the_kernel_says_so(
    tmp_path: Path, fd: int, task: str | None, lacks: bool
) -> None:
    assert pages(tmp_path, fd, task=task).lacks_journal(fd) is lacks


@pytest.mark.parametrize(
    ("task", "release", "follow"),
    [
        ("<none>\n", "4.4.0-1-amd64", True),
        ("<none>\n", "6.12.1+deb13-cloud", True),
        ("<none>\n", "5.2-rc1", True),
        ("<none>\n", "4.3.99", False),
        ("<none>\n", "3.16.0-4-amd64", False),
        ("<none>\n", "unknown", False),
        ("4711\n", "6.1.0", False),
        (None, "6.1.0", False),
    ],
)
def test_names_follow_their_files_where_no_journal_brings_both(
    tmp_path: Path, fd: int, task: str | None, release: str, follow: bool
) -> None:
    assert pages(tmp_path, fd, task=task, release=release).names_follow(fd) is follow


def test_where_the_kernel_says_nothing(tmp_path: Path, fd: int) -> None:
    known = Ext4(f"{tmp_path}/proc", f"{tmp_path}/sys")
    assert not known.keeps_order(fd)
    assert known.flushes_early(fd)


def test_other_file_systems(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pages(tmp_path, fd, task="<none>\n")
    monkeypatch.setattr(ext4, "KIND", ext4.kind(fd) + 1)
    assert not known.keeps_order(fd)
    assert not known.flushes_early(fd)
    assert not known.lacks_journal(fd)
    assert not known.names_follow(fd)
    assert not known.lacks_journal(fd)
    assert not known.names_follow(fd)


def test_what_is_known_is_asked_again_after_a_while(tmp_path: Path, fd: int) -> None:
    now = 0.0
    known = pages(tmp_path, fd, clock=lambda: now)
    assert known.keeps_order(fd)
    assert not known.flushes_early(fd)
    for page in ("proc/fs/ext4/dm-1/options", "sys/fs/ext4/dm-1/journal_task"):
        (tmp_path / page).unlink()
    now = REMEMBERED - 0.1
    assert known.keeps_order(fd)
    assert not known.flushes_early(fd)
    now = REMEMBERED
    assert not known.keeps_order(fd)
    assert known.flushes_early(fd)


def test_this_machine_is_asked_without_an_error(fd: int) -> None:
    """Whatever it says: one kind of file system at a time is as it is."""
    known = Ext4()
    assert not (known.keeps_order(fd) and (known.flushes_early(fd) or known.names_follow(fd)))
    assert known.flushes_early(fd) or not known.lacks_journal(fd)
