"""What check says of the file systems that mail and queues lie on."""

from __future__ import annotations

from pathlib import Path

import pytest

from restante.cli.findings import Findings
from restante.cli.mount_examination import examine_mounts
from restante.config.tree import Mail, Queue, Settings

DISK = "/dev/sda1 / ext4 rw,relatime 0 0\n"
SETTINGS = Settings("/srv/restante", mail=Mail(root="/srv/mail"), queue=Queue(root="queue"))


def examined(tmp_path: Path, table: str) -> Findings:
    findings = Findings()
    (tmp_path / "mounts").write_text(DISK + table)
    examine_mounts(SETTINGS, findings, str(tmp_path / "mounts"))
    return findings


def nfs(options: str, place: str = "/srv/mail", kind: str = "nfs4") -> str:
    return f"10.0.0.10:/mail {place} {kind} rw,{options},addr=10.0.0.10 0 0\n"


@pytest.mark.parametrize(
    "table",
    [
        "",
        nfs("vers=4.2,hard,local_lock=none"),
        nfs("vers=4.2,hard,local_lock=posix"),
        nfs("vers=3,soft,nolock,local_lock=all", place="/srv/mailing-lists", kind="nfs"),
        "mail@fsid.cephfs=/mail /srv/mail ceph rw,noatime 0 0\n",
        nfs("vers=3,soft,nolock", kind="nfs") + "/dev/sdb1 /srv/mail ext4 rw 0 0\n",
    ],
)
def test_mounts_that_are_fit(tmp_path: Path, table: str) -> None:
    assert examined(tmp_path, table) == Findings()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (nfs("vers=4.2,hard,local_lock=flock"), ["local_lock=flock"]),
        (nfs("vers=3,hard,nolock,local_lock=all", kind="nfs"), ["local_lock=all"]),
        (nfs("vers=3,hard,local_lock=none", kind="nfs"), ["NFSv3"]),
        (nfs("vers=4.2,soft,local_lock=none", place="/srv"), ["soft"]),
    ],
)
def test_mounts_that_mail_should_not_lie_on(tmp_path: Path, table: str, words: list[str]) -> None:
    findings = examined(tmp_path, table)
    assert len(findings.advice) == len(words)
    for advice, word in zip(findings.advice, words, strict=True):
        assert advice.startswith("mail.root: ")
        assert word in advice


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.glusterfs"])
def test_queues_lie_on_a_disk(tmp_path: Path, kind: str) -> None:
    findings = examined(tmp_path, f"server:/x /srv/restante {kind} rw,vers=4.2,hard 0 0\n")
    assert findings.advice == []
    assert len(findings.problems) == 1
    assert "network file system" in findings.problems[0]


def test_blanks_in_names(tmp_path: Path) -> None:
    settings = Settings("/srv/restante", mail=Mail(root="/srv/our mail/all"))
    (tmp_path / "mounts").write_text(DISK + nfs("vers=4.2,soft", place=r"/srv/our\040mail"))
    findings = Findings()
    examine_mounts(settings, findings, str(tmp_path / "mounts"))
    assert "/srv/our mail is mounted with soft" in findings.advice[0]


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    findings = Findings()
    examine_mounts(SETTINGS, findings, str(tmp_path / "missing"))
    assert findings == Findings()
