"""What only a Maildir can meet: other programs, odd names, missing homes."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.directory import Account
from restante.rights import Ways, own_rights, owners_rights
from restante.store import (
    MaildropInUse,
    MaildropUnavailable,
    MessageGone,
    files,
    maildir,
    scan,
    unwaiting,
)
from restante.store.lock import LOCK
from restante.store.maildir import MaildirDrop, MaildirStore
from tests.support.maildrop_box import Box, read

SOMEBODY = 12345


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message has to be read from the disk."""

    def would_wait(path: bytes, limit: int) -> bytes:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(unwaiting, "read_known", would_wait)


# Names


async def test_order_is_arrival_then_name(box: Box) -> None:
    for name in ("cur/999.z.h:2,S", "new/1000.b.h", "cur/1000.a.h:2,", "new/odd"):
        box.put(name)
    assert [uid for uid, _ in await box.listing()] == ["odd", "999.z.h", "1000.a.h", "1000.b.h"]


async def test_names_that_are_no_uid_get_a_stable_one(box: Box) -> None:
    names = ["1." + "x" * 80, "2.with space", "3.ümlaut", "4.\udcff"]
    for name in names:
        (box.path / "new" / name).write_bytes(b"A: 1\n")
    before = await box.listing()
    for name in names:
        os.rename(box.path / "new" / name, f"{box.path}/cur/{name}:2,S")
    assert await box.listing() == before
    assert len({uid for uid, _ in before}) == len(names)
    assert all(len(uid) == 64 and uid.isalnum() for uid, _ in before)


async def test_uids_differ_even_where_names_do_not(box: Box) -> None:
    box.put("new/1.same", b"new\n")
    box.put("cur/1.same:2,S", b"cur\n")
    box.put("cur/1.same:2,RS", b"third\n")
    drop = await box.open()
    assert len(set(drop.messages.uids)) == 3
    assert {await read(drop, index) for index in range(3)} == {b"new\n", b"cur\n", b"third\n"}
    await drop.remove([0])
    drop.close()
    assert len(await box.listing()) == 2


async def test_flags_and_folders_do_not_change_the_order(box: Box) -> None:
    """Some names have flags though they are new, or none though they are not, or odd ones."""
    bases = ["1.a", "1.a-b", "1.a.b", "2.c", "2.c,d", "3.e"]
    for infos in itertools.permutations(["", ":", ":2,", ":2,S", ":2,a:b", ":x"]):
        for index, (base, info) in enumerate(zip(bases, infos, strict=True)):
            box.put(f"{('new', 'cur')[index % 2]}/{base}{info}", b"%d\n" % index)
        drop = await box.open()
        assert [uid.decode() for uid in drop.messages.uids] == bases
        assert [await read(drop, index) for index in range(6)] == [b"%d\n" % n for n in range(6)]
        await drop.remove(range(6))
        drop.close()


async def test_a_message_seen_in_both_directories_is_one(box: Box) -> None:
    os.link(box.put("new/1.moving"), box.path / "cur" / "1.moving:2,")
    assert len(await box.listing()) == 1


