"""Who may do what, where root has started the server; with real uids, so for root alone."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.household import (
    OWNERS,
    PASSWORD,
    Office,
    add_owner,
    address_of,
    descendants,
    helpers,
    home_of,
    household,
    office_of,
    servant,
    servants,
    status_of,
    uids_of,
)
from tests.support.instance import Instance, new_instance, until
from tests.support.owner import only_root, only_users
from tests.support.ports import free_port
from tests.support.serving import (
    HESITANT,
    IAIN,
    NOBODY,
    SAMPLE,
    Sections,
    Wire,
    configure,
    deliver,
    hang_up,
    is_alive,
    new_server,
    reload,
    start,
    workers,
)

LISTENING = "0A"
"""The state of a socket in /proc/net/tcp."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A server with accounts of three uids."""
    directory = tmp_path_factory.mktemp("household") / "instance"
    with new_instance(directory, domains=()) as instance, household(instance):
        yield instance


# Processes


@only_root
def test_only_supervisor_and_nursery_are_root(server: Instance) -> None:
    """While mail for all of them is delivered."""
    assert server.process is not None
    supervisor = server.process.pid
    for _ in range(5):
        for uid in OWNERS:
            assert deliver(server.smtp_port, address_of(uid)).startswith("250 ")
            check_uids(server, supervisor)
    assert {uids_of(pid)[1] for pid in helpers(server)} == set(OWNERS)


def check_uids(instance: Instance, supervisor: int) -> None:
    family = descendants(supervisor)
    nursery = servant(instance, "nursery")
    assert {servant(instance, "registrar"), nursery} < family
    for pid in family:
        status = status_of(pid)
        if pid == nursery or not status:
            continue
        uids = set(map(int, status["Uid"].split()))
        if uids == {0} and status["PPid"] == str(nursery):
            continue  # a helper that was forked just now, before it reads anything
        assert len(uids) == 1
        assert uids <= {NOBODY, *OWNERS}, status
        assert 0 not in set(map(int, status["Gid"].split()))
        assert 0 not in set(map(int, status.get("Groups", "").split()))
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


@only_root
def test_servants_come_with_the_first_mail_of_another_uid(tmp_path: Path) -> None:
    """And are replaced from then on, though nobody asks for them again."""
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        assert instance.process is not None
        supervisor = instance.process.pid
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 1
        assert descendants(supervisor) == workers(instance, 2)
        add_owner(instance, OWNERS[0])
        assert deliver(instance.smtp_port, address_of(OWNERS[0])).startswith("250 ")
        assert len(instance.messages(address_of(OWNERS[0]), PASSWORD)) == 1
        check_uids(instance, supervisor)
        for name in ("registrar", "nursery"):
            kill_one(instance, name)
        assert deliver(instance.smtp_port, address_of(OWNERS[0])).startswith("250 ")
        assert len(instance.messages(address_of(OWNERS[0]), PASSWORD)) == 2
        assert instance.stop() == 0


@only_root
def test_what_is_asked_first_waits_for_both_servants(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {}) as instance:
        add_owner(instance, OWNERS[0])
        with office_of(instance) as office:
            for _ in range(3):
                office.send(b'{"id": 1, "helper": "nobody@example.com"}')
            answer = office.ask(helper=address_of(OWNERS[0]))
        assert answer == {"id": 4711, "uid": OWNERS[0], "gid": OWNERS[0], "descriptors": 1}
        assert len(servants(instance, "registrar")) == len(servants(instance, "nursery")) == 1


@only_root
def test_users_of_the_system_bring_the_servants_with_them(tmp_path: Path) -> None:
    """Their passwords are the registrar's to check, whom workers do not ask by the office."""
    with new_server(tmp_path / "instance", {}) as instance:
        assert not servants(instance, "registrar")
        configure(instance, {"routing": {"system_files": True}})
        assert "event=server_reloaded" in reload(instance)
        assert len(servants(instance, "registrar")) == len(servants(instance, "nursery")) == 1
        instance.stop()
        start(instance)
        assert is_alive(servant(instance, "registrar"))
        assert is_alive(servant(instance, "nursery"))


@only_root
def test_workers_gain_nothing_by_programs(server: Instance) -> None:
    for pid in (*workers(server, 1), servant(server, "registrar")):
        assert status_of(pid)["NoNewPrivs"] == "1"


@only_root
def test_one_process_of_the_servers_user_cannot_trace_another(server: Instance) -> None:
    """Nor read its memory, its environment or its descriptors."""
    for pid in (*workers(server, 1), servant(server, "registrar"), *helpers(server)):
        uid = uids_of(pid)[0]
        assert as_user(uid, TRACE, str(pid)) == "EPERM"
        for name in ("mem", "environ", "fd"):
            assert as_user(uid, READ, f"/proc/{pid}/{name}") == "EACCES"


