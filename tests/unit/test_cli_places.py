"""What check says of disks that take nothing: for a quota, or because they fail."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from restante.cli.check.findings import Findings
from restante.cli.check.places import examine_places
from restante.config.tree import Mail, Queue, Settings
from tests.support.other_disks import count_for_limits, limit, other_disk, subvolume
from tests.support.power import mounted


def problems(directory: Path) -> list[str]:
    findings = Findings()
    settings = Settings(str(directory), mail=Mail(root="mail"), queue=Queue(root="queue"))
    examine_places(settings, findings)
    return [each for each in findings.problems if "refused" in each or "fails" in each]


def test_a_quota_that_leaves_no_room(tmp_path: Path) -> None:
    with other_disk(tmp_path / "btrfs", "btrfs") as disk:
        count_for_limits(disk)
        (disk / "queue").mkdir()
        limit(subvolume(disk / "mail"), 4096)
        assert problems(disk) == [
            f"mail.root: a quota leaves no room in {disk}/mail; mail is refused"
        ]
        assert list((disk / "mail").iterdir()) == []
        limit(disk / "mail", None)
        assert problems(disk) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    for name in ("mail", "queue"):
        (tmp_path / name).mkdir()
    mail = tmp_path / "mail"
    with mounted("-o", "bind,ro", mail, mail):
        (problem,) = problems(tmp_path)
        where = f"mail.root: nothing can be written in {mail}"
        assert problem.startswith(f"{where}: its file system is read-only; ")
    assert problems(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_file_system_without_inodes(tmp_path: Path) -> None:
    for name in ("mail", "queue"):
        (tmp_path / name).mkdir()
    mail = tmp_path / "mail"
    with mounted("-t", "tmpfs", "-o", "size=8m,nr_inodes=2", "tmpfs", mail):
        assert problems(tmp_path) == []
        (mail / "last").touch()
        (problem,) = problems(tmp_path)
        assert problem.startswith(f"mail.root: the file system of {mail} has no inode left (df -i)")


def test_a_disk_that_is_known_from_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stat(2) answers, and statvfs(2) asks the disk."""
    for name in ("mail", "queue"):
        (tmp_path / name).mkdir()

    def fails(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "statvfs", fails)
    told = problems(tmp_path)
    assert (
        f"mail.root: nothing can be written in {tmp_path}/mail: {os.strerror(errno.EIO)}"
        in (told[0])
    )


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_disk_that_fails_when_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Such as an ext4 that Linux has shut off after an error."""
    for name in ("mail", "queue"):
        (tmp_path / name).mkdir()

    def fails(dir: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    for told, name in zip(problems(tmp_path), ("mail", "queue"), strict=True):
        where = f"{name}.root: nothing can be written in {tmp_path / name}"
        assert told.startswith(f"{where}: {os.strerror(number)}; ")
