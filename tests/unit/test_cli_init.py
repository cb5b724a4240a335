"""What ``restante init`` makes, refuses, and leaves of what was there before."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from restante.cli import creation
from restante.cli.creation import passable_mode
from restante.cli.serving import serve
from restante.cli.status import ExitCode
from restante.config.load import load
from restante.directory.admin import Administration
from restante.errors import CannotKnow
from tests.support.control import control_directory
from tests.support.shell import Shell


def test_init_keeps_its_files_from_others(hosted: Shell) -> None:
    for name in ("restante.toml", "tls/self-signed.key"):
        assert stat.S_IMODE((hosted.directory / name).stat().st_mode) == 0o600
    # Where root made it, the server's user reads it by its group.
    readers = 0o640 if os.geteuid() == 0 else 0o600
    assert stat.S_IMODE((hosted.directory / "restante.db").stat().st_mode) == readers
    assert not stat.S_IMODE(hosted.directory.stat().st_mode) & 0o066


def test_init_refuses_an_instance(hosted: Shell) -> None:
    before = (hosted.directory / "restante.toml").read_text()

    refused = hosted.bare("init", str(hosted.directory))

    assert refused.code == ExitCode.REFUSED
    assert "is an instance already" in refused.err
    assert (hosted.directory / "restante.toml").read_text() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "a b"), "'a b' is no domain"),
        (("--smtp", "2525"), "--smtp: '2525' is no address to listen on"),
        (("--database", "oracle://x"), "scheme"),
        (("--database", "sqlite:////proc/none/restante.db"), "/proc/none/restante.db"),
        (("--database", "mysql://me:hunter2@127.0.0.1:1/mail"), "127.0.0.1:1"),
    ],
)
def test_init_leaves_nothing_half_done(shell: Shell, options: tuple[str, ...], said: str) -> None:
    refused = shell.bare("init", str(shell.directory / "deep" / "er"), *options)

    assert refused.code in (ExitCode.REFUSED, ExitCode.TEMPORARY)
    assert said in refused.err
    assert refused.err.startswith("restante: ")
    assert refused.err.count("\n") == 1
    assert "hunter2" not in refused.err
    assert not shell.directory.exists()


def test_what_init_has_made_outlives_a_power_cut(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty restante.toml would be an instance that nobody made like that."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    directory = shell.directory / "deep" / "er"

    assert shell.bare("init", str(directory)).code == ExitCode.OK

    assert {
        str(shell.directory.parent),
        str(shell.directory),
        str(directory.parent),
        *(str(directory / name) for name in ("", "restante.toml.new", "tls")),
        *(str(directory / "tls" / name) for name in ("self-signed.pem.new", "self-signed.key.new")),
    } <= set(synced)
    assert synced[-1] == str(directory), "which has got its restante.toml"


@pytest.mark.parametrize("at", ["make_directory", "_make_drop", "_make_certificate", "_finish"])
@pytest.mark.parametrize("done", [False, True])
def test_an_init_that_was_killed_is_done_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, at: str, *, done: bool
) -> None:
    """Before one of its steps, or when that is done."""
    step = getattr(creation, at)

    def killed(*arguments: object) -> None:
        if done:
            step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(creation, at, killed)
            shell.bare("init", str(shell.directory))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    again = shell.bare("init", str(shell.directory))

    if at == "_finish" and done:
        assert "is an instance already" in again.err
    else:
        assert (again.code, again.err) == (0, "")
    assert shell.bare("--dir", str(shell.directory), "mailbox", "list").code == 0
    assert len(list(shell.directory.glob("tls/self-signed.*"))) == 2
    assert not list(shell.directory.rglob("*.new"))


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_whatever_the_umask_accounts_reach_their_homes(shell: Shell, umask: int) -> None:
    """Where root makes the instance, they have other uids; so does the server."""
    directory = shell.directory / "deep" / "er"
    former = os.umask(umask)
    try:
        made = shell.bare("init", str(directory))
    finally:
        os.umask(former)
    assert (made.code, made.err) == (0, "")
    for each in (directory.parent, directory, directory / "mail"):
        assert stat.S_IMODE(each.stat().st_mode) == passable_mode()


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_whatever_the_umask_the_server_makes_an_instance_that_it_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    directory = tmp_path / "deep" / "er"
    monkeypatch.setattr("restante.service.supervisor.serve", lambda *_: 0)
    former = os.umask(umask)
    try:
        assert serve(load(str(directory), {}, str(control))) == 0
    finally:
        os.umask(former)
    for each in (directory.parent, directory):
        assert stat.S_IMODE(each.stat().st_mode) == passable_mode()


def test_init_keeps_what_was_there(shell: Shell) -> None:
    shell.directory.mkdir()
    (shell.directory / "notes").write_text("mine")

    assert shell.bare("init", str(shell.directory), "--database", "oracle://x").code != 0
    assert [entry.name for entry in shell.directory.iterdir()] == ["notes"]


def files_below(directory: Path) -> dict[str, bytes]:
    """Their contents by name; an empty one for what is no regular file."""
    paths = sorted(directory.rglob("*"))
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in paths
    }


@pytest.mark.parametrize("name", ["tls/self-signed.key", "tls/self-signed.pem"])
def test_init_that_fails_keeps_what_a_server_has_used(shell: Shell, name: str) -> None:
    """A server with a control directory alone has mail in the drop directory, and no toml."""
    for mine in ("drop/incoming/m1", "drop/bad/m2", "drop/site", "restante.db-wal", name):
        path = shell.directory / mine
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    os.mkfifo(shell.directory / "drop" / "wake")
    (shell.directory / "drop" / "claimed").mkdir()
    before = files_below(shell.directory)

    refused = shell.bare("init", str(shell.directory))

    assert refused.code == ExitCode.REFUSED
    assert "File exists" in refused.err
    told = before.keys() - {"drop/site"}  # made anew by whoever comes
    after = files_below(shell.directory)
    assert after.keys() == before.keys()
    assert {each: after[each] for each in told} == {each: before[each] for each in told}


def test_init_that_fails_keeps_a_database_of_before(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it open may have begun a journal in the meantime."""
    shell.directory.mkdir()
    database = shell.directory / "restante.db"
    database.touch()

    async def fail(_: Administration) -> None:
        database.with_name("restante.db-wal").write_text("of a server")
        raise CannotKnow("the database is away")

    monkeypatch.setattr(Administration, "create_schema", fail)

    assert shell.bare("init", str(shell.directory)).code == ExitCode.TEMPORARY
    assert files_below(shell.directory) == {
        "restante.db": b"",
        "restante.db-wal": b"of a server",
    }


def test_init_that_fails_keeps_mail_that_came_meanwhile(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Administration) -> None:
        (shell.directory / "drop" / "incoming" / "m1").write_text("accepted")
        raise CannotKnow("the database is away")

    monkeypatch.setattr(Administration, "create_schema", fail)

    assert shell.bare("init", str(shell.directory)).code == ExitCode.TEMPORARY
    assert files_below(shell.directory)["drop/incoming/m1"] == b"accepted"
    assert not (shell.directory / "restante.toml").exists()


def test_init_where_a_file_is(shell: Shell) -> None:
    shell.directory.write_text("a file")

    refused = shell.bare("init", str(shell.directory / "below"))

    assert refused.code == ExitCode.REFUSED
    assert refused.err.count("\n") == 1
    assert shell.directory.read_text() == "a file"