async def test_only_regular_files_are_messages(box: Box, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret\n")
    (box.path / "new" / "1.link").symlink_to(tmp_path / "elsewhere")
    (box.path / "new" / "2.directory").mkdir()
    os.mkfifo(box.path / "new" / "3.fifo")
    box.put("new/.hidden")
    box.put("new/4.mail")
    assert [uid for uid, _ in await box.listing()] == ["4.mail"]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_a_message_replaced_by_something_else_is_gone(box: Box, kind: str) -> None:
    path = box.put("new/1.mail,W=14")
    drop = await box.open()
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(MessageGone):
        await read(drop, 0)
    drop.close()


# Other programs


@pytest.mark.parametrize("moved", ["cur/1.a:2,S", "cur/1.a:2,", "cur/1.a"])
async def test_a_message_that_was_moved_is_read_and_deleted(box: Box, moved: str) -> None:
    path = box.put("new/1.a")
    other = box.put("new/2.b")
    drop = await box.open()
    path.rename(box.path / moved)
    other.rename(box.path / "cur" / "2.b:2,RS")
    assert await read(drop, 0) == b"A: 1\n\nHello\n"
    await drop.remove([0, 1])
    drop.close()
    assert os.listdir(box.path / "cur") == []


async def test_a_message_that_gets_a_second_name_is_not_gone(box: Box) -> None:
    """Programs that move messages by link(2) and unlink(2) have them twice in between."""
    moving = box.put("new/1.a", b"one\n")
    other = box.put("new/2.b", b"two\n")
    drop = await box.open()
    os.link(moving, box.path / "cur" / "1.a:2,S")
    other.rename(box.path / "cur" / "2.b:2,S")
    assert await read(drop, 1) == b"two\n"
    assert await read(drop, 0) == b"one\n"
    drop.close()


async def test_many_moved_messages_cost_few_scans(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        box.put(f"new/{number}.a,S=12,W=15")
    drop = await box.open()
    for number in range(0, 50, 2):
        os.rename(f"{box.path}/new/{number}.a,S=12,W=15", f"{box.path}/cur/{number}.a,S=12,W=15:2,")
    for number in range(1, 50, 2):
        os.unlink(f"{box.path}/new/{number}.a,S=12,W=15")
    scans = 0
    original = scan.look

    def counting(path: bytes) -> scan.Found:
        nonlocal scans
        scans += 1
        return original(path)

    monkeypatch.setattr(scan, "look", counting)
    for index in range(0, 50, 2):
        assert await read(drop, index) == b"A: 1\n\nHello\n"
    for index in range(1, 50, 2):
        with pytest.raises(MessageGone):
            await read(drop, index)
    assert scans == 2
    drop.close()


@pytest.mark.parametrize("older", [0, 1])
async def test_the_older_of_two_namesakes_has_the_uid(box: Box, older: int) -> None:
    """Another that comes later must not pass for what the client knows."""
    contents = [b"one\n", b"other\n"]
    for number, content in enumerate(contents):
        path = box.put(f"cur/1.same:2,{'FS'[number]}", content)
        moment = 1_700_000_000 + (number != older)
        os.utime(path, (moment, moment))
    drop = await box.open()
    assert drop.messages.uids[0] == b"1.same"
    assert len(set(drop.messages.uids)) == 2
    assert await read(drop, 0) == contents[older]
    assert await read(drop, 1) == contents[not older]
    drop.close()


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["new/1.same", "cur/1.same:2,"], "cur/1.same:2,"),
        (["new/1.same:2,S", "new/1.same"], "new/1.same:2,S"),
        (["cur/1.same:2,S", "cur/1.same:2,F"], "cur/1.same:2,S"),
    ],
)
async def test_which_of_two_names_of_a_file_counts(box: Box, names: list[str], counts: str) -> None:
    os.link(box.put(names[0]), box.path / names[1])
    listing = scan.listing(os.fsencode(box.path))
    assert list(listing.messages.uids) == [b"1.same"]
    assert list(listing.places) == [counts.encode()]


async def test_a_namesake_is_not_deleted_in_the_place_of_what_vanished(box: Box) -> None:
    first = box.put("cur/1.same:2,", b"one\n")
    box.put("cur/1.same:2,S", b"two\n")
    drop = await box.open()
    vanished = [await read(drop, index) for index in range(2)].index(b"one\n")
    first.unlink()
    await drop.remove([vanished])
    drop.close()
    assert os.listdir(box.path / "cur") == ["1.same:2,S"]


# Homes


async def test_a_maildir_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    account = Account("iain", os.getuid(), os.getgid(), str(tmp_path / "home"))
    drop = await MaildirStore().open(account)
    assert len(drop.messages) == 0
    drop.close()
    assert os.listdir(tmp_path) == []


async def test_a_maildir_may_be_a_link(box: Box, tmp_path: Path) -> None:
    box.put("new/1.a")
    home = tmp_path / "home"
    home.mkdir()
    (home / "Maildir").symlink_to(box.path)
    drop = await MaildirStore().open(Account("ann", 1, 1, str(home)))
    assert len(drop.messages) == 1
    with pytest.raises(MaildropInUse):
        await box.open()
    drop.close()


@pytest.mark.parametrize("home", ["", "example.com/ann"])
async def test_a_link_to_nowhere_is_no_empty_maildrop(tmp_path: Path, home: str) -> None:
    link = tmp_path / ("mail" if home else "Maildir")
    link.symlink_to("/nowhere/at/all")
    place = link / home if home else tmp_path
    with pytest.raises(MaildropUnavailable, match=f"cannot follow the link {link}"):
        await MaildirStore().open(Account("ann", 1, 1, str(place)))


