"""Where file systems are mounted, and which of them may hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from restante import mounts
from restante.mounts import REMEMBERED, FarPlaces, mount_of, read_mounts

TABLE = r"""/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
10.0.0.10:/mail /srv/mail nfs4 rw,vers=4.2,hard 0 0
/dev/sdb1 /srv/mail/near xfs rw 0 0
me:/our /srv/our\040mail fuse.glusterfs rw 0 0
sshfs /srv/own fuse rw 0 0
/dev/sdc1 /srv/disk fuseblk rw 0 0
mail@fsid.cephfs=/ /srv/both ceph rw 0 0
/dev/sdd1 /srv/both ext4 rw 0 0
host /srv/host virtiofs rw 0 0
/etc/auto.mail /srv/waiting autofs rw,fd=6,direct 0 0
systemd-1 /srv/disk2 autofs rw,fd=7,direct 0 0
/dev/sde1 /srv/disk2 ext4 rw 0 0
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mounts"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/home/iain", ""),
        ("/srv/mail", "/srv/mail"),
        ("/srv/mail/example.com/iain", "/srv/mail"),
        ("/srv//mail/./example.com/iain", "/srv/mail"),
        ("/srv/mail/near/iain", ""),
        ("/srv/mailboxes/iain", ""),
        ("/srv/our mail/iain", "/srv/our mail"),
        ("/srv/own/iain", "/srv/own"),
        ("/srv/disk/iain", ""),
        ("/srv/both/iain", ""),
        ("/srv/host/iain", "/srv/host"),
        ("/srv/waiting/iain", "/srv/waiting"),
        ("/srv/disk2/iain", ""),
        ("no path", ""),
        ("", ""),
    ],
)
def test_what_lies_on_a_far_file_system(table: Path, path: str, place: str) -> None:
    assert FarPlaces(str(table)).of(path) == place


def test_what_every_machine_has_costs_no_home_a_look(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text(
        "/dev/sda1 / ext4 rw 0 0\nsystemd-1 /proc/sys/fs/binfmt_misc autofs rw,direct 0 0\n"
    )
    monkeypatch.setattr(mounts, "mount_of", None)
    assert FarPlaces(str(table)).of("/home/iain") == ""


def test_a_place_with_a_cr_in_its_name_hides_no_other(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_bytes(b"x /home/eve/a\rb fuse.x rw 0 0\nhost:/mail /srv/mail nfs4 rw 0 0\n")
    assert FarPlaces(str(table)).of("/srv/mail/iain") == "/srv/mail"
    assert FarPlaces(str(table)).of("/home/eve/a\rb/c") == "/home/eve/a\rb"


def test_the_table_is_read_again(table: Path) -> None:
    now = 1000.0
    places = FarPlaces(str(table), lambda: now)
    assert places.of("/srv/mail/iain") == "/srv/mail"
    table.write_text(TABLE.replace("nfs4", "ext4"))
    now += REMEMBERED - 1
    assert places.of("/srv/mail/iain") == "/srv/mail"
    now += 1
    assert places.of("/srv/mail/iain") == ""


def test_where_there_is_no_table_nothing_is_far(tmp_path: Path) -> None:
    assert FarPlaces(str(tmp_path / "missing")).of("/srv/mail/iain") == ""


def test_this_machine_s_own_table() -> None:
    mount = mount_of("/", read_mounts("/proc/self/mounts"))
    assert mount is not None
    assert mount.place == "/"
