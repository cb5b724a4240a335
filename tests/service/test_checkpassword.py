"""The checkpassword program: the public interface, with a server and without one."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.checkpassword.wire import Question, encode_question, socket_path
from tests.support.checking import CLEAN, PROGRAM, TELL, check, run_with
from tests.support.instance import Instance, new_instance, until
from tests.support.private_python import private_python
from tests.support.serving import (
    IAIN,
    NOBODY,
    add_accounts,
    configure,
    hang_up,
    new_server,
    reload,
)
from tests.support.system_users import SystemUsers, hashed

REFUSED, MISUSED, NO_SUCH_USER, TEMPORARY = 1, 2, 3, 111
DOVECOT = {"ORIG_UID": str(os.getuid()), "SERVICE": "pop3", "TCPREMOTEIP": "192.0.2.7"}


@pytest.fixture(params=["alone", "with a server"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """An instance whose accounts have homes; its server runs, or none does."""
    if request.param == "alone":
        environ = {"RESTANTE_AUTH__REFUSAL_DELAY": "0.05"}
        with new_instance(tmp_path, environ=environ, domains=()) as made:
            add_accounts(made)
            configure(made, {"auth": {"refusal_delay": 0.05}})
            _make_home(made)
            yield made
    else:
        with new_server(tmp_path) as made:
            _make_home(made)
            until(lambda: os.path.exists(socket_path(str(made.directory))), "a socket")
            yield made


def _make_home(instance: Instance) -> Path:
    home = instance.directory / "mail" / "iain"
    home.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        for parent in (home.parent, instance.directory):
            parent.chmod(0o711)
    return home


def asks_server(instance: Instance) -> bool:
    return instance.process is not None


def execute(instance: Instance, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.execute(statement, values)
        database.commit()


# The public interface


def test_a_good_login_runs_the_program_as_its_owner(instance: Instance) -> None:
    found = check(instance.directory)
    assert found.status == 0, found.error
    owner = NOBODY if os.getuid() == 0 else os.getuid()
    home = str(instance.directory / "mail" / "iain")
    assert found.told["uid"] == str(owner)
    assert found.told["home"] == found.told["HOME"] == home
    assert found.told["USER"] == IAIN
    assert found.told["SHELL"] == "/bin/sh"
    if os.getuid() == 0:
        assert (found.told["gid"], found.told["groups"]) == (str(NOBODY), str(NOBODY))
    if asks_server(instance):
        until(lambda: "event=login " in instance.log(), "a record")
        assert "service=checkpassword" in instance.log()
    else:
        assert "event=login " in found.error


def test_the_login_may_be_an_address_of_the_account(instance: Instance) -> None:
    execute(instance, "INSERT INTO virtual VALUES (?, 'boss', 'example.com')", IAIN)
    assert check(instance.directory, "boss@example.com").told["USER"] == IAIN


def test_a_bad_login_is_refused_and_nothing_is_run(instance: Instance) -> None:
    for login, password in (
        (IAIN, "wrong"),
        (IAIN, ""),
        ("nobody@example.com", "secret"),
        ("", ""),
    ):
        assert check(instance.directory, login, password).status == REFUSED, (login, password)


def test_what_stands_on_descriptor_3(instance: Instance) -> None:
    good = b"iain@example.com\0secret\0"
    for raw, status in (
        (b"", MISUSED),
        (b"iain@example.com", MISUSED),
        (b"iain@example.com\0secret", MISUSED),
        (good, 0),
        (good.ljust(512, b"t"), 0),
        (good.ljust(513, b"t"), REFUSED),
        (b"iain@example.com\0" + b"s" * 10_000 + b"\0\0", REFUSED),
        (b"\xff\xfe\0\xff\0\0", REFUSED),
    ):
        assert check(instance.directory, raw=raw, command=("true",)).status == status, raw[:40]


def test_a_database_that_is_away_is_temporary(instance: Instance) -> None:
    os.rename(instance.directory / "restante.db", instance.directory / "away.db")
    (instance.directory / "restante.db").write_bytes(b"no database" * 1000)
    assert check(instance.directory).status == TEMPORARY
    assert check(instance.directory, password="wrong").status == TEMPORARY
    assert check(instance.directory, environ={**DOVECOT, "AUTHORIZED": "1"}).status == TEMPORARY
    os.rename(instance.directory / "away.db", instance.directory / "restante.db")
    until(lambda: check(instance.directory).status == 0, "the database")


def test_a_home_that_is_missing_is_temporary(instance: Instance) -> None:
    os.rmdir(instance.directory / "mail" / "iain")
    found = check(instance.directory)
    assert found.status == TEMPORARY
    assert "mail/iain: No such file or directory" in found.error


def test_the_program_decides_the_exit_status(instance: Instance) -> None:
    assert check(instance.directory, command=("sh", "-c", "exit 42")).status == 42
    found = check(instance.directory, command=("/no/such/program",))
    assert found.status == TEMPORARY
    assert "/no/such/program cannot be run" in found.error


def test_what_is_run_cannot_read_the_password(instance: Instance) -> None:
    found = check(instance.directory, command=("sh", "-c", "cat <&3 || echo closed"))
    assert (found.status, dict(found.told)) == (0, {"closed": ""})


def test_what_is_run_ignores_no_signal(instance: Instance) -> None:
    """Python ignores SIGPIPE; qmail-pop3d has to end when its client has gone."""
    status = ("sed", "-n", "s/^SigIgn:\t/ignored=/p", "/proc/self/status")
    usual = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    ignored = check(instance.directory, command=status).told["ignored"]
    assert f"ignored={ignored}\n" == usual


def test_a_program_that_is_not_whole_refuses_nobody(tmp_path: Path) -> None:
    """As while it is being upgraded: Python's own exit status would be 1, a wrong password."""
    half = "import sys\nsys.modules['restante.checkpassword.program'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(half)
    assert check(tmp_path, environ={"PYTHONPATH": str(tmp_path)}).status == TEMPORARY


