"""Removing mailboxes: whose mail goes with them, and whose never does."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from restante.address import Address
from restante.cli.homes import delete_home, path_resolver
from restante.cli.status import ExitCode
from restante.directory.admin import Administration
from restante.errors import CannotKnow, OperatorError
from tests.support.shell import Shell, put_message

LONG = "\u65e5" * 42
"""A local part that has 378 octets where each is written as ``%E6``."""


def test_removing_a_mailbox_does_not_lose_mail(hosted: Shell) -> None:
    home = put_message(hosted, "iain@example.com", "dear")

    refused = hosted("mailbox", "remove", "iain@example.com")

    assert refused.code == ExitCode.REFUSED
    assert "holds 1 message;" in refused.err
    assert home.exists()
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(1,)]


def test_removing_a_mailbox_with_its_mail(hosted: Shell) -> None:
    home = put_message(hosted, "iain@example.com", "dear")

    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").code == 0
    assert not home.exists()
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(0,)]
    assert hosted.rows("SELECT count(*) FROM virtual") == [(0,)]


def test_a_long_name_beyond_ascii_has_a_home(hosted: Shell) -> None:
    names = [LONG, LONG[:-1] + "\u672c"]
    for name in names:
        assert hosted.add_mailbox(f"{name}@example.com").code == 0
    homes = {put_message(hosted, f"{name}@example.com", "dear") for name in names}
    assert len(homes) == 2
    assert hosted.json("mailbox", "show", f"{LONG}@example.com")["messages"] == 1
    assert hosted("mailbox", "remove", f"{LONG}@example.com", "--delete-mail").code == 0
    assert sum(home.exists() for home in homes) == 1


@pytest.mark.parametrize("more", [[], ["--delete-mail"]])
def test_a_mailbox_whose_home_no_file_system_takes_can_go(hosted: Shell, more: list[str]) -> None:
    home = hosted.directory / "mail" / "example.com" / ("%E6" * 90)
    home.parent.mkdir(parents=True)
    hosted.change(f"UPDATE mailbox SET home = '{home}'")
    assert hosted.json("mailbox", "show", "iain@example.com")["messages"] == 0
    assert hosted("mailbox", "remove", "iain@example.com", *more).code == 0
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(0,)]


def test_a_home_that_stays_is_told_of(hosted: Shell) -> None:
    """Whoever gets the address gets what is in it."""
    home = put_message(hosted, "iain@example.com", "dear")
    (home / "Maildir" / "new" / "0.host").unlink()
    (home / ".qmail").write_text("&spy@far.example\n")
    removed = hosted("mailbox", "remove", "iain@example.com")
    assert (removed.code, removed.err) == (
        0,
        f"restante: the home {home} stays, for whoever is given it next\n",
    )
    add = ("mailbox", "add", "iain@example.com", "--password-stdin")
    added = hosted(*add, stdin="secret\n")
    assert (added.code, added.err) == (
        0,
        f"restante: the home {home} was there already: what is in it is the new mailbox's\n",
    )
    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").err == ""
    assert hosted(*add, stdin="secret\n").err == ""
    assert hosted("mailbox", "remove", "iain@example.com").err == ""


def test_mail_outside_the_root_is_never_deleted(hosted: Shell, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "Maildir" / "new").mkdir(parents=True)
    (hosted.directory / "mail" / "link").symlink_to(outside)
    connection = sqlite3.connect(hosted.directory / "restante.db")
    with connection:
        connection.execute(
            "UPDATE mailbox SET home = ?", (str(hosted.directory / "mail" / "link"),)
        )
    connection.close()

    done = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert done.code == ExitCode.REFUSED
    assert "nothing was removed" in done.err
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(1,)]
    assert (outside / "Maildir" / "new").exists()


@pytest.mark.parametrize("whose", ["mail/example.com/iain", "mail/example.com", "mail/link"])
def test_mail_of_others_is_never_deleted(hosted: Shell, whose: str) -> None:
    """Rows may share a home, and a home may hold those of others."""
    home = put_message(hosted, "iain@example.com", "dear")
    (hosted.directory / "mail" / "link").symlink_to(home)
    hosted.change(
        "INSERT INTO mailbox SELECT 'second', uid, gid, "
        f"'{hosted.directory / whose}', password, password_type FROM mailbox"
    )
    rows = hosted.rows("SELECT * FROM mailbox")

    refused = hosted("mailbox", "remove", "second", "--delete-mail")

    assert refused.code == ExitCode.REFUSED
    assert refused.err.startswith("restante: nothing was removed: ")
    assert "holds the mail of iain@example.com too; give one of the two another" in refused.err
    assert refused.err.count("\n") == 1
    assert (home / "Maildir" / "new" / "0.host").read_text() == "dear"
    assert hosted.rows("SELECT * FROM mailbox") == rows


def test_a_home_within_another_s_is_deleted_alone(hosted: Shell) -> None:
    home = put_message(hosted, "iain@example.com", "dear")
    hosted.change(
        "INSERT INTO mailbox SELECT 'second', uid, gid, "
        f"'{home.parent}', password, password_type FROM mailbox"
    )
    hosted.change(
        "INSERT INTO mailbox VALUES ('3', 1, 1, '', '', ''), ('4', 1, 1, '/a' || char(0), '', '')"
    )

    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").code == 0
    assert home.parent.exists()
    assert not home.exists()


def test_mail_that_cannot_be_deleted_keeps_its_mailbox(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that can be known before."""
    home = put_message(hosted, "iain@example.com", "dear")
    monkeypatch.setattr("os.access", lambda path, _: path != str(home.parent))

    refused = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert refused.code == ExitCode.REFUSED
    assert "nothing was removed" in refused.err
    assert f"{home.parent} is not writable" in refused.err
    assert home.exists()
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(1,)]
    assert hosted.rows("SELECT count(*) FROM virtual") == [(1,)]


