"""What check says of room, where the disk has some and a quota leaves none."""

from __future__ import annotations

from pathlib import Path

from restante.cli.findings import Findings
from restante.cli.place_examination import examine_places
from restante.config.tree import Mail, Queue, Settings
from tests.support.other_disks import count_for_limits, limit, other_disk, subvolume


def problems(directory: Path) -> list[str]:
    findings = Findings()
    settings = Settings(str(directory), mail=Mail(root="mail"), queue=Queue(root="queue"))
    examine_places(settings, findings)
    return [each for each in findings.problems if "refused" in each]


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