async def test_a_link_to_a_domain_without_this_home_is_an_empty_maildrop(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "mail").symlink_to("target")
    for home in (str(tmp_path / "mail" / "ann"), "no path"):
        drop = await MaildirStore().open(Account("ann", 1, 1, home))
        assert len(drop.messages) == 0
        drop.close()


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    """With nothing mounted on it, as docs/cluster.md has it."""
    place = tmp_path / "mail"
    place.mkdir()
    os.chown(place, SOMEBODY, SOMEBODY)
    if subprocess.run(["chattr", "+i", place], check=False).returncode != 0:
        pytest.skip("nothing can be made immutable on this file system")
    yield place
    subprocess.run(["chattr", "-i", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes anything immutable")
@pytest.mark.parametrize("ways", [own_rights, owners_rights(1, 1)], ids=["own", "owner's"])
@pytest.mark.parametrize("home", ["", "example.com/ann"])
async def test_what_is_not_mounted_is_no_empty_maildrop(
    mount_point: Path, ways: Ways, home: str
) -> None:
    account = Account("ann", SOMEBODY, SOMEBODY, str(mount_point / home))
    with pytest.raises(MaildropUnavailable, match="is immutable, as a directory that nothing is"):
        await MaildirStore(ways).open(account)


async def test_a_maildir_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "Maildir").write_bytes(b"")
    with pytest.raises(MaildropUnavailable, match="Not a directory"):
        await MaildirStore().open(Account("ann", 1, 1, str(tmp_path)))


async def test_a_lock_that_is_a_link_is_not_followed(box: Box, tmp_path: Path) -> None:
    (box.path / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(MaildropUnavailable, match="cannot lock"):
        await box.open()
    assert not (tmp_path / "victim").exists()


@pytest.mark.usefixtures("nothing_in_memory")
async def test_a_message_that_cannot_be_read_is_unavailable(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put("new/1.a,W=15")
    drop = await box.open()

    def denied(path: bytes) -> files.Reader:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "Reader", denied)
    with pytest.raises(MaildropUnavailable, match="Permission denied"):
        await read(drop, 0)
    drop.close()


# Reading ahead


async def test_a_disk_that_fails_in_the_midst_of_a_message_does_not_end_it(
    box: Box, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives what could be read first, and the error after it."""
    box.put("new/1.a,S=20000,W=20000", b"x" * 20000)
    drop = await box.open()
    original, reads = os.read, iter((4096, None))

    def read_until_the_bad_sector(descriptor: int, count: int) -> bytes:
        room = next(reads)
        if room is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(descriptor, min(room, count))

    monkeypatch.setattr(os, "read", read_until_the_bad_sector)
    with pytest.raises(MaildropUnavailable):
        await read(drop, 0)
    drop.close()


async def test_what_is_in_memory_is_read_without_a_thread(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [b"", b"x\n" * 1000, b"y" * maildir.READ_AHEAD_OCTETS]
    for number, content in enumerate(contents):
        box.put(f"new/{number}.a,W=1", content)
    box.put("new/3.a,W=1", b"z" * (maildir.READ_AHEAD_OCTETS + 1))
    drop = await box.open()
    monkeypatch.setattr(MaildirDrop, "_fetch", None)
    monkeypatch.setattr(os, "RWF_NOWAIT", 0)  # which not every file system knows
    assert [drop.at_hand(index) for index in (2, 0, 1, 3)] == [
        contents[2],
        contents[0],
        contents[1],
        None,
    ]
    drop.close()


@pytest.mark.usefixtures("nothing_in_memory")
async def test_messages_read_in_order_are_read_ahead(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [b"message %d\n" % number for number in range(100)]
    contents[40] = b"x" * (2 * files.BLOCK)
    contents[41] = b"y" * maildir.READ_AHEAD_OCTETS
    for number, content in enumerate(contents):
        box.put(f"new/{number}.a", content)
    drop = await box.open()
    fetches = 0
    original = MaildirDrop._fetch

    def counting(drop: MaildirDrop, index: int, further: int) -> object:
        nonlocal fetches
        fetches += 1
        return original(drop, index, further)

    monkeypatch.setattr(MaildirDrop, "_fetch", counting)
    assert [await read(drop, index) for index in range(100)] == contents
    assert fetches < 10
    drop.close()
