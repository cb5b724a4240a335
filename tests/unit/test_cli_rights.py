"""Commands of a user who may not see what they are about: it is not taken for empty."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from restante.cli.status import ExitCode
from tests.support.shell import Shell

SOMEBODY = 65534
"""A user who owns nothing here, where root runs the tests."""


@pytest.fixture
def foreign(hosted: Shell) -> Iterator[Shell]:
    """The commands of somebody who may read restante.toml and neither database nor queue."""
    for path in (hosted.directory, hosted.directory / "restante.toml"):
        path.chmod(0o755)
    (hosted.directory / "queue").chmod(0o000)
    (hosted.directory / "restante.db").chmod(0o000)
    for parent in hosted.directory.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(SOMEBODY)
    yield hosted
    if is_root:
        os.seteuid(0)
    (hosted.directory / "queue").chmod(0o700)


@pytest.mark.parametrize(
    "command",
    [
        ["guesses", "list"],
        ["guesses", "clear", "--all"],
        ["guesses", "clear", "ann@example.com"],
        ["submission", "list"],
        ["submission", "reset", "ann@example.com"],
        ["queue", "list"],
        ["queue", "retry", "--all"],
    ],
)
def test_a_queue_directory_that_is_closed_is_not_taken_for_empty(
    foreign: Shell, command: list[str]
) -> None:
    refused = foreign(*command)

    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")
    last = refused.err.splitlines()[-1]
    assert last.startswith("restante: ")
    assert " cannot be read: Permission denied; " in last
    assert "Errno" not in last


def test_what_needs_no_queue_does_not_ask_for_it(foreign: Shell) -> None:
    explained = foreign("explain", "iain@example.com")

    assert (explained.code, explained.err) == (ExitCode.TEMPORARY, "")


def test_why_a_database_cannot_be_opened(foreign: Shell) -> None:
    refused = foreign("domain", "list")

    assert refused.code == ExitCode.TEMPORARY
    assert refused.err.endswith(f"unable to open database file: {os.strerror(errno.EACCES)}\n")