def test_mail_that_turns_out_to_be_undeletable_is_told_of(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put_message(hosted, "iain@example.com", "dear")

    def fail(name: str, *_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", name)

    monkeypatch.setattr("os.rename", fail)

    failed = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert failed.code == ExitCode.REFUSED
    assert f"the account is gone, but mail of it is still in {home}, " in failed.err
    assert (home / "Maildir" / "new" / "0.host").read_text() == "dear"
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(0,)]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_mail_that_is_left_is_nobody_else_s(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Who gets the same address does not get what could not be deleted.

    Nor what was left because something was deleted by somebody else at the same moment.
    """
    home = put_message(hosted, "iain@example.com", "dear")

    def fail(name: str, **_: object) -> None:
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr(shutil, "rmtree", fail)

    failed = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert failed.code == ExitCode.REFUSED
    (left,) = home.parent.iterdir()
    assert f"is still in {left}, " in failed.err
    assert hosted.add_mailbox("iain@example.com").code == 0
    assert hosted.json("mailbox", "show", "iain@example.com")["messages"] == 0


@pytest.mark.parametrize("is_all", [True, False])
def test_what_a_session_has_open_on_nfs_is_no_mail(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, is_all: bool
) -> None:
    """Its client gives another name to what is removed while it is open; the rest goes."""
    home = put_message(hosted, "iain@example.com", "dear")
    (home / "Maildir" / "restante.lock").touch()
    (home / "notes").mkdir()
    (home / "notes" / "one").touch()
    unlink = os.unlink

    def unlink_on_nfs(name: str, *, dir_fd: int) -> None:
        if name == "restante.lock":
            os.rename(name, ".nfs0000000000a1", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        elif name == "one" and not is_all:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        else:
            unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_on_nfs)

    failed = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert failed.code == ExitCode.REFUSED
    (left,) = home.parent.iterdir()
    if is_all:
        assert "and its mail are gone, but a session has files open in " in failed.err
        assert f"{left}: delete" in failed.err
    else:
        assert f"mail of it is still in {left}, " in failed.err
    assert [path.name for path in left.rglob("*") if path.is_file() and path.name != "one"] == [
        ".nfs0000000000a1"
    ]


def test_what_cannot_be_listed_may_hold_mail(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put_message(hosted, "iain@example.com", "dear")
    (home / "Maildir" / ".nfs0000000000a1").touch()
    unlink, opened = os.unlink, os.open

    def unlink_on_nfs(name: str, *, dir_fd: int) -> None:
        if not name.startswith(".nfs"):
            unlink(name, dir_fd=dir_fd)

    def open_on_nfs(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "new":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_on_nfs)
    monkeypatch.setattr(os, "open", open_on_nfs)

    failed = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert failed.code == ExitCode.REFUSED
    (left,) = home.parent.iterdir()
    assert f"mail of it is still in {left}, " in failed.err
    assert "Stale file handle" in failed.err


def test_a_session_on_nfs_that_ends_meanwhile(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had open is gone then, but not what that lay in."""
    home = put_message(hosted, "iain@example.com", "dear")
    (home / "Maildir" / "restante.lock").touch()
    unlink, walk = os.unlink, os.fwalk

    def unlink_on_nfs(name: str, *, dir_fd: int) -> None:
        if name == "restante.lock":
            os.rename(name, ".nfs0000000000a1", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(name, dir_fd=dir_fd)

    def walk_after_it(top: str, **options: Any) -> Iterator[Any]:
        for path in home.parent.rglob(".nfs*"):
            unlink(path)
        return walk(top, **options)

    monkeypatch.setattr(os, "unlink", unlink_on_nfs)
    monkeypatch.setattr(os, "fwalk", walk_after_it)

    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").code == 0
    assert list(home.parent.iterdir()) == []


def test_mail_is_set_aside_for_good_before_it_is_deleted(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut would leave a part of it to whoever is given the address."""
    home = put_message(hosted, "iain@example.com", "dear")
    seen: list[tuple[str, list[str]]] = []

    def note(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        seen.append((path, [name.partition("-")[0] for name in os.listdir(path)]))

    monkeypatch.setattr(os, "fsync", note)

    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").code == 0
    assert seen == [(str(home.parent), [f"{home.name}.REMOVED"])]
    assert not list(home.parent.iterdir())


def test_a_link_that_comes_meanwhile_leads_the_removal_nowhere(tmp_path: Path) -> None:
    """The directories above homes are mail.user's, who can put anything in their places."""
    real, elsewhere = tmp_path / "mail" / "example.com" / "ann", tmp_path / "home"
    real.mkdir(parents=True)
    (elsewhere / "ann").mkdir(parents=True)
    real.parent.rename(tmp_path / "mail" / "moved")
    real.parent.symlink_to(elsewhere)
    with pytest.raises(OperatorError, match=f"mail of it is still in {real}, .*Not a directory"):
        delete_home(str(real))
    assert (elsewhere / "ann").exists()


def test_a_database_that_goes_away_hides_no_mail(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail comes in while the account cannot be removed: it lies with what was there before."""
    home = put_message(hosted, "iain@example.com", "old")

    def deliver() -> None:
        new = home / "Maildir" / "new"
        new.mkdir(parents=True, exist_ok=True)
        (new / "1.host").write_text("new")

    async def fail(_: Administration, address: Address) -> None:
        deliver()
        raise CannotKnow("the database is locked")

    monkeypatch.setattr(Administration, "remove_mailbox", fail)

    failed = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert failed.code == ExitCode.TEMPORARY
    assert hosted.json("mailbox", "show", "iain@example.com")["messages"] == 2


def test_removing_a_mailbox_names_aliases_that_point_to_it(hosted: Shell) -> None:
    hosted("alias", "add", "sales@example.com", "iain@example.com")

    done = hosted("mailbox", "remove", "iain@example.com")

    assert done.code == 0
    assert "the alias sales@example.com still points to iain@example.com" in done.err


def test_paths_are_resolved_as_the_system_does(tmp_path: Path) -> None:
    """However they are spelled, and whatever links there are, or are not."""
    (tmp_path / "mail" / "iain").mkdir(parents=True)
    for link, target in {
        "link": "mail",
        "ann": "mail/iain",
        "mail/up": "..",
        "mail/lost": "nowhere",
        "mail/round": "round",
    }.items():
        (tmp_path / link).symlink_to(target)
    names = ["mail", "link", "ann", "up", "lost", "round", "none", "iain", "", ".", ".."]
    paths = [
        prefix + end
        for first, second, third in itertools.product(names, repeat=3)
        for prefix in (f"{tmp_path}/{first}/{second}/{third}", f"/{tmp_path}//{second}/{third}")
        for end in ("", "/")
    ]

    resolved = path_resolver()

    assert [resolved(path) for path in paths] == [os.path.realpath(path) for path in paths]


def test_another_account_costs_one_look_at_the_file_system(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"{hosted.directory}/mail/example.com/{number}" for number in range(500)]
    hosted.change(
        "INSERT INTO mailbox (username, uid, gid, home) VALUES "
        + ", ".join(f"('{home}', 1, 1, '{home}')" for home in others)
    )
    looked: list[object] = []
    lstat = os.lstat

    def counting(path: str) -> os.stat_result:
        looked.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counting)

    assert hosted("mailbox", "remove", "iain@example.com", "--delete-mail").code == 0

    assert len(looked) < 600


def test_remarks_that_nobody_takes_leave_no_mail_behind(hosted: Shell) -> None:
    home = put_message(hosted, "iain@example.com", "dear")
    assert hosted("alias", "add", "boss@example.com", "iain@example.com").code == 0
    command = [sys.executable, "-m", "restante", "--dir", str(hosted.directory)]

    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, "mailbox", "remove", "iain@example.com", "--delete-mail"],
            stderr=full,
            check=False,
        )

    assert done.returncode == ExitCode.OK
    assert not home.exists()


def test_ctrl_c_tells_where_the_rest_of_the_mail_is(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put_message(hosted, "iain@example.com", "dear")

    def interrupted(_path: str, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    done = hosted("mailbox", "remove", "iain@example.com", "--delete-mail")

    assert done.code == ExitCode.REFUSED
    (rest,) = home.parent.glob("*.REMOVED-*")
    assert f"still in {rest}, which you can delete by hand: interrupted" in done.err
