"""Homes that root makes: where it does, where it does not, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.helper.homes import HomeRules, make_home
from restante.helper.limits import Limits
from restante.helper.makers import MADE
from restante.helper.messages import Owner
from restante.helper.start import order
from restante.mda.durable import LocalDisk
from restante.mda.home import UnsafePlace
from tests.support.deliveries import HOST
from tests.support.helpers import nursery, passable_directory
from tests.support.owner import only_root

ANN = Owner(12345, 12399)
VMAIL = 12346


@pytest.fixture
def root() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


def make(root: Path, home: str) -> None:
    make_home(f"{root}/{home}", ANN, HomeRules([str(root)]))


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@only_root
def test_a_home_and_what_leads_to_it(root: Path) -> None:
    former = os.umask(0o022)
    try:
        make(root, "example.com/ann")
    finally:
        os.umask(former)
    assert owner_and_mode(root / "example.com") == (0, 0, 0o755)
    assert owner_and_mode(root / "example.com" / "ann") == (ANN.uid, ANN.gid, 0o700)
    assert os.listdir(root / "example.com") == ["ann"]


@only_root
def test_a_home_that_is_there_stays_as_it_is(root: Path) -> None:
    (root / "ann").mkdir(mode=0o750)
    os.chown(root / "ann", ANN.uid, 1)
    make(root, "ann")
    assert owner_and_mode(root / "ann") == (ANN.uid, 1, 0o750)


@only_root
@pytest.mark.parametrize("uid", [0, VMAIL])
def test_a_home_of_others_stays_theirs(root: Path, uid: int) -> None:
    (root / "ann").mkdir(mode=0o700)
    os.chown(root / "ann", uid, uid)
    with pytest.raises(UnsafePlace, match=f"belongs to uid {uid}"):
        make(root, "ann")
    assert owner_and_mode(root / "ann") == (uid, uid, 0o700)


@only_root
@pytest.mark.parametrize(
    ("uid", "mode"), [(VMAIL, 0o755), (0, 0o775), (0, 0o757), (0, 0o1777), (ANN.uid, 0o700)]
)
def test_a_directory_that_others_can_write_to(root: Path, uid: int, mode: int) -> None:
    shared = root / "shared"
    shared.mkdir()
    os.chown(shared, uid, uid)
    shared.chmod(mode)
    for home in ("shared/ann", "shared/example.com/ann"):
        with pytest.raises(UnsafePlace, match="root makes homes only where nobody"):
            make(root, home)
    assert os.listdir(shared) == []


@only_root
def test_a_directory_of_the_keepers(root: Path) -> None:
    """Whom the root of the homes was handed over to."""
    os.chown(root, VMAIL, VMAIL)
    rules = HomeRules([str(root)], VMAIL)
    make_home(f"{root}/example.com/ann", ANN, rules)
    make_home(f"{root}/ann", ANN, rules)
    for home in ("ann", "example.com/ann"):
        assert owner_and_mode(root / home) == (ANN.uid, ANN.gid, 0o700)
    root.chmod(0o777)
    with pytest.raises(UnsafePlace, match="root makes homes only where nobody"):
        make_home(f"{root}/bob", ANN, rules)


class Replacing(LocalDisk):
    """The keeper puts something else in the place of what was made."""

    def __init__(self, root: Path, other: Path) -> None:
        self.root = root
        self.other = other

    def open_directory(self, name: str, parent: int | None) -> int:
        if name.startswith(".restante-home-"):
            os.rename(self.root / name, self.root / "made")
            os.rename(self.other, self.root / name)
        return super().open_directory(name, parent)


@only_root
@pytest.mark.parametrize("what", ["full", "keepers", "open"])
def test_what_was_replaced_in_the_making_is_not_given_away(root: Path, what: str) -> None:
    other = root / "other"
    other.mkdir(mode=0o700)
    if what == "full":
        (other / "file").touch()
    elif what == "keepers":
        os.chown(other, VMAIL, VMAIL)
    else:
        other.chmod(0o755)
    former = other.stat().st_uid
    os.chown(root, VMAIL, VMAIL)
    rules = HomeRules([str(root)], VMAIL)
    with pytest.raises(UnsafePlace, match="replaced in the making"):
        make_home(f"{root}/ann", ANN, rules, Replacing(root, other))
    assert {path.lstat().st_uid for path in root.iterdir()} <= {0, former}
    assert not (root / "ann").exists()


@only_root
@pytest.mark.parametrize("when", ["chown", "rename"])
def test_another_machine_that_is_faster_has_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """And has delivered into it by then."""
    rename = os.rename

    def make_and_rename(source: str, target: str, **places: int) -> None:
        (root / "ann" / "Maildir").mkdir(parents=True)
        os.chown(root / "ann", ANN.uid, ANN.gid)
        rename(source, target, **places)

    class Beaten(LocalDisk):
        def chown(self, fd: int, uid: int, gid: int) -> None:
            super().chown(fd, uid, gid)
            make_home(f"{root}/ann", ANN, HomeRules([str(root)]))
            made.append((root / "ann").stat().st_ino)

    made: list[int] = []
    if when == "rename":
        monkeypatch.setattr(os, "rename", make_and_rename)
        make(root, "ann")
        assert os.listdir(root / "ann") == ["Maildir"]
    else:
        make_home(f"{root}/ann", ANN, HomeRules([str(root)]), Beaten())
        assert made == [(root / "ann").stat().st_ino]
    assert os.listdir(root) == ["ann"]


@only_root
def test_links_of_others_are_not_followed(root: Path) -> None:
    (root / "secret").mkdir()
    shared = root / "shared"
    shared.mkdir()
    os.symlink(root / "secret", shared / "link")
    os.chown(shared, VMAIL, VMAIL)
    with pytest.raises(UnsafePlace, match="could have put one"):
        make(root, "shared/link/ann")
    assert os.listdir(root / "secret") == []


@only_root
def test_links_of_roots_are(root: Path) -> None:
    (root / "disk2").mkdir()
    os.symlink("disk2", root / "mail")
    make(root, "mail/ann")
    assert owner_and_mode(root / "disk2" / "ann") == (ANN.uid, ANN.gid, 0o700)


@only_root
def test_a_home_that_is_a_link_of_roots_to_nowhere(root: Path) -> None:
    os.symlink("nowhere", root / "ann")
    with pytest.raises(UnsafePlace, match="belongs to uid 0"):
        make(root, "ann")
    assert os.listdir(root) == ["ann"]


@only_root
@pytest.mark.parametrize(
    "home", ["/etc/systemd/system/x.service.d", "/", "relative", "{root}", "{root}/../ann"]
)
def test_homes_below_no_root_of_homes(root: Path, home: str) -> None:
    path = home.format(root=root)
    with pytest.raises(UnsafePlace):
        make_home(path, ANN, HomeRules([str(root)]))
    assert os.listdir(root) == []
    assert not os.path.exists("/etc/systemd/system/x.service.d")


class Killed(BaseException):
    """As if the process ended here."""


class MortalDisk(LocalDisk):
    """Ends the process at the n-th change."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Killed

    def make_directory(self, name: str, parent: int, mode: int) -> None:
        self._step()
        super().make_directory(name, parent, mode)

    def chown(self, fd: int, uid: int, gid: int) -> None:
        self._step()
        super().chown(fd, uid, gid)

    def fsync(self, fd: int) -> None:
        self._step()
        super().fsync(fd)


