"""The checkpassword program under tcpserver, and as Dovecot's passdb and userdb."""

from __future__ import annotations

import contextlib
import grp
import os
import poplib
import pwd
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.checkpassword.wire import socket_path
from tests.support.checking import PROGRAM
from tests.support.dovecot import is_of_2_4
from tests.support.instance import PATIENCE, Instance, new_instance, until
from tests.support.ports import free_port
from tests.support.serving import IAIN, NOBODY, add_accounts, configure, start

pytestmark = pytest.mark.peer

SUPPORT = Path(__file__).parents[1] / "support"
POP3D = r"""
printf '+OK %s %s\r\n' "$USER" "$(id -u)"
set -- "$1"/new/*
while read -r verb number; do
    case $verb in
    STAT*) printf '+OK %d 0\r\n' $# ;;
    RETR*) printf '+OK\r\n'; sed 's/$/\r/' "$1"; printf '.\r\n' ;;
    *) printf '+OK\r\n'; exit ;;
    esac
done
"""
"""A stand-in for qmail-pop3d(8), for a Maildir with one message: STAT, RETR and QUIT."""
HELLO = "Subject: hello\n\nHello, old friend.\n"


@pytest.fixture(params=["alone", "with a server"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """An account with a message; its server runs, or none does."""
    with new_instance(tmp_path / "restante", domains=()) as made:
        add_accounts(made)
        configure(made, {"auth": {"refusal_delay": 0.05}})
        _fill(made)
        if request.param != "alone":
            start(made)
            until(lambda: os.path.exists(socket_path(str(made.directory))), "a socket")
        yield made


def _fill(instance: Instance) -> None:
    mail = instance.directory / "mail"
    for part in ("cur", "tmp", "new"):
        (mail / "iain" / "Maildir" / part).mkdir(parents=True)
    (mail / "iain" / "Maildir" / "new" / "1.1.x").write_text(HELLO)
    if os.getuid() == 0:
        (instance.directory).chmod(0o711)
        mail.chmod(0o711)
        for path in (mail / "iain", *(mail / "iain").rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def take_database_away(instance: Instance) -> None:
    os.rename(instance.directory / "restante.db", instance.directory / "away.db")
    (instance.directory / "restante.db").write_bytes(b"no database" * 1000)


@contextlib.contextmanager
def session(port: int, login: str = IAIN, password: str = "secret") -> Iterator[poplib.POP3]:
    """A POP3 session, logged in; raises error_proto if that is refused."""
    pop3 = poplib.POP3("127.0.0.1", port, timeout=PATIENCE)
    try:
        pop3.user(login)
        pop3.pass_(password)
        yield pop3
        pop3.quit()
    finally:
        pop3.close()


def refusal(port: int, login: str = IAIN, password: str = "secret") -> str:
    with pytest.raises(poplib.error_proto) as refused, session(port, login, password):
        pass
    return str(refused.value.args[0])


def the_message(pop3: poplib.POP3) -> str:
    assert pop3.stat()[0] == 1
    return "\n".join(line.decode() for line in pop3.retr(1)[1]) + "\n"


# tcpserver


@pytest.fixture
def tcpserver(instance: Instance) -> Iterator[int]:
    """The port of a POP3 server in qmail's way."""
    checkpassword = [*PROGRAM, "--dir", str(instance.directory)]
    popup = [sys.executable, str(SUPPORT / "popup.py"), "mx.example.com"]
    pop3d = ["sh", "-c", POP3D, "pop3d", "Maildir"]
    process = subprocess.Popen(
        ["tcpserver", "-1", "-HRl0", "127.0.0.1", "0", *popup, *checkpassword, *pop3d],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
        process.stdout.close()


def test_mail_is_read_through_tcpserver(tcpserver: int) -> None:
    with session(tcpserver) as pop3:
        assert the_message(pop3) == HELLO


def test_tcpserver_tells_refusals_from_failures(instance: Instance, tcpserver: int) -> None:
    assert refusal(tcpserver, password="wrong") == "b'-ERR authorization failed'"
    assert refusal(tcpserver, "nobody@example.com") == "b'-ERR authorization failed'"
    take_database_away(instance)
    assert refusal(tcpserver) == "b'-ERR unable to do so now'"


def test_the_client_of_tcpserver_is_known(instance: Instance, tcpserver: int) -> None:
    refusal(tcpserver, password="wrong")
    assert "127.0.0.1\t1" in instance.run("guesses", "list").stdout


# Dovecot

DOVECOT = """
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
auth_verbose = yes
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
first_valid_uid = 100
mail_location = maildir:~/Maildir
auth_failure_delay = 0
passdb {{
  driver = checkpassword
  args = {program}
}}
userdb {{
  driver = prefetch
}}
userdb {{
  driver = checkpassword
  args = {program}
}}
service auth {{
  user = {auth}
  vsz_limit = 1G
}}
service pop3-login {{
  chroot = {chroot}
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  chroot = {chroot}
}}
"""


@pytest.fixture
def dovecot(instance: Instance, tmp_path: Path) -> Iterator[int]:
    """The port of a Dovecot that knows users by restante-checkpassword alone."""
    port = free_port()
    me = pwd.getpwuid(os.getuid()).pw_name
    mine = {"internal": me, "login": me, "group": grp.getgrgid(os.getgid()).gr_name}
    usual = {"internal": "dovecot", "login": "dovenull", "group": "dovecot"}
    written = DOVECOT.format(
        base=tmp_path,
        port=port,
        program=" ".join([*PROGRAM, "--dir", str(instance.directory)]),
        auth=me,
        chroot="login" if os.getuid() == 0 else "",
        **(usual if os.getuid() == 0 else mine),
    )
    configuration = tmp_path / "dovecot.conf"
    configuration.write_text(written)
    process = subprocess.Popen(["dovecot", "-F", "-c", str(configuration)])
    try:
        until(lambda: _answers(process, port), "Dovecot")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "Dovecot has ended"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as wire:
        return wire.recv(100).startswith(b"+OK")
    return False


if not is_of_2_4():

    def test_mail_is_read_through_dovecot(instance: Instance, dovecot: int) -> None:
        with session(dovecot) as pop3:
            assert the_message(pop3) == HELLO
        with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
            database.execute("INSERT INTO virtual VALUES (?, 'boss', 'example.com')", (IAIN,))
            database.commit()
        with session(dovecot, "boss@example.com") as pop3:
            assert the_message(pop3) == HELLO

    def test_dovecot_tells_refusals_from_failures(instance: Instance, dovecot: int) -> None:
        assert "[AUTH] Authentication failed" in refusal(dovecot, password="wrong")
        assert "[AUTH] Authentication failed" in refusal(dovecot, "nobody@example.com")
        take_database_away(instance)
        assert "[SYS/TEMP] Temporary authentication failure" in refusal(dovecot)

    def test_dovecots_own_tools_find_users(
        dovecot: int, instance: Instance, tmp_path: Path
    ) -> None:
        """The same look-up as dovecot-lda -d makes."""
        assert dovecot
        command = ["doveadm", "-c", str(tmp_path / "dovecot.conf"), "user", IAIN]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        owner = NOBODY if os.getuid() == 0 else os.getuid()
        assert f"uid\t{owner}" in done.stdout, done.stderr
        assert f"home\t{instance.directory}/mail/iain" in done.stdout
        command[-1] = "nobody@example.com"
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "doesn't exist" in done.stdout + done.stderr
