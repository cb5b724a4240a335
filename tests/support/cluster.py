"""Three machines that are one mail host: a Restante and a node of the database on each.

Any of them takes mail for anyone and serves anyone's POP3, from Maildirs on a directory that
all of them see, as they would see one of NFS or CephFS.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.galera import DATABASE, GaleraNode, galera, mail_url
from tests.support.instance import Instance, until
from tests.support.machines import Machine, Machines, machines

SMTP = 25
POP3 = 110
USERS = tuple(f"user{number}@example.com" for number in range(4))
PASSWORD = "secret"
MIXED = "mixed@example.com"
"""An alias of the first user and an address elsewhere: always travels through the queue."""
ELSEWHERE = "far@elsewhere.test"
OWNED = "username, virtual_username, virtual_host"
FORWARDED = "username, alias, alias_username, alias_host"
NOBODY = 65534
"""Whose the mail is, and the workers are."""


@dataclass
class Node:
    """One machine."""

    machine: Machine
    database: GaleraNode
    instance: Instance
    life: int = 0
    """How often it was killed."""

    def kill(self) -> None:
        """SIGKILL for all that runs on it."""
        self.life += 1
        self.instance.kill()
        self.database.kill()

    def start(self) -> None:
        """Bring it back."""
        self.database.join()
        self.instance.start()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a restante command says there."""
        return subprocess.run(
            [
                *self.machine.entrance,
                *(sys.executable, "-m", "restante", "--dir", str(self.instance.directory)),
                *arguments,
            ],
            env=os.environ | self.instance.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def has_settled(self) -> bool:
        """Whether nothing waits in its queue but what is for elsewhere; tries what waits."""
        waiting = [
            recipient["address"]
            for message in json.loads(self.command("queue", "list", "--json").stdout)
            for recipient in message["recipients"]
            if recipient["state"] == "waiting" and recipient["address"] != ELSEWHERE
        ]
        if waiting:
            self.command("queue", "retry", "--all")
        return not waiting


@dataclass(frozen=True)
class Cluster:
    """All of them, and the network between them."""

    network: Machines
    nodes: tuple[Node, ...]
    mail: Path
    """The directory that all machines see."""

    def maildir(self, user: str) -> Path:
        """Where a user's mail lies."""
        return Path(home_of(self.mail, user)) / "Maildir"


def home_of(mail: Path, user: str) -> str:
    """A user's home."""
    name, _, domain = user.partition("@")
    return str(mail / domain / name)


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster that serves; when the block ends, nothing of it is left."""
    mail = directory / "mail"
    (mail / "example.com").mkdir(parents=True)
    for path in (mail, mail / "example.com"):
        os.chown(path, NOBODY, NOBODY)
    with machines(3) as network, galera(network.all) as databases, contextlib.ExitStack() as stack:
        nodes = []
        for machine, database in zip(network.all, databases, strict=True):
            node = Node(machine, database, _instance(directory, machine, mail))
            nodes.append(node)
            stack.callback(node.instance.kill)
            _initialise(node, network.all)
        databases[0].sql(_rows(mail), DATABASE)
        for node in nodes:
            until(lambda node=node: _has_rows(node), "the rows are everywhere")
            node.instance.start()
        yield Cluster(network, tuple(nodes), mail)


def _instance(directory: Path, machine: Machine, mail: Path) -> Instance:
    where = directory / f"machine{machine.number}"
    environ = {
        "RESTANTE_MAIL__ROOT": str(mail),
        "RESTANTE_AUTH__PLAINTEXT": "always",
        "RESTANTE_AUTH__REFUSAL_DELAY": "0.1",
        "RESTANTE_RELAY__NAMESERVERS": '["127.0.0.1:1"]',
    }
    return Instance(where, environ, machine.entrance)


def _initialise(node: Node, members: Sequence[Machine]) -> None:
    """All have the same host name, which is no good idea, and does no harm.

    Each asks its own node of the database first, and the others where that one is not well.
    """
    addresses = [node.machine.back, *(each.back for each in members if each != node.machine)]
    front = node.machine.front
    listeners = ("--smtp", f"{front}:{SMTP}", "--pop3", f"{front}:{POP3}")
    host = ("--host", "mx.example.com", "--database", mail_url(*addresses))
    done = node.command("init", str(node.instance.directory), *host, *listeners)
    assert done.returncode == 0, done.stderr


def _rows(mail: Path) -> str:
    """Clear text, so that logins cost nothing: what is tested are not passwords."""
    local, _, domain = MIXED.partition("@")
    first = USERS[0].partition("@")[0]
    far, _, elsewhere = ELSEWHERE.partition("@")
    rows = [_row("rcpthosts", "host", domain)]
    for user in USERS:
        account = (user, NOBODY, NOBODY, home_of(mail, user), PASSWORD, "Password")
        rows.append(_row("mailbox", "username, uid, gid, home, password, password_type", *account))
        rows.append(_row("virtual", OWNED, user, user.partition("@")[0], domain))
    rows.append(_row("virtual", OWNED, MIXED, local, domain))
    rows.append(_row("alias", FORWARDED, "alias", MIXED, first, domain))
    rows.append(_row("alias", FORWARDED, "alias", MIXED, far, elsewhere))
    return "".join(rows)


def _row(table: str, columns: str, *values: object) -> str:
    return f"INSERT INTO `{table}` ({columns}) VALUES ({', '.join(map(repr, values))});\n"


def _has_rows(node: Node) -> bool:
    return node.database.sql("SELECT COUNT(*) FROM alias", DATABASE).strip() == "2"