@only_root
def test_descriptors_of_others_are_no_workers_business(server: Instance) -> None:
    """It has its own office, and neither the servants' sockets nor the life of all."""
    (worker,) = workers(server, 1)
    kinds = unix_kinds()
    held = [os.readlink(entry) for entry in Path(f"/proc/{worker}/fd").iterdir()]
    offices = [each for each in held if kinds.get(each) == "0005"]
    assert len(offices) == 1
    supervisor = Path(f"/proc/{status_of(worker)['PPid']}/fd")
    theirs = {os.readlink(entry) for entry in supervisor.iterdir()}
    assert not {each for each in held if each.startswith("socket:")} & {
        each for each in theirs if kinds.get(each) == "0005"
    }


# Mail


@only_root
def test_mail_is_its_owners(server: Instance) -> None:
    for uid in OWNERS:
        before = len(server.messages(address_of(uid), PASSWORD))
        assert deliver(server.smtp_port, address_of(uid)).startswith("250 ")
        assert len(server.messages(address_of(uid), PASSWORD)) == before + 1
        maildir = home_of(server, uid) / "Maildir"
        for path in (maildir, *maildir.rglob("*")):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == (uid, uid)
            assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600)


@only_root
def test_a_home_of_another_uid_defers_and_says_so(server: Instance) -> None:
    uid = 54110
    add_owner(server, uid)
    os.chown(home_of(server, uid), 54111, 54111)
    seen = len(server.log())
    assert deliver(server.smtp_port, address_of(uid)).startswith("250 2.0.0 ok ")
    until(lambda: "event=deferred" in server.log()[seen:], "it waits")
    (line,) = [one for one in server.log()[seen:].splitlines() if "event=deferred" in one]
    assert "54111" in line
    assert "54110" in line


@only_root
def test_the_instance_is_shared_out(server: Instance) -> None:
    """Accounts and settings are root's; what the workers write is theirs."""
    directory = server.directory
    for name, uid, mode in (
        ("restante.toml", 0, 0o600),
        ("restante.db", 0, 0o640),
        ("tls", 0, 0o700),
        ("tls/self-signed.key", 0, 0o600),
        ("queue", NOBODY, 0o700),
        ("queue/0/queue.db", NOBODY, None),
        ("drop", NOBODY, 0o711),
        ("drop/incoming", NOBODY, 0o1733),
        ("run", NOBODY, 0o700),
    ):
        found = (directory / name).stat()
        assert found.st_uid == uid, name
        assert mode in (None, stat.S_IMODE(found.st_mode)), name
    assert (directory / "restante.db").stat().st_gid == NOBODY


@only_root
def test_roots_commands_lock_no_worker_out(server: Instance) -> None:
    """Nothing below the workers' directories is root's, whatever root does by hand."""
    server.add_mailbox("eve@example.com")
    for words in (
        ("queue", "list"),
        ("queue", "retry", "--all"),
        ("queue", "summary"),
        ("submission", "list"),
        ("check",),
        ("explain", "eve@example.com"),
    ):
        server.run(*words, check=False)
    assert deliver(server.smtp_port, "eve@example.com").startswith("250 ")
    assert len(server.messages("eve@example.com")) == 1
    for name in ("queue", "run", "drop"):
        for path in (server.directory / name).rglob("*"):
            assert path.lstat().st_uid == NOBODY, path


# Requests


@only_root
@pytest.mark.parametrize(
    "request_",
    [
        {"helper": "nobody-has@this.example"},
        {"helper": "' OR 1=1 --"},
        {"system": "root"},
        {"system": "daemon"},
        {"system": "../root"},
        {"file": "/etc/shadow"},
        {"file": "restante.toml"},
    ],
)
def test_forged_requests_are_refused(server: Instance, request_: dict[str, str]) -> None:
    with office_of(server) as office:
        answer = office.ask(**request_)
    assert answer["error"]
    assert answer["descriptors"] == 0


@only_root
@pytest.mark.parametrize(("uid", "gid"), [(0, 54120), (54120, 0), (0, 0), (99, 54120)])
def test_rows_that_name_root_are_of_no_use(server: Instance, uid: int, gid: int) -> None:
    with closing(sqlite3.connect(server.directory / "restante.db")) as database:
        database.execute("DELETE FROM mailbox WHERE username = 'zero'")
        database.execute(
            "INSERT INTO mailbox VALUES ('zero', ?, ?, '/tmp', 'x', 'Password')",
            (uid, gid),
        )
        database.commit()
    seen = len(server.log())
    with office_of(server) as office:
        answer = office.ask(helper="zero")
    assert "minimum" in str(answer["error"])
    assert answer["descriptors"] == 0
    assert "event=request_refused slot=0 name=zero " in server.log()[seen:]
    assert not [pid for pid in helpers(server) if uids_of(pid)[0] == 0]


