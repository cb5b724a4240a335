"""What ``check`` says of directories that root made and others are to work in.

With real uids, so for root alone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance
from tests.support.owner import only_root
from tests.support.serving import IAIN, deliver

SOMEBODY = 54321
"""A uid of nobody here: such as mail.user was, before it was another one."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "instance"


def mail_user(directory: Path) -> str:
    """As ``init`` found one on this machine."""
    return str(tomllib.loads((directory / "restante.toml").read_text())["mail"]["user"])


@only_root
def test_homes_are_not_made_in_somebody_elses_directory(directory: Path) -> None:
    """The command that is proposed is the one that helps."""
    with new_instance(directory) as instance:
        instance.add_mailbox(IAIN)
        (directory / "mail" / "example.com").mkdir()
        for place in ("mail", "mail/example.com"):
            os.chown(directory / place, SOMEBODY, SOMEBODY)
        told = instance.run("check", check=False)
        assert told.returncode == 1
        (line,) = [line for line in told.stdout.splitlines() if "problem: mail.root" in line]
        owner = mail_user(directory)
        assert f"{directory}/mail is neither root's alone nor {owner}'s (mail.user)" in line
        command = line.partition("; run: ")[2]
        subprocess.run(shlex.split(command), check=True)
        assert instance.run("check").returncode == 0
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 1


@only_root
def test_a_maildir_of_somebody_else_as_a_backup_without_owners_leaves_it(
    directory: Path,
) -> None:
    with new_instance(directory) as instance:
        instance.add_mailbox(IAIN)
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        instance.stop()
        (maildir,) = directory.glob("mail/*/*/Maildir")
        home, right = maildir.parent, maildir.stat()
        for place in (home, *home.rglob("*")):
            os.chown(place, 0, 0)
        check_who_owns(instance, home, maildir)
        os.chown(home, right.st_uid, right.st_gid)
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 2


@only_root
@pytest.mark.parametrize("part", ["tmp", "new", "cur", "restante.lock"])
def test_a_part_of_a_maildir_that_is_somebody_elses(directory: Path, part: str) -> None:
    """As a chown of the Maildir alone leaves it, once a backup was unpacked by root."""
    with new_instance(directory) as instance:
        instance.add_mailbox(IAIN)
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert instance.messages(IAIN)
        instance.stop()
        (maildir,) = directory.glob("mail/*/*/Maildir")
        os.chown(maildir / part, 0, 0)
        check_who_owns(instance, maildir.parent, maildir / part)


def check_who_owns(instance: Instance, home: Path, place: Path) -> None:
    """It is root's; the command that is proposed is the one that helps."""
    told = instance.run("check", check=False)
    assert told.returncode == 1
    (line,) = [line for line in told.stdout.splitlines() if f"mailbox {IAIN}" in line]
    assert f": {place} belongs to uid 0, the account's uid is " in line
    command = line.partition(", run: ")[2]
    assert command.endswith(f" {home}/Maildir")
    subprocess.run(shlex.split(command), check=True)
    assert instance.run("check").returncode == 0


@only_root
@pytest.mark.parametrize("place", [".", "mail"])
def test_a_way_that_is_closed_to_the_owner_of_mail(directory: Path, place: str) -> None:
    with new_instance(directory) as instance:
        os.chown(directory / "mail", 0, 0)
        (directory / place).chmod(0o700)
        told = instance.run("check", check=False)
        assert told.returncode == 1
        closed = (directory / place).resolve()
        assert (
            f"{mail_user(directory)} (mail.user), to whom new accounts belong, cannot pass "
            f"{closed}; run: chmod o+x {closed}\n"
        ) in told.stdout


@only_root
def test_roots_own_directory_that_others_may_write_to(directory: Path) -> None:
    with new_instance(directory) as instance:
        os.chown(directory / "mail", 0, 0)
        assert instance.run("check").returncode == 0
        (directory / "mail").chmod(0o777)
        told = instance.run("check", check=False)
        assert told.returncode == 1
        command = f"run: chown --no-dereference {mail_user(directory)}: {directory}/mail"
        assert command in told.stdout


@only_root
def test_a_domain_that_is_closed_to_the_owner_of_a_home(directory: Path) -> None:
    """The command that is proposed is the one that helps."""
    with new_instance(directory) as instance:
        instance.add_mailbox(IAIN)
        domain = directory / "mail" / "example.com"
        domain.mkdir(mode=0o700)
        told = instance.run("check", check=False)
        assert told.returncode == 1
        (line,) = [line for line in told.stdout.splitlines() if f"mailbox {IAIN}" in line]
        assert f" cannot pass {domain}; its mail waits; run: " in line
        subprocess.run(shlex.split(line.partition("; run: ")[2]), check=True)
        assert instance.run("check").returncode == 0
