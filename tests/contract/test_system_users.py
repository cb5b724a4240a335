"""Users of the system as qmail-getpw(8) has them, and what is no answer at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from restante.directory import Account, BadFile, system
from restante.directory.passwd import MAX_NAME, PasswdEntry, passwd_entry
from restante.directory.shadow import ShadowEntry
from restante.directory.system import MAX_FAR, MAX_LOOKUPS, HostFiles, HostPasswords, mail_user
from restante.errors import CannotKnow
from restante.mounts import FarPlaces
from tests.support.deliveries import GROUP, OWNER


def entry(name: str, home: Path | str, uid: int = OWNER) -> PasswdEntry:
    return PasswdEntry(name, "x", uid, GROUP, str(home))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    os.chown(made, OWNER, GROUP)
    return made


def user(found: PasswdEntry, minimum: int = 1) -> Account | None:
    return mail_user(found.name, minimum, {found.name: found}.get)


def test_a_user(home: Path) -> None:
    assert user(entry("ann", home)) == Account("ann", OWNER, GROUP, str(home))


def test_who_has_no_mail(home: Path, tmp_path: Path) -> None:
    (home / "file").touch()
    os.chown(home / "file", OWNER, GROUP)
    for found in (
        entry("Ann", home),
        entry("root", home, uid=0),
        entry("huge", home, uid=2**32 - 1),
        entry("missing", tmp_path / "none"),
        entry("file", home / "file"),
        entry("below", home / "file" / "x"),
        entry("relative", "home"),
        entry("empty", ""),
        entry("others", home, uid=OWNER + 1),
    ):
        assert user(found) is None, found


def test_the_least_uid_is_a_setting(home: Path) -> None:
    assert user(entry("ann", home), minimum=OWNER + 1) is None
    assert user(entry("ann", home), minimum=OWNER) is not None


def test_the_alias_user_is_not_passed_over(home: Path, tmp_path: Path) -> None:
    """Everybody else's addresses are its own: without it, they would all be refused for good."""
    assert user(entry("alias", home)) is not None
    for found, why in (
        (entry("alias", home, uid=0), "uid 0 is below the minimum 1"),
        (entry("alias", tmp_path / "none"), "is missing"),
        (entry("alias", home, uid=OWNER + 1), f"belongs to uid {OWNER}"),
    ):
        with pytest.raises(BadFile, match=f"user alias cannot have mail: .*{why}"):
            user(found)


def test_a_home_that_cannot_be_seen_is_no_answer(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(CannotKnow, match="cannot see"):
        user(entry("ann", loop))


def test_the_passwd_file_is_asked_through_the_name_service() -> None:
    root = passwd_entry("root")
    assert root is not None
    assert (root.name, root.uid, root.gid) == ("root", 0, 0)
    assert root.home.startswith("/")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no-such-user-here",
        "x" * MAX_NAME,
        "x" * 5000,
        "a:b",
        "a\nb",
        "a\0b",
        "a/b",
        "é",
        "\udcff",
    ],
)
def test_nobody_has_such_a_name(name: str) -> None:
    assert passwd_entry(name) is None


_WITHOUT_DESCRIPTORS = """
import resource
from restante.directory.passwd import passwd_entry
from restante.errors import CannotKnow
passwd_entry("mail")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
for name in ("mail", "no-such-user-here"):
    try:
        print(passwd_entry(name))
    except CannotKnow as error:
        print("cannot know:", error)
"""


def test_want_of_descriptors_is_no_answer() -> None:
    """The name service says "no such user" then, and so does Python's ``pwd``."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_DESCRIPTORS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"cannot know: passwd: {name}: Too many open files"
        for name in ("mail", "no-such-user-here")
    ]


async def test_a_name_service_that_hangs_is_no_answer() -> None:
    """And when all places are taken, whoever waits for one is told in time as well."""
    release = threading.Event()

    def hang(_: str) -> None:
        release.wait()

    files = HostFiles(1, 1, hang, patience=0.05)
    asked = [files.user("ann") for _ in range(MAX_LOOKUPS + 1)]
    try:
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(answer) for answer in answers} == {"passwd: ann: no answer within 0.05 seconds"}
        assert all(isinstance(answer, CannotKnow) for answer in answers)
    finally:
        release.set()
    # Threads that have ended give their places back.
    async with asyncio.timeout(30):
        while True:
            try:
                assert await files.user("ann") is None
                break
            except CannotKnow:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("alone", [MAX_FAR, 1])
async def test_a_home_that_hangs_holds_up_nobody_on_another_disk(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, alone: int
) -> None:
    """Nor do more file systems than have threads of their own."""
    release, seen = threading.Event(), os.stat

    def stat(path: Any, **named: Any) -> os.stat_result:
        if str(path).startswith("/far/"):
            release.wait()
        return seen(path, **named)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(system, "MAX_FAR", alone)
    monkeypatch.setattr(system, "PATIENCE", 1.0)
    (table := tmp_path / "mounts").write_text(
        "/dev/sda1 / ext4 rw 0 0\n" + "".join(f"server:/ /far/{n} nfs4 rw 0 0\n" for n in range(2))
    )
    homes = {"near": str(home), "ann": "/far/0/ann", "eve": "/far/1/eve"}
    entries = {name: entry(name, place) for name, place in homes.items()}
    places = FarPlaces(str(table))
    files = HostFiles(1, 1, entries.get, patience=1.0, places=places)
    open_entry = ShadowEntry("*", -1, -1, -1, -1)
    passwords = HostPasswords(1, entries.get, lambda _: open_entry, places=places)
    try:
        asked = [
            look(name)
            for look in (files.user, passwords.credentials)
            for name in ("ann", "eve")
            for _ in range(MAX_LOOKUPS + 1)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {CannotKnow}
        near = Account("near", OWNER, GROUP, str(home))
        assert await files.user("near") == near
        credentials = await passwords.credentials("near")
        assert credentials is not None
        assert credentials.account == near
    finally:
        release.set()


async def test_a_bug_in_a_look_up_is_heard_of() -> None:
    def broken(_: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await HostFiles(1, 1, broken).user("ann")
