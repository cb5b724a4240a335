"""What check says of the file systems that mail and queues lie on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restante.cli.check.findings import Findings
from restante.cli.check.mounts import examine_mounts
from restante.config.tree import Mail, Queue, Settings
from restante.mda.ext4 import Ext4

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
        "ceph-fuse /srv/mail fuse.ceph-fuse rw,noatime,allow_other 0 0\n",
        "gl1:/mail /srv/mail fuse.glusterfs rw,default_permissions,allow_other 0 0\n",
        "fuse-overlayfs / fuse.fuse-overlayfs rw,lowerdir=l 0 0\n",
        nfs("vers=3,soft,nolock", kind="nfs") + "/dev/sdb1 /srv/mail ext4 rw 0 0\n",
        nfs("vers=3", "/srv/mail/old", "nfs") + "/dev/sdb1 /srv/mail ext4 rw 0 0\n",
        nfs("vers=3", "/home/old", "nfs") + "/dev/sdb1 /home/old ext4 rw 0 0\n",
        "ann@x:/mail /home/ann/far fuse.sshfs rw,nosuid,nodev,user_id=1000,group_id=1000 0 0\n",
        nfs("vers=3,nolock", "/homes", "nfs") + nfs("vers=3,nolock", "/srv/media", "nfs"),
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
        (nfs("vers=4.2,softerr,local_lock=none"), ["softerr"]),
        (nfs("vers=4.0,softerr"), ["NFSv4.0", "softerr"]),
        (nfs("vers=4.2,hard") + nfs("vers=3", "/srv/mail/example.com", "nfs"), ["NFSv3"]),
        (
            nfs("vers=3", "/srv/mail/a", "nfs") + nfs("vers=4.2,soft", "/srv/mail/b"),
            ["NFS", "soft"],
        ),
    ],
)
def test_mounts_that_mail_should_not_lie_on(tmp_path: Path, table: str, words: list[str]) -> None:
    findings = examined(tmp_path, table)
    assert len(findings.advice) == len(words)
    for advice, word in zip(findings.advice, words, strict=True):
        assert advice.startswith("mail.root: ")
        assert word in advice


@pytest.mark.parametrize("place", ["/home", "/home/ann", "/srv/vmail/x/y"])
def test_homes_may_lie_elsewhere(tmp_path: Path, place: str) -> None:
    """Rows of former times name them, and each may be a mount of its own."""
    settings = Settings(
        "/srv/restante", mail=Mail(root="/srv/mail", home_roots=("/home", "/srv/vmail"))
    )
    (tmp_path / "mounts").write_text(DISK + nfs("vers=4.2,nolock", place))
    findings = Findings()
    examine_mounts(settings, findings, str(tmp_path / "mounts"))
    (advice,) = findings.advice
    assert advice.startswith(f"mail.home_roots: {place} is mounted with nolock: ")


@pytest.mark.parametrize("is_first", [True, False])
def test_homes_may_lie_anywhere(tmp_path: Path, *, is_first: bool) -> None:
    """What was mounted before / was moved there."""
    settings = Settings("/srv/restante", mail=Mail(root="/srv/mail", home_roots=("/",)))
    lines = [nfs("vers=4.2,nolock", "/home"), DISK]
    (tmp_path / "mounts").write_text("".join(lines if is_first else reversed(lines)))
    findings = Findings()
    examine_mounts(settings, findings, str(tmp_path / "mounts"))
    (advice,) = findings.advice
    assert advice.startswith("mail.home_roots: /home is mounted with nolock: ")


BTRFS = "/dev/sdb1 /srv btrfs rw,nobarrier,space_cache=v2 0 0\n"


@pytest.mark.parametrize(
    ("table", "begins"),
    [
        (
            "tmpfs /srv tmpfs rw,size=1g 0 0\n",
            "mail.root and queue.root: /srv is in memory (tmpfs)",
        ),
        ("none /srv/mail ramfs rw 0 0\n", "mail.root: /srv/mail is in memory (ramfs)"),
        (BTRFS, "mail.root and queue.root: /srv is mounted with nobarrier: "),
        ("/dev/sdb1 /srv/restante ext3 rw,barrier=0 0 0\n", "queue.root: /srv/restante is mounted"),
        (
            "overlay /srv overlay rw,lowerdir=l,volatile 0 0\n",
            "mail.root and queue.root: /srv is an",
        ),
        ("/dev/sdb1 /srv/mail ext2 rw 0 0\n", "mail.root: /srv/mail is ext2 without a journal: "),
    ],
)
def test_what_a_power_cut_takes(tmp_path: Path, table: str, begins: str) -> None:
    findings = examined(tmp_path, table)
    assert findings.problems == []
    (advice,) = findings.advice
    assert advice.startswith(begins)
    assert "power cut" in advice


@pytest.mark.parametrize(
    "table",
    [
        "tmpfs /srv tmpfs rw 0 0\n/dev/sdb1 /srv xfs rw 0 0\n",
        "overlay /srv overlay rw,lowerdir=l,upperdir=u,workdir=w 0 0\n",
        "tmpfs /srv/other tmpfs rw 0 0\n",
    ],
)
def test_what_no_power_cut_takes(tmp_path: Path, table: str) -> None:
    assert examined(tmp_path, table) == Findings()


class Without(Ext4):
    """Where no file system has a journal."""

    def lacks_journal(self, fd: int) -> bool:
        return bool(os.fstat(fd).st_mode)


@pytest.mark.parametrize(("kind", "said"), [("ext4", 1), ("ext3", 1), ("xfs", 0)])
def test_a_journal_is_missed(tmp_path: Path, kind: str, said: int) -> None:
    settings = Settings(str(tmp_path), mail=Mail(root="."), queue=Queue(root="missing"))
    (tmp_path / "mounts").write_text(f"/dev/sda1 / {kind} rw 0 0\n")
    findings = Findings()
    examine_mounts(settings, findings, str(tmp_path / "mounts"), Without())
    assert len(findings.advice) == said
    assert all(f"/ is {kind} without a journal" in each for each in findings.advice)


def test_of_a_directory_that_is_missing_nothing_is_said(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), mail=Mail(root="missing"), queue=Queue(root="missing"))
    (tmp_path / "mounts").write_text(DISK)
    findings = Findings()
    examine_mounts(settings, findings, str(tmp_path / "mounts"), Without())
    assert findings == Findings()


def test_sshfs_keeps_its_locks_to_itself(tmp_path: Path) -> None:
    (advice,) = examined(tmp_path, "x:/mail /srv/mail fuse.sshfs rw,allow_other 0 0\n").advice
    assert advice.startswith("mail.root: /srv/mail is mounted by sshfs")


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.glusterfs", "fuse.sshfs"])
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