@only_root
def test_an_account_gets_its_own_uid_and_no_other(server: Instance) -> None:
    uid = OWNERS[0]
    with office_of(server) as office:
        answer = office.ask(helper=address_of(uid))
    assert answer == {"id": 4711, "uid": uid, "gid": uid, "descriptors": 1}


@only_root
def test_a_flood_of_junk_holds_up_nobody(server: Instance) -> None:
    with office_of(server) as office:
        for datagram in (b"junk", b"\0" * 4096, b"x" * 60_000, b'{"id": 1, "helper": 0}'):
            office.send(datagram)
        for _ in range(2000):
            office.send(b'{"id": 1, "helper": "nobody@example.com"}')
        answer = office.ask(helper=address_of(OWNERS[0]))
    assert answer["id"] == 4711
    assert deliver(server.smtp_port, address_of(OWNERS[0])).startswith("250 ")


# Deaths


@only_root
@pytest.mark.parametrize("victim", ["worker", "registrar", "nursery", "helper"])
def test_killed_under_load(tmp_path: Path, victim: str) -> None:
    """What is acknowledged is there, once, whoever was killed meanwhile."""
    sections: Sections = {"server": {"workers": 2}, "mail": {"helper_idle": 1}}
    with (
        new_instance(tmp_path / "instance", domains=()) as instance,
        household(instance, sections),
    ):
        acknowledged = dict.fromkeys(OWNERS, 0)
        for _ in range(4):
            for _ in range(5):
                for uid in OWNERS:
                    acknowledged[uid] += is_acknowledged(instance, uid)
            kill_one(instance, victim)
            for uid in OWNERS:
                acknowledged[uid] += is_acknowledged(instance, uid)
        assert min(acknowledged.values()) >= 4
        for uid, count in acknowledged.items():
            until(lambda uid=uid, count=count: arrived(instance, uid) >= count, f"mail of {uid}")
        assert {uid: arrived(instance, uid) for uid in OWNERS} == acknowledged
        assert instance.stop() == 0


def is_acknowledged(instance: Instance, uid: int) -> bool:
    """Whether mail is taken; a death may leave a client without an answer, or to come again."""
    commands = (
        "EHLO client.example",
        "MAIL FROM:<me@example.net>",
        f"RCPT TO:<{address_of(uid)}>",
        "DATA",
        f"{SAMPLE.decode()}.",
    )
    try:
        with Wire(instance.smtp_port) as wire:
            reply = wire.reply()
            for command in commands:
                if reply.startswith(("2", "3")):
                    reply = wire.ask(command)
    except ConnectionError:
        return False
    assert reply.startswith(("2", "4")) or not reply, reply
    return reply.startswith("2")


def arrived(instance: Instance, uid: int) -> int:
    instance.here("queue", "retry", "--all", check=False)
    time.sleep(0.2)
    return len(list(home_of(instance, uid).glob("Maildir/new/*")))


def kill_one(instance: Instance, victim: str) -> None:
    """kill -9; returns when it is gone."""
    if victim == "worker":
        pid = min(workers(instance, 2))
    elif victim == "helper":
        until(lambda: helpers(instance), "a helper")
        pid = min(helpers(instance))
    else:
        pid = servant(instance, victim)
        until(lambda: is_alive(pid), f"a {victim}")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "it is gone")
    if victim in ("registrar", "nursery"):
        until(lambda: servant(instance, victim) != pid, "its successor")


@only_root
def test_questions_wait_for_the_next_registrar(server: Instance) -> None:
    former = servant(server, "registrar")
    with office_of(server) as office:
        os.kill(former, signal.SIGKILL)
        answer = office.ask(helper=address_of(OWNERS[1]))
    assert answer["uid"] == OWNERS[1]
    assert servant(server, "registrar") != former


# Settings