@pytest.mark.parametrize("caller", [{}, DOVECOT])
def test_what_is_run_sees_no_setting(instance: Instance, caller: dict[str, str]) -> None:
    """The database's URL may be given so, and has its password."""
    url = f"sqlite:///{instance.directory}/restante.db"
    found = check(instance.directory, environ={**caller, "RESTANTE_DATABASE__URL": url})
    assert found.status == 0, found.error
    assert not [name for name in found.told if name.startswith("RESTANTE_")]


def test_guesses_count(instance: Instance) -> None:
    peer = {"TCPREMOTEIP": "192.0.2.7"}
    for number in range(10):
        assert check(instance.directory, password=f"x{number}", environ=peer).status == REFUSED
    assert check(instance.directory, environ=peer).status == REFUSED
    assert check(instance.directory, environ={"TCPREMOTEIP": "192.0.2.8"}).status == 0
    assert "192.0.2.7\t10" in instance.run("guesses", "list").stdout


# Rights


def test_nobody_becomes_root_nor_who_is_below_the_minimum(instance: Instance) -> None:
    for uid, gid in ((0, 65534), (99, 65534), (65534, 0)):
        execute(instance, "UPDATE mailbox SET uid = ?, gid = ? WHERE username = ?", uid, gid, IAIN)
        for environ in ({}, DOVECOT):
            found = check(instance.directory, environ=environ)
            if os.getuid() == 0:
                assert found.status == TEMPORARY
                assert "below mail.minimum_uid (100) or mail.minimum_gid (1)" in found.error
            elif not environ:
                assert (found.status, "runs as" in found.error) == (TEMPORARY, True)


def test_a_home_of_somebody_else_is_nobodys(instance: Instance) -> None:
    execute(instance, "UPDATE mailbox SET uid = 4242 WHERE username = ?", IAIN)
    found = check(instance.directory)
    assert found.status == TEMPORARY
    assert "not to 4242" in found.error or "has uid 4242" in found.error


def test_users_of_the_system_log_in_behind_the_tables(tmp_path: Path) -> None:
    if os.getuid() != 0:
        return  # only root can give the host other users, and read the shadow file
    users = SystemUsers(tmp_path)
    home = users.add("tess", 4242, hashed("sesame"))
    users.add("lock", 4243, "!" + hashed("sesame"))
    users.add("gone", 4244, hashed("sesame"), "0:99999:7::20000")
    with new_instance(tmp_path / "i", domains=()) as made:
        add_accounts(made)
        at_once = {"auth": {"refusal_delay": 0.05}}
        configure(made, {**at_once, "routing": {"system_files": True}})
        command = users.seen_by([*PROGRAM, "--dir", str(made.directory), "sh", "-c", TELL])

        def login(name: str, password: str) -> tuple[int, dict[str, str]]:
            done = run_with(command, f"{name}\0{password}\0\0".encode(), CLEAN)
            told = (line.partition("=") for line in done.stdout.splitlines())
            return done.returncode, {name: value for name, _, value in told}

        status, told = login("tess", "sesame")
        assert (status, told["uid"], told["gid"], told["groups"]) == (0, "4242", "4242", "4242")
        assert (told["USER"], told["HOME"], told["SHELL"]) == ("tess", str(home), "/bin/bash")
        assert login("tess", "wrong")[0] == REFUSED
        assert login("lock", "sesame")[0] == REFUSED
        assert login("gone", "sesame")[0] == REFUSED
        assert login("root", "sesame")[0] == REFUSED
        configure(made, at_once)
        assert login("tess", "sesame")[0] == REFUSED


