"""Programs that have always called /usr/sbin/sendmail call this one, as whatever user they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.dropping import SRC, dropped
from tests.support.instance import PATIENCE, Instance, until
from tests.support.serving import ANN, IAIN, add_accounts, configure, start

pytestmark = pytest.mark.peer

PYTHONS = (sys.executable, "/usr/bin/python3")


DAEMON = 1
"""The uid and gid of a user that every system has; nobody is the server's own."""


def python_of(user: int) -> str:
    """An interpreter that the user may run; empty if there is none."""
    for path in PYTHONS:
        with contextlib.suppress(OSError):
            subprocess.run([path, "-c", ""], user=user, group=user, extra_groups=[], check=True)
            return path
    return ""


FOREIGN = python_of(DAEMON) if os.getuid() == 0 else ""
OTHER = DAEMON if FOREIGN else None
"""A user other than the server's, where the tests may become one."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that other users can reach, as /srv is."""
    directory = Path(tempfile.mkdtemp(prefix="restante-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def instance(place: Path) -> Iterator[Instance]:
    instance = Instance(place / "instance")
    instance.here("init", str(instance.directory))
    add_accounts(instance)
    configure(instance, {"sendmail": {"defaulthost": "example.com"}})
    start(instance)
    yield instance
    instance.stop()


@pytest.fixture(scope="module")
def sendmail(place: Path) -> Path:
    """What /usr/sbin/sendmail is a link to."""
    library = place / "lib"
    shutil.copytree(SRC, library)
    program = place / "sendmail"
    program.write_text(
        f"#!{FOREIGN or sys.executable}\nimport sys\nsys.path.insert(0, {str(library)!r})\n"
        "from restante.sendmail import main\nmain()\n"
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    """The calling user's own directory."""
    directory = Path(tempfile.mkdtemp(dir=place))
    if OTHER is not None:
        os.chown(directory, OTHER, OTHER)
    yield directory
    shutil.rmtree(directory)


def call(instance: Instance, home: Path, *words: str | Path, stdin: bytes = b"") -> str:
    """Run a program as another user; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LOGNAME": "iain",
            "RESTANTE_DIR": str(instance.directory),
        },
        user=OTHER,
        group=OTHER,
        extra_groups=None if OTHER is None else [],
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout!r} {done.stderr!r}"
    return done.stdout.decode()


def received(instance: Instance, login: str) -> EmailMessage:
    """The only message of a mailbox, which is emptied."""
    until(lambda: instance.messages(login), f"a message for {login}")
    session = instance.pop3(login)
    assert session.stat()[0] == 1
    octets = b"\n".join([*session.retr(1)[1], b""])
    session.dele(1)
    session.quit()
    message = message_from_bytes(octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_as_cron_calls_it(instance: Instance, sendmail: Path, home: Path) -> None:
    job = b"From: root (Cron Daemon)\nTo: ann\nSubject: Cron <root@mx> job\n\n10%\r20%\r\ndone\n"
    call(instance, home, sendmail, "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "ann", stdin=job)
    message = received(instance, ANN)
    assert message["To"] == "ann@example.com"
    assert message["Return-Path"] == "<iain@example.com>"
    assert f"(invoked by uid {OTHER if OTHER is not None else os.getuid()})" in message["Received"]
    assert message.get_content() == "10%\n20%\ndone\n"
    assert message["Message-ID"]


def test_php(instance: Instance, sendmail: Path, home: Path) -> None:
    script = (
        f"exit(mail('{ANN}', 'Grüße', \"line 1\\r\\nline 2\\n.\\nend\", "
        f"['From' => 'Shop <shop@example.com>', 'Bcc' => '{IAIN}', 'X-Multi' => 'a'], "
        "'-fiain@example.com') ? 0 : 1);"
    )
    call(instance, home, "php", "-d", f"sendmail_path={sendmail} -t -i", "-r", script)
    for login in (ANN, IAIN):
        message = received(instance, login)
        assert message["From"] == "Shop <shop@example.com>"
        assert message["Bcc"] is None
        assert message["Return-Path"] == f"<{IAIN}>"
        assert message.get_content() == "line 1\nline 2\n.\nend\n"


def test_s_nail(instance: Instance, sendmail: Path, home: Path) -> None:
    call(
        instance, home, "s-nail", "-:/", "-S", "v15-compat", "-S", f"mta={sendmail}",
        "-s", "hello", "-c", IAIN, "-r", "iain@example.com", "ann@example.com", stdin=b"text\n",
    )  # fmt: skip
    for login in (ANN, IAIN):
        message = received(instance, login)
        assert message["Subject"] == "hello"
        assert message.get_content() == "text\n"


def test_mutt(instance: Instance, sendmail: Path, home: Path) -> None:
    (home / "muttrc").write_text(
        f'set sendmail="{sendmail} -oem -oi"\nset copy=no\nset use_envelope_from=yes\n'
        f'set from="iain@example.com"\nset realname="Iain"\n'
    )
    (home / "file").write_bytes(bytes(range(256)))
    call(
        instance, home, "mutt", "-n", "-F", home / "muttrc", "-s", "with a file", "-b", IAIN,
        "-a", home / "file", "--", ANN, stdin="Grüße\n".encode(),
    )  # fmt: skip
    for login in (ANN, IAIN):
        message = received(instance, login)
        assert message["From"] == "Iain <iain@example.com>"
        assert message["Bcc"] is None
        (attachment,) = message.iter_attachments()
        assert attachment.get_content() == bytes(range(256))


def test_git_send_email(instance: Instance, sendmail: Path, home: Path) -> None:
    (home / ".gitconfig").write_text("[user]\n\tname = Iain\n\temail = iain@example.com\n")
    patch = home / "0001-x.patch"
    patch.write_text(
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        "From: Iain <iain@example.com>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
        "Subject: [PATCH] Mend it\n\nText.\n---\n x | 1 +\n"
    )
    call(
        instance, home, "git", "send-email", "--quiet", f"--smtp-server={sendmail}",
        "--from=Iain <iain@example.com>", f"--to=Ann <{ANN}>", "--confirm=never",
        "--suppress-cc=all", patch,
    )  # fmt: skip
    message = received(instance, ANN)
    assert message["Subject"] == "[PATCH] Mend it"
    assert message["To"] == f"Ann <{ANN}>"
    assert message["Return-Path"] == f"<{IAIN}>"


def test_nobody_can_see_or_take_what_others_left(
    instance: Instance, sendmail: Path, home: Path
) -> None:
    if OTHER is None:
        return
    incoming = instance.directory / "drop" / "incoming"
    script = (
        "import os, sys\n"
        f"try: print(os.listdir({str(incoming)!r}))\n"
        "except PermissionError: print('hidden')\n"
    )
    assert call(instance, home, FOREIGN, "-c", script) == "hidden\n"


def test_a_bounce_comes_back(instance: Instance, sendmail: Path, home: Path) -> None:
    call(instance, home, sendmail, "nobody@example.com", stdin=b"Subject: lost\n\n")
    message = received(instance, IAIN)
    assert message.get_content_type() == "multipart/report"
    assert message["Return-Path"] == "<>"


def test_while_the_server_is_down_mail_waits(
    instance: Instance, sendmail: Path, home: Path
) -> None:
    instance.stop()
    for number in range(3):
        call(instance, home, sendmail, "-t", stdin=b"To: ann\nSubject: %d\n\n" % number)
    assert len(dropped(instance.directory)) == 3
    start(instance)
    until(lambda: len(instance.messages(ANN)) == 3, "three messages")
    subjects = {message.split(b"Subject: ")[1][:1] for message in instance.messages(ANN)}
    assert subjects == {b"0", b"1", b"2"}
    assert dropped(instance.directory) == []
