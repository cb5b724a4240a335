"""Mboxes and programs of alias rows on a running server: by a helper where root has started it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.household import OWNERS, PASSWORD, add_owner, address_of, home_of
from tests.support.instance import Instance, new_instance, until
from tests.support.report import read_report
from tests.support.serving import configure, deliver, smtp, start

AS_ROOT = os.geteuid() == 0
UID = OWNERS[0] if AS_ROOT else os.geteuid()
GID = UID if AS_ROOT else os.getegid()
USER = address_of(UID)
LOCAL = USER.partition("@")[0]
ROWS = [
    ("box", "./Mailbox"),
    ("run", "|id -u >uid; env >env; cat >got; echo ready"),
    ("closed", "|echo this list is closed; exit 100"),
    ("later", "|exit 111"),
    ("list", "./first"),
    ("list", "|exit 99"),
    ("list", "./second"),
    ("long", "|echo >>begun; exec sleep 1000"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    directory = tmp_path_factory.mktemp("instructions") / "instance"
    with new_instance(directory, domains=()) as instance:
        instance.run("domain", "add", "example.com")
        add_owner(instance, UID, GID)
        with contextlib.closing(sqlite3.connect(directory / "restante.db")) as database:
            database.executemany(
                "INSERT INTO alias (username, alias, alias_username) VALUES (?, ?, ?)",
                [(USER, extension, line) for extension, line in ROWS],
            )
            database.commit()
        sections: dict[str, dict[str, object]] = {
            "server": {"drain_timeout": 1},
            "programs": {"run_as_server_user": not AS_ROOT},
        }
        if AS_ROOT:
            sections["mail"] = {"user": "nobody"}
        configure(instance, sections)
        start(instance)
        yield instance


def send(server: Instance, extension: str) -> None:
    said = deliver(server.smtp_port, f"{LOCAL}+{extension}@example.com")
    assert said.startswith("250 2.0.0 ok "), said


def read(server: Instance, name: str) -> str:
    """A file in the home, once it holds something."""
    path = home_of(server, UID) / name
    until(lambda: path.exists() and path.stat().st_size > 0, name)
    return path.read_text()


def test_an_mbox(server: Instance) -> None:
    send(server, "box")
    text = read(server, "Mailbox")
    assert text.startswith("From me@example.net ")
    assert f"\nDelivered-To: {LOCAL}+box@example.com\n" in text
    assert text.endswith("\nSubject: hello\n\nhello\n\n")
    found = (home_of(server, UID) / "Mailbox").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (UID, 0o600)


def test_a_program(server: Instance) -> None:
    send(server, "run")
    assert read(server, "got").endswith("\nSubject: hello\n\nhello\n")
    assert read(server, "uid") == f"{UID}\n"
    variables = dict(line.split("=", 1) for line in read(server, "env").splitlines() if "=" in line)
    assert variables["RECIPIENT"] == f"{LOCAL}+run@example.com"
    assert (variables["USER"], variables["EXT"]) == (USER, "run")
    assert variables["HOME"] == variables["PWD"] == str(home_of(server, UID))
    until(lambda: "exit 0, it wrote: ready" in server.log(), "its words in the log")


def test_a_program_that_refuses(server: Instance) -> None:
    with smtp(server.smtp_port) as wire:
        assert wire.ask(f"MAIL FROM:<{USER}>").startswith("250 ")
        assert wire.ask(f"RCPT TO:<{LOCAL}+closed@example.com>").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        assert wire.reply().startswith("250 ")
    until(lambda: server.messages(USER, PASSWORD), "the bounce")
    (bounce,) = server.messages(USER, PASSWORD)
    report = read_report(bounce)
    assert "554 5.0.0 this list is closed" in report.text


def test_a_program_that_fails_for_now(server: Instance) -> None:
    send(server, "later")
    until(lambda: "|exit 111: exit 111" in server.log(), "it waits")


def test_what_follows_99_is_left_out(server: Instance) -> None:
    send(server, "list")
    assert read(server, "first")
    until(lambda: "|exit 99: exit 99" in server.log(), "the end of the list")
    assert not (home_of(server, UID) / "second").exists()


def test_a_program_ends_with_the_server_and_runs_again(server: Instance) -> None:
    send(server, "long")
    assert read(server, "begun") == "\n"
    server.stop()
    start(server)
    until(lambda: read(server, "begun") == "\n\n", "it runs again")


def test_the_home_has_nothing_else(server: Instance) -> None:
    """No lock, no temporary file, nothing of other users."""
    known = {"Mailbox", "Maildir", "got", "uid", "env", "first", "begun"}
    home = home_of(server, UID)
    assert set(os.listdir(home)) <= known
    assert {Path(home, name).stat().st_uid for name in os.listdir(home)} == {UID}
