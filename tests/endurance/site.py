"""The mail host that a campaign works on: accounts, aliases, a far host."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.endurance.clients import Promises, Target
from tests.endurance.ledger import TornError, read_copy
from tests.support.instance import Instance, new_instance
from tests.support.smtp_peer import LOOPBACK, SmtpPeer, smtp_peer

DOMAIN = "example.com"
FAR = "elsewhere.test"
POSTBOX = f"postbox@{DOMAIN}"
"""A mailbox that nobody counts the messages of."""
REFUSED = f"refused@{FAR}"
"""The far host knows nobody of that name."""
OTHER_UID = 54321
"""Whose every second mailbox is, where root runs the server: helpers work for it."""
SETTLE_SECONDS = 180.0
"""How long mail that waits may take to arrive once nobody kills the server."""


@dataclass(frozen=True)
class Site:
    """A server, and what clients may send to."""

    instance: Instance
    targets: list[Target]
    readable: list[str]
    """Mailboxes out of which readers delete."""
    homes: dict[str, Path]
    """The home of every mailbox."""

    def settle(self, promises: Promises) -> None:
        """Wait until all that was to be delivered has been.

        Raises TimeoutError if it is not in time.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.instance.queued() or promises.missing():
            if time.monotonic() > deadline:
                waiting = self.instance.run("queue", "summary").stdout
                raise TimeoutError(f"{waiting}the far host has not got {promises.missing()}")
            self.instance.here("queue", "retry", "--all")
            time.sleep(0.3)

    def harvest(self, promises: Promises) -> None:
        """Take all mail out of all mailboxes; nobody delivers meanwhile."""
        for mailbox, home in self.homes.items():
            promises.ledger.harvest(mailbox, home / "Maildir")


@contextlib.contextmanager
def site(directory: Path, promises: Promises, *, each: int, workers: int) -> Iterator[Site]:
    """``each``: how many addresses of each kind it has."""
    with (
        far_host(promises) as far,
        new_instance(
            directory,
            environ={
                "RESTANTE_SERVER__WORKERS": str(workers),
                "RESTANTE_ROUTING__SMTPROUTES": json.dumps({FAR: f"[{LOOPBACK}]:{far.port}"}),
            },
        ) as instance,
    ):
        yield _furnish(instance, each)


def far_host(promises: Promises) -> contextlib.AbstractContextManager[SmtpPeer]:
    """Takes everything, and notes it."""

    def note(_: str) -> str:
        message = peer.contents.pop()
        peer.commands.clear()
        with promises.lock:
            try:
                promises.arrived.add(read_copy(message).token)
            except TornError as error:
                promises.ledger.torn.append(f"far: {error}")
        return "250 2.0.0 taken"

    def recipient(command: str) -> str:
        return "550 5.1.1 nobody" if REFUSED in command.lower() else "250 2.1.5 ok"

    peer = SmtpPeer(says={"END": note, "RCPT": recipient})
    return smtp_peer(peer)


def _furnish(instance: Instance, each: int) -> Site:
    """By rows that a panel might write."""
    direct = [f"direct{number}@{DOMAIN}" for number in range(each)]
    queued = [f"queued{number}@{DOMAIN}" for number in range(each)]
    members = [f"member{number}@{DOMAIN}" for number in range(5 * each)]
    lists = [f"list{number}@{DOMAIN}" for number in range(each)]
    mixed = [f"mixed{number}@{DOMAIN}" for number in range(each)]
    mailboxes = direct + queued + members
    instance.add_mailbox(mailboxes[0])
    targets: list[Target] = [(address, (address,), False) for address in direct]
    aliases = []
    for number in range(each):
        group = members[5 * number : 5 * number + 5]
        targets.append((lists[number], tuple(group), False))
        aliases += [(lists[number], member) for member in group]
        targets.append((mixed[number], (queued[number],), True))
        aliases += [(mixed[number], queued[number]), (mixed[number], f"far@{FAR}")]
    homes = _write_rows(instance, [*mailboxes, POSTBOX], aliases)
    del homes[POSTBOX]
    return Site(instance, targets, direct + members, homes)


def _write_rows(
    instance: Instance, mailboxes: list[str], aliases: list[tuple[str, str]]
) -> dict[str, Path]:
    homes = {}
    with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        uid, gid = database.execute("SELECT uid, gid FROM mailbox").fetchone()
        database.execute("DELETE FROM mailbox")
        database.execute("DELETE FROM virtual")
        owners = itertools.cycle(
            [(uid, gid), (OTHER_UID, OTHER_UID)] if os.geteuid() == 0 else [(uid, gid)]
        )
        for mailbox, (owner, group) in zip(mailboxes, owners, strict=False):
            name, _, host = mailbox.partition("@")
            homes[mailbox] = home = _homes_of(instance, owner, group) / name
            database.execute(
                "INSERT INTO mailbox (username, uid, gid, home, password, password_type)"
                " VALUES (?, ?, ?, ?, 'secret', 'Password')",
                (mailbox, owner, group, str(home)),
            )
            database.execute("INSERT INTO virtual VALUES (?, ?, ?)", (mailbox, name, host))
        for alias in dict.fromkeys(alias for alias, _ in aliases):
            database.execute("INSERT INTO virtual VALUES (?, ?, ?)", (alias, *alias.split("@")))
        database.executemany(
            "INSERT INTO alias VALUES ('alias', ?, ?, ?)",
            [(alias, *member.split("@")) for alias, member in aliases],
        )
        database.commit()
    return homes


def _homes_of(instance: Instance, uid: int, gid: int) -> Path:
    """A directory of that owner, in which homes can be made."""
    directory = instance.directory / f"homes-{uid}"
    if not directory.is_dir():
        directory.mkdir(mode=0o711)
        os.chown(directory, uid, gid)
    return directory
