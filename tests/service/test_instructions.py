"""Mboxes and programs of alias rows on a running server, whoever does what they say."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.household import OWNERS, PASSWORD, add_owner, address_of, home_of
from tests.support.instance import Instance, new_instance, until
from tests.support.report import read_report
from tests.support.serving import NOBODY, configure, deliver, is_alive, reload, smtp, start

AS_ROOT = os.geteuid() == 0
OWNERS_OF_MAIL = (
    {"by a helper": OWNERS[0], "by a worker": NOBODY} if AS_ROOT else {"here": os.geteuid()}
)
"""Uids whose mail is delivered, and who does it."""
ROWS = [
    ("box", "./Mailbox"),
    ("run", "|id -u >uid; env >env; cat >got; echo ready"),
    ("closed", "|echo this list is closed; exit 100"),
    ("later", "|exit 111"),
    ("list", "./first"),
    ("list", "|exit 99"),
    ("list", "./second"),
    ("long", "|echo >>begun; exec sleep 1000"),
    ("longer", "|echo $$ >>pids; exec sleep 1000"),
]


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and the account whose mail it delivers."""

    server: Instance
    uid: int

    @property
    def user(self) -> str:
        """The account."""
        return address_of(self.uid)

    @property
    def home(self) -> Path:
        """Its home."""
        return home_of(self.server, self.uid)

    def address(self, extension: str) -> str:
        """One of its addresses."""
        return self.user.replace("@", f"+{extension}@")

    def send(self, extension: str) -> None:
        """Deliver a message to one of its addresses."""
        said = deliver(self.server.smtp_port, self.address(extension))
        assert said.startswith("250 2.0.0 ok "), said

    def read(self, name: str) -> str:
        """A file in the home, once it holds something."""
        path = self.home / name
        until(lambda: path.exists() and path.stat().st_size > 0, name)
        return path.read_text()


@pytest.fixture(scope="module", params=OWNERS_OF_MAIL.values(), ids=list(OWNERS_OF_MAIL))
def site(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("instructions") / "instance"
    with new_instance(directory, domains=()) as instance:
        site = Site(instance, request.param)
        instance.here("domain", "add", "example.com")
        add_owner(instance, site.uid, site.uid if AS_ROOT else os.getegid())
        with contextlib.closing(sqlite3.connect(directory / "restante.db")) as database:
            database.executemany(
                "INSERT INTO alias (username, alias, alias_username) VALUES (?, ?, ?)",
                [(site.user, extension, line) for extension, line in ROWS],
            )
            database.commit()
        sections: dict[str, dict[str, object]] = {
            "server": {"drain_timeout": 1},
            "programs": {"run_as_server_user": site.uid != OWNERS[0]},
        }
        if AS_ROOT:
            sections["server"]["user"] = "nobody"
            sections["mail"] = {"user": "nobody"}
        configure(instance, sections)
        start(instance)
        yield site


def test_an_mbox(site: Site) -> None:
    site.send("box")
    text = site.read("Mailbox")
    assert text.startswith("From me@example.net ")
    assert f"\nDelivered-To: {site.address('box')}\n" in text
    assert text.endswith("\nSubject: hello\n\nhello\n\n")
    found = (site.home / "Mailbox").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (site.uid, 0o600)


def test_a_program(site: Site) -> None:
    site.send("run")
    assert site.read("got").endswith("\nSubject: hello\n\nhello\n")
    assert site.read("uid") == f"{site.uid}\n"
    variables = dict(line.split("=", 1) for line in site.read("env").splitlines() if "=" in line)
    assert variables["RECIPIENT"] == site.address("run")
    assert (variables["USER"], variables["EXT"]) == (site.user, "run")
    assert variables["HOME"] == variables["PWD"] == str(site.home)
    # So that restante-sendmail leaves what it sends with the server that has run it.
    assert variables["RESTANTE_DIR"] == str(site.server.directory)
    until(lambda: "exit 0, it wrote: ready" in site.server.log(), "its words in the log")


def test_a_program_that_refuses(site: Site) -> None:
    with smtp(site.server.smtp_port) as wire:
        assert wire.ask(f"MAIL FROM:<{site.user}>").startswith("250 ")
        assert wire.ask(f"RCPT TO:<{site.address('closed')}>").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        assert wire.reply().startswith("250 ")
    until(lambda: site.server.messages(site.user, PASSWORD), "the bounce")
    (bounce,) = site.server.messages(site.user, PASSWORD)
    report = read_report(bounce)
    assert "554 5.0.0 this list is closed" in report.text


def test_a_program_that_fails_for_now(site: Site) -> None:
    site.send("later")
    until(lambda: "|exit 111: exit 111" in site.server.log(), "it waits")


def test_what_follows_99_is_left_out(site: Site) -> None:
    site.send("list")
    assert site.read("first")
    until(lambda: "|exit 99: exit 99" in site.server.log(), "the end of the list")
    assert not (site.home / "second").exists()


def test_a_program_ends_with_the_server_and_runs_again(site: Site) -> None:
    site.send("long")
    assert site.read("begun") == "\n"
    site.server.stop()
    start(site.server)
    until(lambda: site.read("begun") == "\n\n", "it runs again")


def test_a_program_ends_with_a_reload_and_runs_again(site: Site) -> None:
    site.send("longer")
    (first,) = map(int, site.read("pids").split())
    assert "server_reloaded" in reload(site.server)
    until(lambda: len(site.read("pids").split()) == 2, "it runs again")
    assert not is_alive(first)


def test_the_home_has_nothing_else(site: Site) -> None:
    """No lock, no temporary file, nothing of other users, once what was sent is delivered."""
    home = site.home
    before = os.path.getsize(home / "Mailbox") if (home / "Mailbox").exists() else 0
    site.send("box")
    site.send("run")
    until(lambda: site.read("Mailbox") and os.path.getsize(home / "Mailbox") > before, "the copy")
    assert site.read("uid")
    known = {"Mailbox", "Maildir", "got", "uid", "env", "first", "begun", "pids"}
    until(lambda: set(os.listdir(home)) <= known, "the locks go")
    assert {Path(home, name).stat().st_uid for name in os.listdir(home)} == {site.uid}