def test_python_may_be_where_only_root_can_read(tmp_path: Path) -> None:
    """The database is asked with the rights of the server's user."""
    if os.getuid() != 0:
        return  # everything is done with the same rights
    (tmp_path / "python").mkdir()
    python, path = private_python(tmp_path / "python", private=("restante",))
    with new_instance(tmp_path / "i", domains=()) as made:
        add_accounts(made)
        _make_home(made)
        command = [*python, "-m", "restante.checkpassword", "--dir", str(made.directory), "true"]
        done = run_with(command, f"{IAIN}\0secret\0\0".encode(), {**CLEAN, "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr


# Dovecot


def test_dovecot_is_told_of_rights_and_given_none(instance: Instance) -> None:
    found = check(instance.directory, environ={**DOVECOT, "EXTRA": "other", "AUTHORIZED": "no"})
    assert found.status == 0, found.error
    owner = str(NOBODY if os.getuid() == 0 else os.getuid())
    assert found.told["uid"] == str(os.getuid())
    assert found.told["userdb_uid"] == owner
    assert found.told["EXTRA"] == "other userdb_uid userdb_gid"
    assert found.told["USER"] == IAIN
    assert "AUTHORIZED" not in found.told


def test_dovecot_asks_for_users_without_a_password(instance: Instance) -> None:
    lookup = {**DOVECOT, "AUTHORIZED": "1"}
    found = check(instance.directory, password="", environ=lookup)
    assert (found.status, found.told["AUTHORIZED"]) == (0, "2")
    assert check(instance.directory, "nobody@x", "", environ=lookup).status == NO_SUCH_USER


def test_nobody_else_is_believed_without_a_password(instance: Instance) -> None:
    assert check(instance.directory, password="", environ={"AUTHORIZED": "1"}).status == REFUSED
    found = check(instance.directory, environ={"AUTHORIZED": "1"})
    assert "AUTHORIZED" not in found.told


# The command line


@pytest.mark.parametrize("arguments", [[], ["--dir"], ["--dir", "x"], ["--bogus", "true"], ["--"]])
def test_a_wrong_command_line_is_misuse(arguments: list[str]) -> None:
    done = run_with([*PROGRAM, *arguments], b"a\0b\0c\0", CLEAN)
    assert done.returncode == MISUSED
    assert done.stderr.startswith("checkpassword: usage: restante-checkpassword")


def test_without_descriptor_3_it_is_misused() -> None:
    arguments = ["bash", "-c", 'exec 3<&-; exec "$@"', "bash", *PROGRAM, "true"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == MISUSED
    assert "descriptor 3" in done.stderr


def test_no_instance_is_temporary(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert found.status == TEMPORARY
    assert "no restante.toml in" in found.error


def test_the_instance_may_be_named_by_the_environment(instance: Instance) -> None:
    environ = {**CLEAN, "RESTANTE_DIR": str(instance.directory)}
    octets = b"iain@example.com\0secret\0\0"
    assert run_with([*PROGRAM, "true"], octets, environ).returncode == 0
    assert run_with([*PROGRAM, "-C", "/nowhere", "true"], octets, environ).returncode == TEMPORARY


def test_a_control_directory_may_be_named(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("mx.example.com\n")
    arguments = [*PROGRAM, f"--dir={tmp_path}", f"--control={control}", "--", "true"]
    done = run_with(arguments, b"iain@example.com\0secret\0\0", CLEAN)
    assert done.returncode == TEMPORARY  # there is no database
    assert "restante.db" in done.stderr


# The socket


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    with new_server(tmp_path) as made:
        _make_home(made)
        until(lambda: os.path.exists(socket_path(str(made.directory))), "a socket")
        yield made


def say(server: Instance, octets: bytes) -> bytes:
    """Whatever the server answers."""
    place = os.open(server.directory / "run", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(f"/proc/self/fd/{place}/checkpassword")
        os.close(place)
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(65536)
    return b""


def test_what_is_no_question_is_not_answered(server: Instance) -> None:
    for octets in (
        b"", b"\0", b"check", b"check\0iain\0", b"bogus\0a\0b\0c\0", b"x" * 100_000, b"check\0" * 5
    ):  # fmt: skip
        assert say(server, octets) == b"", octets[:40]
    assert check(server.directory).status == 0


def test_a_question_at_its_longest(server: Instance) -> None:
    question = Question("check", "x" * 255, "y" * 255, "z" * 64)
    assert say(server, encode_question(question)) == b"no\0"


def test_the_socket_is_the_servers_own(server: Instance) -> None:
    run = server.directory / "run"
    assert run.stat().st_mode & 0o077 == 0
    assert (run / "checkpassword").stat().st_mode & 0o177 == 0


def test_others_are_not_answered(server: Instance) -> None:
    if os.getuid() != 0:
        return  # there are no others for an ordinary user
    (server.directory / "run").chmod(0o777)
    path = Path(socket_path(str(server.directory)))
    path.chmod(0o777)
    assert answered_as(4242, path) == b""
    assert answered_as(0, path).startswith(b"yes\0iain@example.com\0")


def answered_as(uid: int, path: Path) -> bytes:
    """What a process of that user is answered."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(60)
                connection.connect(str(path))
                connection.sendall(encode_question(Question("find", IAIN)))
                connection.shutdown(socket.SHUT_WR)
                os.write(writing, connection.recv(4096))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def test_the_socket_outlives_reloads_and_a_server_that_is_gone(server: Instance) -> None:
    reload(server)
    assert check(server.directory).status == 0
    assert server.log().count("event=login ") == 1
    hang_up(server)
    server.stop()
    found = check(server.directory)
    assert found.status == 0, found.error
    assert "event=login " in found.error + server.log().split("event=server_stopped")[-1]
