"""The accounts that every system has, and where their mail lies.

smtp-source numbers its recipients: before Postfix 3.9 it puts the number before the local part and
begins with 1, since then it puts it behind and begins with 0. Local parts that are nothing but the
number suit both: the names are 0, 1, 2 and so on, all of one domain. (The To fields of the older
ones have no local part then; no system minds.) One more address is an alias of very many.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restante.directory.schema import TABLES
from tests.support.serving import account_ids

DOMAIN = "bench.test"
NUMBERED = f"@{DOMAIN}"
"""What smtp-source puts numbers to."""
PASSWORD = "secret"
LIST = "list"
"""The local part of the alias."""
LISTED = 1000
"""How many of the accounts, from number 1 on, the alias is for."""
_IN_ONE_STATEMENT = 1000

Rows = Mapping[str, Iterable[Sequence[object]]]


@dataclass(frozen=True, slots=True)
class Accounts:
    """So many mailboxes, numbered from 1, and number 0."""

    count: int = 10_000
    password: str = "{PLAIN}" + PASSWORD
    """As stored."""

    def numbers(self) -> range:
        """Of all of them."""
        return recipients(self.count)


def recipients(count: int) -> range:
    """Of the mailboxes among which smtp-source finds so many: it leaves out the first or last."""
    return range(count + 1)


def name_of(number: int) -> str:
    """A mailbox's local part."""
    return str(number)


def address_of(number: int) -> str:
    """A mailbox's address and login."""
    return f"{name_of(number)}@{DOMAIN}"


def maildir_of(mail: Path, number: int) -> Path:
    """Where the mail of a mailbox lies."""
    return mail / DOMAIN / name_of(number) / "Maildir"


def owner() -> tuple[int, int]:
    """The uid and gid that all mail belongs to: nobody's, where root starts the servers."""
    return account_ids()


def restante_rows(accounts: Accounts, mail: Path, uid: int, gid: int) -> Rows:
    """What stands in Restante's tables besides the domain, columns as in TABLES."""
    members = range(1, min(LISTED, accounts.count) + 1)
    entry = f"{LIST}@{DOMAIN}"
    homes = f"{mail}/{DOMAIN}"
    password = (accounts.password, "Password")
    return {
        "mailbox": (
            (address_of(each), uid, gid, f"{homes}/{name_of(each)}", *password)
            for each in accounts.numbers()
        ),
        "virtual": [
            *((address_of(each), name_of(each), DOMAIN) for each in accounts.numbers()),
            (entry, LIST, DOMAIN),
        ],
        "alias": [("alias", entry, name_of(each), DOMAIN) for each in members],
    }


def peer_rows(accounts: Accounts) -> Rows:
    """What stands in the tables of the peers."""
    members = range(1, min(LISTED, accounts.count) + 1)
    return {
        "domains": [(DOMAIN,)],
        "mailboxes": (
            (address_of(each), accounts.password, f"{DOMAIN}/{name_of(each)}/Maildir/")
            for each in accounts.numbers()
        ),
        "aliases": [(f"{LIST}@{DOMAIN}", address_of(each)) for each in members],
    }


PEER_TABLES = """
CREATE TABLE domains (domain VARCHAR(255) NOT NULL PRIMARY KEY);
CREATE TABLE mailboxes (address VARCHAR(320) NOT NULL PRIMARY KEY,
    password VARCHAR(512) NOT NULL, maildir VARCHAR(512) NOT NULL);
CREATE TABLE aliases (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, source VARCHAR(320) NOT NULL,
    destination VARCHAR(320) NOT NULL, KEY (source));
"""
PEER_COLUMNS: Mapping[str, Sequence[str]] = {
    "domains": ("domain",),
    "mailboxes": ("address", "password", "maildir"),
    "aliases": ("source", "destination"),
}


def insertions(rows: Rows, columns: Mapping[str, Sequence[str]] = TABLES) -> Iterator[str]:
    """Statements for MariaDB's command-line client."""
    for table, some in rows.items():
        begin = f"INSERT INTO `{table}` ({', '.join(columns[table])}) VALUES "
        waiting = [f"({', '.join(map(_literal, row))})" for row in some]
        for start in range(0, len(waiting), _IN_ONE_STATEMENT):
            yield begin + ", ".join(waiting[start : start + _IN_ONE_STATEMENT]) + ";\n"


def insert_into_sqlite(path: Path, rows: Rows) -> None:
    """Into Restante's own database."""
    database = sqlite3.connect(path)
    with database:
        for table, some in rows.items():
            marks = ", ".join("?" * len(TABLES[table]))
            columns = ", ".join(TABLES[table])
            statement = f'INSERT INTO "{table}" ({columns}) VALUES ({marks})'
            database.executemany(statement, some)
    database.close()


def make_maildirs(mail: Path, numbers: Iterable[int], owner: tuple[int, int]) -> None:
    """Those that are missing; they belong to ``owner``."""
    for number in numbers:
        maildir = maildir_of(mail, number)
        if not maildir.exists():
            for folder in ("new", "cur", "tmp"):
                os.makedirs(maildir / folder, mode=0o700)
            for path in (maildir.parent, maildir, *maildir.iterdir()):
                os.chown(path, *owner)
    for path in (mail, mail / DOMAIN):
        os.chown(path, *owner)


def empty_maildirs(mail: Path, numbers: Iterable[int]) -> None:
    """No message stays in any of them."""
    for number in numbers:
        for folder in ("new", "cur", "tmp"):
            for entry in os.scandir(maildir_of(mail, number) / folder):
                os.unlink(entry.path)


def stored_sizes(mail: Path, numbers: Iterable[int]) -> list[int]:
    """Octets of each message that is in one of the mailboxes."""
    return [
        entry.stat().st_size
        for number in numbers
        for entry in os.scandir(maildir_of(mail, number) / "new")
    ]


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else "'{}'".format(str(value).replace("'", "''"))