@only_root
def test_reload(tmp_path: Path) -> None:
    with (
        new_instance(tmp_path / "instance", domains=()) as instance,
        household(instance, {"server": {"user": "nobody"}}),
    ):
        former = servant(instance, "registrar"), servant(instance, "nursery")
        minimum = {"mail": {"minimum_uid": OWNERS[0] + 1}}
        configure(instance, {"server": {"user": "nobody"}, **minimum})
        assert "event=server_reloaded" in reload(instance)
        assert servant(instance, "registrar") != former[0]
        assert servant(instance, "nursery") != former[1], "it has been told another minimum"
        with Office(max(workers(instance, 1))) as office:
            assert "minimum" in str(office.ask(helper=address_of(OWNERS[0]))["error"])
            assert office.ask(helper=address_of(OWNERS[1]))["uid"] == OWNERS[1]
        configure(instance, {"server": {"user": "daemon"}})
        assert "server.user changes when the server is started" in reload(instance)
        until(lambda: not is_alive(former[0]) and not is_alive(former[1]), "they have ended")
        assert instance.stop() == 0


@only_root
def test_a_registrar_has_no_listeners(tmp_path: Path) -> None:
    """It could hear what clients say, and they would wait for it once the workers are gone."""
    with new_instance(tmp_path / "instance", domains=()) as instance, household(instance):
        addresses = {"listen": ["127.0.0.1:0", f"127.0.0.1:{free_port()}"]}
        configure(instance, {"mail": {"user": "nobody"}, "smtp": addresses})
        assert "event=server_reloaded" in reload(instance)
        (worker,) = workers(instance, 1)
        assert len(listening(worker)) == 3
        assert listening(servant(instance, "registrar")) == set()


def listening(pid: int) -> set[str]:
    """The sockets on which a process listens."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listeners = {f"socket:[{row.split()[9]}]" for row in table if row.split()[3] == LISTENING}
    return listeners & {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}


@only_root
def test_a_refused_reload_leaves_all_to_the_former_nursery(tmp_path: Path) -> None:
    """A nursery that is dismissed kills its helpers after some time, come what may."""
    with new_instance(tmp_path / "instance", domains=()) as instance:
        instance.within = [sys.executable, "-c", HESITANT]
        with household(instance):
            (old,), former = workers(instance, 1), servant(instance, "nursery")
            configure(instance, {"mail": {"user": "nobody", "helpers": 3}})
            (instance.directory / "wait").touch()
            hang_up(instance)
            (fresh,) = workers(instance, 2) - {old}
            tried = servant(instance, "nursery")
            assert tried != former
            with logged_in(instance, OWNERS[1]):
                assert OWNERS[1] in owners_helped_by(former)
                os.kill(fresh, signal.SIGKILL)
                until(lambda: "event=reload_refused" in instance.log(), "refused")
                until(lambda: not is_alive(tried), "nobody has a helper of that one")
                with logged_in(instance, OWNERS[2]):
                    assert set(OWNERS[1:]) <= owners_helped_by(former)
            assert len(servants(instance, "nursery")) == 2


@contextmanager
def logged_in(instance: Instance, uid: int) -> Iterator[None]:
    """A POP3 session, for as long as that."""
    with Wire(instance.pop3_port) as wire:
        wire.reply()
        wire.ask(f"USER {address_of(uid)}")
        assert wire.ask(f"PASS {PASSWORD}").startswith("+OK")
        yield


def owners_helped_by(nursery: int) -> set[int]:
    return {uids_of(pid)[1] for pid in descendants(nursery)}


@only_root
def test_a_user_who_is_added_to_a_group_is_the_same(tmp_path: Path) -> None:
    groups = tmp_path / "group"
    shutil.copy("/etc/group", groups)
    enter = 'mount --bind "$1" /etc/group && shift && exec "$@"'
    with new_instance(tmp_path / "instance", domains=()) as instance:
        instance.within = ["unshare", "--mount", "sh", "-c", enter, "sh", str(groups)]
        with household(instance, {"server": {"user": "nobody"}}):
            with groups.open("a") as file:
                file.write("more:x:54199:nobody\n")
            assert "event=server_reloaded" in reload(instance)


@only_root
def test_an_instance_of_roots_workers_is_handed_over(tmp_path: Path) -> None:
    """Or one that root has restored, mail that waits among it; links stay as they are."""
    with new_server(tmp_path / "instance", {}) as instance:
        directory = instance.directory
        blocked = directory / "mail" / "iain"
        blocked.mkdir()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        instance.stop()
        outside = tmp_path / "outside"
        outside.write_text("root's")
        for name in ("queue", "drop", "run"):
            for path in (directory / name, *(directory / name).rglob("*")):
                os.chown(path, 0, 0, follow_symlinks=False)
        os.link(outside, directory / "queue" / "hard")
        (directory / "queue" / "soft").symlink_to(outside)
        os.chown(blocked, NOBODY, NOBODY)
        configure(instance, {"metrics": {"listen": ["127.0.0.1:0"]}})
        start(instance)
        until(lambda: arrived_at(instance, blocked) == 1, "what waited is delivered")
        assert instance.stop() == 0
        for name in ("queue/0/queue.db", "drop/incoming", "run/metrics"):
            assert (directory / name).stat().st_uid == NOBODY
        assert outside.stat().st_uid == 0
        assert (directory / "queue" / "soft").lstat().st_uid == 0


def arrived_at(instance: Instance, home: Path) -> int:
    instance.here("queue", "retry", "--all", check=False)
    return len(list(home.glob("Maildir/new/*")))


@only_root
def test_a_database_that_was_put_back_is_closed_to_others(tmp_path: Path) -> None:
    """A copy is often everybody's to read; one that is not root's is its owner's matter."""
    with new_server(tmp_path / "instance", {}) as instance:
        database = instance.directory / "restante.db"
        for uid, gid, before, after in (
            (0, 0, 0o644, 0o640),
            (0, NOBODY, 0o664, 0o640),
            (0, 0, 0o600, 0o640),
            (NOBODY, NOBODY, 0o644, 0o644),
        ):
            instance.stop()
            os.chown(database, uid, gid)
            database.chmod(before)
            start(instance)
            found = database.stat()
            assert (found.st_uid, found.st_gid) == (uid, NOBODY)
            assert stat.S_IMODE(found.st_mode) == after


