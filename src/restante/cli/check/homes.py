"""What ``check`` says of Maildirs that belong to others, or that their owner cannot reach."""

from __future__ import annotations

import contextlib
import os
import stat
from itertools import islice

from restante.cli.check.findings import MAX_NAMED, Findings
from restante.cli.check.reach import Reach
from restante.directory import Account, BadRow
from restante.directory.engine import Engine
from restante.directory.rows import account_of
from restante.store.lock import LOCK
from restante.store.maildir import MAILDIR

_PARTS = ("tmp", "new", "cur", LOCK)
"""What keeps deliveries or POP3 out where it is somebody else's."""
MAX_HOMES = 1000
"""Homes that are looked into, so that a check of a large database stays short."""
_ACCOUNTS = "SELECT `username`, `uid`, `gid`, `home` FROM `mailbox` LIMIT ?"


async def accounts(engine: Engine, reach: Reach) -> list[Account]:
    """Some whose homes this user may look into; those with bad rows are told of elsewhere.

    No home is among them whose file system does not answer.

    Homes of others are nobody's business but root's. Raises CannotKnow.
    """
    found: list[Account] = []
    for row in await engine.fetch(_ACCOUNTS, (MAX_HOMES,)):
        with contextlib.suppress(BadRow):
            found.append(account_of(row))
    own = [account for account in found if os.geteuid() in (0, account.uid)]
    return [account for account in own if reach.includes(account.home)]


async def examine_homes(engine: Engine, findings: Findings, reach: Reach) -> None:
    """Add Maildirs of other uids, as who restores a backup may leave them, and homes that are
    closed to their owners; raises CannotKnow."""
    found = await accounts(engine, reach)
    wrong = (told for account in found if (told := _foreign(account) or _closed(account)))
    findings.problems += islice(wrong, MAX_NAMED)
    findings.problems += (
        f"the file system at {place} does not answer; nothing is said of the homes on it"
        for place in reach.silent
    )


def _foreign(account: Account) -> str:
    maildir = os.path.join(account.home, MAILDIR)
    for place in (maildir, *(os.path.join(maildir, name) for name in _PARTS)):
        try:
            owner = os.stat(place, follow_symlinks=place == maildir).st_uid
        except OSError:
            continue  # there is none yet, or it is where nobody can look now
        if owner != account.uid:
            owners = f"{account.uid}:{account.gid}"
            return (
                f"the mailbox {account.name}: {place} belongs to uid {owner}, the account's uid "
                f"is {account.uid}; its mail waits; unless the row is wrong, run: "
                f"chown -R --no-dereference {owners} {maildir}"
            )
    return ""


def _closed(account: Account) -> str:
    """As the directory of a domain is that was made with a home, and for that one's uid alone."""
    above = os.path.dirname(os.path.normpath(account.home))
    try:
        found = os.stat(above)
    except OSError:
        return ""
    if found.st_uid == account.uid or stat.S_IMODE(found.st_mode) & 0o077:
        return ""
    return (
        f"the mailbox {account.name}: uid {account.uid} cannot pass {above}; its mail waits; run: "
        f"chmod o+x {above}"
    )
