"""A server of users of the system: mail goes where ``explain`` says it goes, as who owns it."""

from __future__ import annotations

import os
import smtplib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.name_service import with_users

AS_ROOT = os.geteuid() == 0
BOB = 31001 if AS_ROOT else os.geteuid()
ALIAS = 31002 if AS_ROOT else os.geteuid()
GROUP = 31000 if AS_ROOT else os.getegid()
FILES = {
    "bob": {
        ".qmail-box": "./Mbox\n",
        ".qmail-list": "# two\n&bob-box\n./Lists/\n",
        ".qmail-program": '|cat > "$EXT.$LOCAL@$HOST"\n./Programs/\n',
        ".qmail-any-default": '|printf %s "$DEFAULT" > default\n',
        ".qmail-empty": "",
        ".qmail-open": "./Open/\n",
    },
    "alias": {".qmail-info": "bob-any-Info\n", ".qmail-mail:drop": "./Maildir/\n"},
}


@dataclass(frozen=True, slots=True)
class Host:
    """A server, and the homes of its users."""

    instance: Instance
    homes: Path

    def send(self, *recipients: str) -> dict[str, tuple[int, bytes]]:
        """Send a message to each; what was refused."""
        with self.instance.smtp() as client:
            message = f"Subject: for {recipients[0]}\n\nhello\n"
            try:
                return client.sendmail("ann@example.net", list(recipients), message)
            except smtplib.SMTPRecipientsRefused as refused:
                return refused.recipients

    def explain(self, address: str) -> str:
        return self.instance.run("explain", address).stdout

    def arrived(self, user: str, folder: str) -> Path:
        """The message in a Maildir of a user, once it is there."""
        new = self.homes / user / folder / "new"
        until(lambda: new.is_dir() and any(new.iterdir()), f"mail in {new}")
        (message,) = new.iterdir()
        return message


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="restante-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        users = [("bob", BOB, GROUP, f"{root}/bob"), ("alias", ALIAS, GROUP, f"{root}/alias")]
        for name, uid, gid, home in users:
            _make_home(Path(home), FILES[name], uid, gid)
        environ = with_users(root, users) | {
            "RESTANTE_ROUTING__SYSTEM_FILES": "true",
            "RESTANTE_ROUTING__LOCALS": '["example.com"]',
            "RESTANTE_ROUTING__ENVNOATHOST": "example.com",
        }
        with new_instance(root / "instance", environ=environ) as instance:
            instance.start()
            yield Host(instance, root)


def _make_home(home: Path, files: dict[str, str], uid: int, gid: int) -> None:
    home.mkdir(mode=0o755)
    for name, text in files.items():
        (home / name).write_text(text)
        (home / name).chmod(0o666 if name.endswith("-open") else 0o644)
        os.chown(home / name, uid, gid)
    os.chown(home, uid, gid)


def owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def test_a_user_of_the_system(host: Host) -> None:
    assert f"mailbox of bob: {host.homes}/bob/Maildir (uid {BOB}" in host.explain("bob@example.com")

    assert host.send("BOB@example.com") == {}

    message = host.arrived("bob", "Maildir")
    assert owner(message) == (BOB, GROUP)
    assert b"Delivered-To: BOB@example.com\n" in message.read_bytes()


def test_a_list_and_an_mbox(host: Host) -> None:
    told = host.explain("bob-list@example.com")
    assert f"{host.homes}/bob/.qmail-list:2 &bob-box\n" in told
    assert "./Mbox of bob" in told

    assert host.send("bob-list@example.com") == {}

    assert owner(host.arrived("bob", "Lists")) == (BOB, GROUP)
    mbox = host.homes / "bob" / "Mbox"
    until(lambda: mbox.exists() and mbox.read_bytes(), "mail in the mbox")
    assert owner(mbox) == (BOB, GROUP)
    text = mbox.read_bytes()
    assert text.startswith(b"From ann@example.net ")
    assert b"Delivered-To: bob-box@example.com\n" in text
    assert b"Delivered-To: bob-list@example.com\n" in text


def test_a_program(host: Host) -> None:
    assert host.send("bob-program@example.com") == {}

    assert owner(host.arrived("bob", "Programs")) == (BOB, GROUP)
    written = host.homes / "bob" / "program.bob-program@example.com"
    assert owner(written) == (BOB, GROUP)
    assert b"Subject: for bob-program@example.com\n" in written.read_bytes()


def test_the_alias_user(host: Host) -> None:
    assert f"in {host.homes}/alias/.qmail-info" in host.explain("info@example.com")

    assert host.send("info@example.com", "Mail.Drop@example.com") == {}

    assert owner(host.arrived("alias", "Maildir")) == (ALIAS, GROUP)
    written = host.homes / "bob" / "default"
    until(lambda: written.exists() and written.read_text(), "the program's file")
    assert written.read_text() == "Info"


def test_what_is_refused(host: Host) -> None:
    for address, code in (
        ("nobody@example.com", 550),
        ("bob-none@example.com", 550),
        ("root@example.com", 550),
        ("bob-open@example.com", 451),
    ):
        refused = host.send(address)
        assert refused[address][0] == code, address
    assert f"{host.homes}/bob/.qmail-open can be written to by everybody" in (
        host.explain("bob-open@example.com")
    )


def test_check_is_content(host: Host) -> None:
    assert "the user alias" not in host.instance.run("check", check=False).stdout
