"""Rows that somebody else inserts, and homes that nobody has made: root makes them, where it may.

With real uids, so for root alone.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.household import PASSWORD, Office, helpers, household
from tests.support.instance import Instance, new_instance, until
from tests.support.owner import only_root
from tests.support.serving import deliver, workers

Rows = Sequence[tuple[str, int, str]]
"""Name, uid and home."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """With homes below a directory of root's, and fewer helpers than uids."""
    directory = tmp_path_factory.mktemp("homes") / "instance"
    with new_instance(directory, domains=()) as instance:
        roots = [str(directory / "var")]
        mail = {"home_roots": roots, "helpers": 8, "user": "nobody", "helper_idle": 5}
        (directory / "var" / "mail").mkdir(parents=True)
        with household(instance, {"mail": mail, "server": {"workers": 2}}):
            yield instance


def insert(instance: Instance, rows: Rows) -> None:
    """As a site's own tools do it."""
    with closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.executemany(
            "INSERT INTO mailbox VALUES (?, ?, ?, ?, ?, 'Password')",
            [(f"{name}@example.com", uid, uid, home, PASSWORD) for name, uid, home in rows],
        )
        database.executemany(
            "INSERT INTO virtual VALUES (?, ?, 'example.com')",
            [(f"{name}@example.com", name) for name, _, _ in rows],
        )
        database.commit()


def instruct(instance: Instance, name: str, line: str) -> None:
    with closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.execute(
            "INSERT INTO alias (username, alias, alias_username, alias_host) VALUES (?, '', ?, '')",
            (f"{name}@example.com", line),
        )
        database.commit()


def send(instance: Instance, name: str) -> None:
    assert deliver(instance.smtp_port, f"{name}@example.com").startswith("250 ")


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@only_root
@pytest.mark.parametrize(
    ("name", "home"),
    [("ann", "var/mail/ann"), ("bob", "var/mail/example.com/bob"), ("eve", "mail/e.com/eve")],
)
def test_the_first_delivery(server: Instance, name: str, home: str) -> None:
    """Below mail.home_roots, and below mail.root."""
    uid = 55000 + ord(name[0])
    path = server.directory / home
    insert(server, [(name, uid, str(path))])
    send(server, name)
    until(lambda: len(list(path.glob("Maildir/new/*"))) == 1, "it is there")
    assert owner_and_mode(path) == (uid, uid, 0o700)
    assert path.parent.stat().st_uid == 0
    assert len(server.messages(f"{name}@example.com", PASSWORD)) == 1


@only_root
@pytest.mark.parametrize(
    ("name", "line", "there"), [("mbox", "./Mailbox", "Mailbox"), ("prog", "|cat >x", "x")]
)
def test_other_instructions(server: Instance, name: str, line: str, there: str) -> None:
    uid = 55200 + len(name) + ord(name[0])
    home = server.directory / "var" / "mail" / name
    insert(server, [(name, uid, str(home))])
    instruct(server, name, line)
    send(server, name)
    until(lambda: (home / there).exists() and (home / there).stat().st_size, "it is there")
    assert owner_and_mode(home) == (uid, uid, 0o700)


@only_root
def test_two_accounts_of_one_uid(server: Instance) -> None:
    """The helper is there already when the second home is missing."""
    homes = [server.directory / "var" / "mail" / "shared" / name for name in ("one", "two")]
    insert(server, [(home.name, 55300, str(home)) for home in homes])
    for home in homes:
        send(server, home.name)
        until(lambda home=home: list(home.glob("Maildir/new/*")), "it is there")


@only_root
def test_a_home_elsewhere_waits_and_the_log_says_why(server: Instance) -> None:
    home = server.directory / "elsewhere" / "ian"
    insert(server, [("ian", 55301, str(home))])
    seen = len(server.log())
    send(server, "ian")
    until(lambda: "event=deferred" in server.log()[seen:], "it waits")
    (line,) = [one for one in server.log()[seen:].splitlines() if "event=deferred" in one]
    assert "below none of mail.root and mail.home_roots" in line
    assert not home.parent.exists()


@only_root
@pytest.mark.parametrize("name", ["nobody-has@this.example", "root"])
def test_homes_that_no_account_has(server: Instance, name: str) -> None:
    with Office(min(workers(server, 2))) as office:
        answer = office.ask(home=name)
    assert answer["error"]
    assert answer["descriptors"] == 0


@only_root
def test_many_uids_at_once(server: Instance) -> None:
    """Two hundred of them, eight helpers: some mail waits, and none is lost or doubled."""
    count = 200
    homes = [server.directory / "var" / "mail" / "many" / str(each) for each in range(count)]
    rows = [(f"m{home.name}", 56000 + int(home.name), str(home)) for home in homes]
    insert(server, rows)
    with closing(sqlite3.connect(server.directory / "restante.db")) as database:
        database.executemany(
            "INSERT INTO alias (username, alias, alias_username, alias_host) "
            "VALUES ('alias', 'everybody', ?, 'example.com')",
            [(name,) for name, _, _ in rows],
        )
        database.execute("INSERT INTO virtual VALUES ('everybody', 'all', 'example.com')")
        database.commit()
    send(server, "all")

    def arrived() -> int:
        assert len(helpers(server)) <= 8 + 4, "besides those that make homes"
        server.here("queue", "retry", "--all", check=False)
        return sum(bool(list(home.glob("Maildir/new/*"))) for home in homes)

    there = 0
    while there < count:  # however long a busy machine takes for all of it
        until(lambda there=there: arrived() > there, f"more than {there} have it")
        there = arrived()
    assert {len(list(home.glob("Maildir/new/*"))) for home in homes} == {1}