@only_root
def test_another_user_takes_over_at_the_next_start(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {}) as instance:
        instance.stop()
        configure(instance, {"server": {"user": "daemon"}})
        start(instance)
        (pid,) = workers(instance, 1)
        assert len(set(uids_of(pid))) == 1
        owner = (instance.directory / "queue" / "0" / "queue.db").stat().st_uid
        assert owner == uids_of(pid)[0] not in (0, NOBODY)


@only_root
@pytest.mark.parametrize(
    ("user", "said"),
    [("root", "unprivileged user"), ("no-such-user", "there is no user 'no-such-user'")],
)
def test_users_who_cannot_be_the_servers(tmp_path: Path, user: str, said: str) -> None:
    with new_instance(tmp_path / "instance") as instance:
        configure(instance, {"server": {"user": user}})
        done = instance.run("serve", check=False)
        assert done.returncode != 0
        assert said in done.stderr


@only_root
def test_a_place_that_the_server_cannot_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with new_instance(closed / "instance") as instance:
        closed.chmod(0o700)
        done = instance.run("serve", check=False)
        assert done.returncode == os.EX_UNAVAILABLE
        assert f"cannot pass {closed};" in done.stderr
        closed.chmod(0o711)


@only_root
@pytest.mark.parametrize("name", [".", "restante.toml"])
def test_settings_that_the_servers_user_can_change(tmp_path: Path, name: str) -> None:
    with new_instance(tmp_path / "instance") as instance:
        os.chown(instance.directory / name, NOBODY, 0)
        done = instance.run("serve", check=False)
        assert done.returncode == os.EX_UNAVAILABLE
        assert "can change or replace" in done.stderr
        assert "chown root: " in done.stderr


# Others' tools

TRACE = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
print("0" if libc.ptrace(16, int(sys.argv[1]), 0, 0) == 0 else errno.errorcode[ctypes.get_errno()])
"""
READ = """
import errno, os, sys
try:
    os.listdir(sys.argv[1]) if os.path.isdir(sys.argv[1]) else open(sys.argv[1], "rb").read(1)
    print("0")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def as_user(uid: int, program: str, *arguments: str) -> str:
    """Run Python as another user; what it printed."""
    pipe_read, pipe_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(pipe_write, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        sys.argv = ["", *arguments]
        sys.stdout = os.fdopen(1, "w")
        try:
            exec(compile(program, "program", "exec"), {})
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(pipe_write)
    os.waitpid(pid, 0)
    with open(pipe_read) as said:
        return said.read().strip()


def unix_kinds() -> dict[str, str]:
    """``socket:[INODE]`` to the type of a Unix socket, as /proc writes it."""
    table = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {f"socket:[{line.split()[6]}]": line.split()[4] for line in table}


@only_users
def test_accounts_of_other_uids_are_refused_clearly(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        with closing(sqlite3.connect(instance.directory / "restante.db")) as database:
            database.execute("UPDATE mailbox SET uid = 54101")
            database.commit()
        assert deliver(instance.smtp_port, "iain@example.com").startswith("250 2.0.0 ok ")
        until(lambda: "event=deferred" in instance.log(), "it waits")
        assert "the account's uid is 54101, the server runs as" in instance.log()
