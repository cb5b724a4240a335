"""What ``check`` says of the mail of this host's own programs."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from restante.cli.check import programs
from tests.support.shell import Shell, advice


@pytest.fixture
def own(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The host's own instance, by way of a link."""
    link = hosted.directory.parent / "etc-restante"
    link.symlink_to(hosted.directory)
    monkeypatch.setattr(programs, "DEFAULT_INSTANCE", str(link))
    os.chmod(hosted.directory, 0o711)
    return hosted


def advised(shell: Shell) -> list[str]:
    """What it says, certificates apart."""
    return [line for line in advice(shell.json("check")) if not line.startswith("tls:")]


def test_mail_to_root_that_leaves_the_host(own: Shell) -> None:
    (line,) = advised(own)
    assert line.startswith("what programs send to root goes to root@mx.example.com, which is for")


def test_mail_to_root_that_nobody_gets(own: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_SENDMAIL__DEFAULTHOST", "example.com")
    (line,) = advised(own)
    assert line.endswith("restante alias add root@example.com ADDRESS")
    assert own("alias", "add", "root@example.com", "iain@example.com").code == 0
    assert advised(own) == []


def close_to_programs(directory: Path) -> None:
    """But not to the users to whom mail and the queue belong."""
    if os.geteuid() == 0:
        for each in (directory, directory / "queue"):
            os.chown(each, -1, pwd.getpwnam("nobody").pw_gid)
    directory.chmod(0o710)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (close_to_programs, "may not enter"),
        (lambda directory: (directory / "drop/bad/m").touch(), "1 file in "),
    ],
)
def test_rights_and_leavings(
    own: Shell, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], says: str
) -> None:
    monkeypatch.setenv("RESTANTE_SENDMAIL__DEFAULTHOST", "example.com")
    own("alias", "add", "root@example.com", "iain@example.com")
    change(own.directory)
    (line,) = advised(own)
    assert says in line


def test_other_instances_are_no_concern_of_the_hosts_programs(hosted: Shell) -> None:
    assert advised(hosted) == []
