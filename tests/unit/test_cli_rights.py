"""Commands of a user who may not see what they are about: it is not taken for empty."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.cli.status import ExitCode
from tests.support.control import control_directory
from tests.support.shell import Shell

SOMEBODY = 65534
"""A user who owns nothing here, where root runs the tests."""


ITSELF = 54321
"""A user whose server it is."""
for_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")


@pytest.fixture
def of_a_user(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The commands of root, on an instance of somebody else's, who made it and serves it."""
    monkeypatch.setenv("RESTANTE_MAIL__USER", "")
    for path in (hosted.directory, *hosted.directory.rglob("*")):
        os.chown(path, ITSELF, ITSELF, follow_symlinks=False)
    let_pass(hosted)
    return hosted


def let_pass(hosted: Shell) -> None:
    """Let others come as far as to the instance."""
    for parent in hosted.directory.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)


@for_root
def test_root_sees_what_a_users_server_does(of_a_user: Shell) -> None:
    assert f"server that runs as uid {ITSELF} cannot write there" in of_a_user("check").out
    (waits,) = of_a_user.json("explain", "iain@example.com")["waits"]
    assert waits["why"].endswith(f", the server runs as {ITSELF}")

    of_a_user.change(f"UPDATE mailbox SET uid = {ITSELF}, gid = {ITSELF}")
    assert (of_a_user.json("check")["problems"], of_a_user("check").code) == ([], 0)
    assert of_a_user.json("explain", "iain@example.com")["waits"] == []


@for_root
@pytest.mark.parametrize(("mode", "waits"), [(0o2770, 1), (0o777, 1), (0o755, 0)])
def test_a_directory_may_be_roots_that_its_servers_user_can_write_to(
    of_a_user: Shell, mode: int, waits: int
) -> None:
    """As where something is mounted; root's server refuses it, unless nobody else can."""
    os.chown(of_a_user.directory, 0, ITSELF)
    of_a_user.directory.chmod(mode)
    os.chown(of_a_user.directory / "restante.toml", 0, 0)
    told = of_a_user("check").out.count(f"a server that runs as uid {ITSELF} cannot write there")
    assert (told, len(of_a_user.json("explain", "iain@example.com")["waits"])) == (waits, waits)


@for_root
def test_accounts_that_root_adds_are_those_of_the_users_server(of_a_user: Shell) -> None:
    assert of_a_user.add_mailbox("ann@example.com").code == 0
    assert of_a_user.rows("SELECT uid, gid FROM mailbox WHERE username = 'ann@example.com'") == [
        (ITSELF, ITSELF)
    ]


@for_root
def test_their_group_is_the_users_own(of_a_user: Shell) -> None:
    """The directory's may be root's: who made it may have given it to the user alone."""
    user = pwd.getpwnam("nobody")
    for path in (of_a_user.directory, *of_a_user.directory.rglob("*")):
        os.chown(path, user.pw_uid, 0, follow_symlinks=False)
    of_a_user.change(f"UPDATE mailbox SET uid = {user.pw_uid}, gid = {user.pw_gid}")

    assert of_a_user.json("check")["problems"] == []
    assert of_a_user.add_mailbox("ann@example.com").code == 0
    assert of_a_user.rows("SELECT uid, gid FROM mailbox WHERE username = 'ann@example.com'") == [
        (user.pw_uid, user.pw_gid)
    ]


@for_root
def test_places_are_open_to_root_and_not_to_the_users_server(of_a_user: Shell) -> None:
    """As where root has restored them."""
    for name in ("queue", "mail"):
        os.chown(of_a_user.directory / name, 0, 0)
        (of_a_user.directory / name).chmod(0o700)
    closed = f"cannot be read and written by uid {ITSELF}"
    told = of_a_user("check").out.splitlines()
    assert [line for line in told if "cannot be read and written" in line] == [
        f"problem: {name}.root: {of_a_user.directory}/{name} {closed}" for name in ("mail", "queue")
    ]


@for_root
def test_a_key_is_open_to_root_and_not_to_the_users_server(of_a_user: Shell) -> None:
    """As where root has renewed it."""
    (key,) = (of_a_user.directory / "tls").glob("*.key")
    os.chown(key, 0, 0)
    closed = f"tls: {key} cannot be read: Permission denied (uid {ITSELF})"
    assert f"problem: {closed}" in of_a_user("check").out
    os.chown(key, ITSELF, ITSELF)
    assert closed not in of_a_user("check").out


@for_root
def test_a_link_to_a_key_of_roots_is_no_key_of_a_server_that_root_starts(
    hosted: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its user could have put it, the server follows it with that user's rights."""
    monkeypatch.setenv("RESTANTE_SERVER__USER", "nobody")
    (key,) = (hosted.directory / "tls").glob("*.key")
    secret = tmp_path / "secret.key"
    key.rename(secret)
    key.symlink_to(secret)
    let_pass(hosted)
    nobody = pwd.getpwnam("nobody").pw_uid
    closed = f"tls: {key} cannot be read: Permission denied (uid {nobody})"
    assert closed not in hosted("check").out
    os.chown(key.parent, nobody, -1)
    assert f"problem: {closed}" in hosted("check").out


@for_root
@pytest.mark.parametrize(("reader", "told"), [(0, 1), (ITSELF, 0)])
def test_the_shadow_file_is_closed_to_the_users_server(
    of_a_user: Shell, monkeypatch: pytest.MonkeyPatch, reader: int, told: int
) -> None:
    shadow = of_a_user.directory.parent / "shadow"
    shadow.touch(0o600)
    os.chown(shadow, reader, 0)
    monkeypatch.setattr("restante.cli.check.system_files.SHADOW", str(shadow))
    monkeypatch.setenv("RESTANTE_ROUTING__SYSTEM_FILES", "true")
    assert of_a_user("check").out.count("no user of the system can log in") == told


@for_root
def test_control_files_are_not_read_by_others_than_the_user(
    of_a_user: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's user that root's server would have has no part in it."""
    files = {"rcpthosts": "example.com\n", "percenthack": "example.com\n"}
    control = control_directory(of_a_user.directory.parent, files)
    monkeypatch.setenv("RESTANTE_CONTROL", str(control))
    os.chown(control / "rcpthosts", ITSELF, ITSELF)
    (control / "rcpthosts").chmod(0o600)
    told = of_a_user("check").out
    assert f"{control}/percenthack is not read" in told
    assert "SIGHUP" not in told


@for_root
def test_programs_of_a_users_server_are_its_own(of_a_user: Shell) -> None:
    of_a_user.change(f"UPDATE mailbox SET uid = {ITSELF}, gid = {ITSELF}")
    of_a_user.change(
        "INSERT INTO alias (username, alias, alias_username)"
        " VALUES ('iain@example.com', '', '|cat')"
    )
    (waits,) = of_a_user.json("explain", "iain@example.com")["waits"]
    assert waits["why"].startswith(f"its uid {ITSELF} is the server's own, ")


@for_root
def test_the_servers_user_sees_what_roots_server_does(hosted: Shell) -> None:
    hosted.change("UPDATE mailbox SET uid = 4711, gid = 4711")
    server = (hosted.directory / "drop").stat()
    (hosted.directory / "restante.toml").chmod(0o644)
    let_pass(hosted)
    os.setegid(server.st_gid)
    os.seteuid(server.st_uid)
    try:
        assert hosted.json("explain", "iain@example.com")["waits"] == []
        assert "cannot write there" not in hosted("check").out
    finally:
        os.seteuid(0)
        os.setegid(0)


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