@only_root
@pytest.mark.parametrize("steps", range(6))
def test_a_crash_leaves_no_home_of_roots(root: Path, steps: int) -> None:
    """There is a home of its owner's or none, and the next attempt makes it."""
    home = root / "example.com" / "ann"
    pid = os.fork()
    if pid == 0:
        try:
            make_home(str(home), ANN, HomeRules([str(root)]), MortalDisk(steps))
        except Killed:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert not home.exists() or home.stat().st_uid == ANN.uid
    make(root, "example.com/ann")
    assert owner_and_mode(home) == (ANN.uid, ANN.gid, 0o700)


# By a nursery's process


async def told(orders: socket.socket, home: str, uid: int = ANN.uid) -> bytes:
    """What the process says to whoever asked."""
    ours, its = socket.socketpair()
    order(orders, uid, ANN.gid, its, home=home)
    with ours:
        said = b""
        while more := await asyncio.to_thread(ours.recv, 65536):
            said += more
    return said


@only_root
async def test_the_nursery_makes_homes(root: Path) -> None:
    limits = Limits(HOST, 100, 1, 1, 30.0, homes=HomeRules([str(root)]))
    with nursery(limits) as (supplier, process):
        homes = [f"{root}/example.com/user{number}" for number in range(20)]
        answers = await asyncio.gather(*(told(supplier.orders, home) for home in homes))
        assert answers == [MADE] * len(homes)
        assert owner_and_mode(root / "example.com") == (0, 0, 0o755)
        for home in homes:
            assert owner_and_mode(Path(home)) == (ANN.uid, ANN.gid, 0o700)
        assert b"below none of mail.root" in await told(supplier.orders, "/etc/ann")
        assert b"below the minimum" in await told(supplier.orders, f"{root}/zero", 0)
        assert b"is none" in await told(supplier.orders, f"{root}/none", 2**32 - 1)
        assert process.poll() is None
    assert sorted(os.listdir(root)) == ["example.com"]
