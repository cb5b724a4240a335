"""Power cuts while all else is done that promises something.

That is: the queue, the drop directory, mboxes, QUIT after DELE, and changes of SQLite's tables. An
ext4 without a journal is not among the file systems: it keeps no promises about files that grow
(docs/internals.md).
"""

from __future__ import annotations

import asyncio
import mailbox
import os
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from restante.address import Address
from restante.config.tree import Database, Programs
from restante.directory import Account
from restante.directory.admin import Administration
from restante.directory.engine import open_engine
from restante.drop import DropPaths, is_finished
from restante.drop.deposit import Deposit, finish
from restante.drop.record import Recipient, Record
from restante.envelope import memory_content
from restante.mda import MboxDelivery
from restante.mda.acts import Actor
from restante.mda.answers import Policy
from restante.mda.durable import LocalDisk
from restante.queue import Target
from restante.queue.bodies import IN_ROW
from restante.queue.reader import QueueReader
from restante.queue.store import QueueStore
from restante.spool import Spool
from restante.status import Delivered
from restante.store.maildir import MaildirStore
from tests.support.deliveries import GROUP, HOST, OWNER, TRACE, envelope
from tests.support.dropping import read
from tests.support.owner import as_owner, only_root
from tests.support.power import BTRFS, EXT4, XFS, FileSystem
from tests.support.power_cuts import MOST, Turns, Work, cut_while, where_nobody_mounts

CUTS = 60
TASKS = 6
SMALL, LARGE = 2_000, IN_ROW + 2_000
"""Octets of bodies that the queue has in a row, and in a file."""
PLACES = 20
"""Mboxes, Maildirs."""
_LINE = b"%07d power cut\n"


def body(number: int, size: int = SMALL) -> bytes:
    """What the message of a turn says, and no other."""
    line = _LINE % number
    return b"Subject: power\n\n" + line * (size // len(line))


class Queueing:
    """Messages that have to wait, some at a time, in rows and in files."""

    def prepare(self, tree: Path) -> None:
        (tree / "spool").mkdir()

    def do(self, root: Path, turns: Turns) -> None:
        asyncio.run(self._add_all(root, turns))

    async def _add_all(self, root: Path, turns: Turns) -> None:
        store = QueueStore.open(str(root / "queue"), 0)

        async def add() -> None:
            for number in turns:
                with closing(Spool(str(root / "spool"), IN_ROW, 1000)) as spool:
                    await spool.write(body(number, self._size(number)))
                    content = spool.finish(TRACE)
                    await store.add(envelope(number), content, [Target("a@example.org")])
                turns.promise(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(add())
        await store.close()

    def _size(self, number: int) -> int:
        return SMALL if number % 4 else LARGE

    def found(self, root: Path) -> tuple[set[int], int]:
        queue = root / "queue"
        return asyncio.run(self._found(str(queue))) if queue.is_dir() else (set(), 0)

    async def _found(self, queue: str) -> tuple[set[int], int]:
        store = QueueStore.open(queue, 0)
        reader = QueueReader(queue)
        there = {entry.envelope.queue_id for entry in reader.messages()}
        whole = {number for number in range(MOST) if envelope(number).queue_id in there}
        short = 0
        for number in whole:
            content = reader.content(envelope(number).queue_id)
            if content is None or content.read() != TRACE + body(number, self._size(number)):
                short += 1
        await store.close()
        return whole, short


class Dropping:
    """Messages of programs, who may list the drop directory or not."""

    def __init__(self, *, listing: bool) -> None:
        self._listing = listing

    def prepare(self, tree: Path) -> None:
        incoming = DropPaths.of(str(tree)).incoming
        os.makedirs(incoming)
        os.chmod(incoming, 0o1733)

    def do(self, root: Path, turns: Turns) -> None:
        if self._listing:
            self._drop(root, turns)
        else:
            as_owner(lambda: self._drop(root, turns))

    def _drop(self, root: Path, turns: Turns) -> None:
        paths = DropPaths.of(str(root))
        for number in turns:
            record = Record("ann@example.com", (Recipient(f"{number}@example.org"),))
            deposit = Deposit(paths, record)
            deposit.write(body(number))
            finish(paths, [deposit])
            turns.promise(number)

    def found(self, root: Path) -> tuple[set[int], int]:
        whole, short = set[int](), 0
        for path in Path(DropPaths.of(str(root)).incoming).iterdir():
            if is_finished(path.name):
                dropped = read(path)
                number = int(dropped.recipients[0].partition("@")[0])
                whole.add(number)
                short += dropped.content != body(number)
        return whole, short


class Appending:
    """Messages for mboxes, half of which are new."""

    def prepare(self, tree: Path) -> None:
        os.chown(tree, OWNER, GROUP)
        for number in range(0, PLACES, 2):
            path = self._mbox(tree, number).path
            Path(path).write_bytes(b"From x@y Tue Nov 14 22:13:20 2023\nSubject: old\n\nmail\n\n")
            os.chown(path, OWNER, GROUP)

    def do(self, root: Path, turns: Turns) -> None:
        as_owner(lambda: self._append(root, turns))

    def _append(self, root: Path, turns: Turns) -> None:
        acting = Actor(Policy(HOST, 100, 1), Programs(), False, LocalDisk(), os.eventfd(0))
        for number in turns:
            content = memory_content(TRACE, body(number))
            mbox = self._mbox(root, number)
            outcome = acting.append(
                envelope(number), content, mbox, again=False, asked_at=time.monotonic()
            )
            assert isinstance(outcome, Delivered), outcome
            turns.promise(number)

    def _mbox(self, root: Path, number: int) -> MboxDelivery:
        owner = Account("iain", OWNER, GROUP, str(root))
        return MboxDelivery(str(root / f"mbox{number % PLACES}"), owner, ("iain@example.com",))

    def found(self, root: Path) -> tuple[set[int], int]:
        whole, short = set[int](), 0
        for place in range(PLACES):
            path = Path(self._mbox(root, place).path)
            numbers = list(self._whole(path)) if path.exists() else []
            whole |= {number for number in numbers if number is not None}
            short += None in numbers[:-1]  # the last one may break off: a retry replaces it
        return whole, short

    def _whole(self, path: Path) -> Iterator[int | None]:
        with closing(mailbox.mbox(path, create=False)) as messages:
            for message in messages:
                # What had been begun behind the last one may be octets 0 (docs/internals.md).
                text = message.as_bytes().partition(b"\n\n")[2].rstrip(b"\0\n")
                number = re.match(rb"\d{7}", text)
                if number and text + b"\n" == body(int(number[0])).partition(b"\n\n")[2]:
                    yield int(number[0])
                elif message["Subject"] != "old":
                    yield None


class Removing:
    """Messages that POP3 has deleted, which may not come back."""

    def __init__(self) -> None:
        self._next = 0

    def prepare(self, tree: Path) -> None:
        for number in range(MOST):
            path = self._path(tree, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            for part in ("tmp", "cur"):
                (path.parents[1] / part).mkdir(exist_ok=True)
            path.write_bytes(b"A: 1\n\nHello.\n")

    def _home(self, root: Path, number: int) -> Path:
        return root / f"user{number % PLACES}"

    def _path(self, root: Path, number: int) -> Path:
        return self._home(root, number) / "Maildir/new" / f"{1_700_000_000 + number}.{number}"

    def do(self, root: Path, turns: Turns) -> None:
        asyncio.run(self._remove(root, turns))

    async def _remove(self, root: Path, turns: Turns) -> None:
        store = MaildirStore()
        for number in turns:
            self._next = number + 1
            account = Account("iain", os.getuid(), os.getgid(), str(self._home(root, number)))
            with closing(await store.open(account)) as drop:
                await drop.remove([0])
            turns.promise(number)

    def found(self, root: Path) -> tuple[set[int], int]:
        gone = {number for number in range(MOST) if not self._path(root, number).exists()}
        return gone, len(gone - set(range(self._next)))


class Administering:
    """Mailboxes that are added, each by a command of its own."""

    def prepare(self, tree: Path) -> None:
        asyncio.run(self._administer(tree, lambda each: each.create_schema()))
        asyncio.run(self._administer(tree, lambda each: each.add_domain("example.com")))

    def do(self, root: Path, turns: Turns) -> None:
        for number in turns:
            account = Account(f"{number}@example.com", OWNER, GROUP, "/home/iain")
            asyncio.run(self._administer(root, partial(self._add, account)))
            turns.promise(number)

    async def _add(self, account: Account, administration: Administration) -> None:
        address = Address(account.name.partition("@")[0], "example.com")
        await administration.add_mailbox(address, account, "{PLAIN}x", "Password")

    async def _administer(
        self, root: Path, change: Callable[[Administration], Awaitable[None]]
    ) -> None:
        engine = open_engine(Database(f"sqlite:///{root}/restante.db"), "/", create=True)
        await change(Administration(engine))
        await engine.close()

    def found(self, root: Path) -> tuple[set[int], int]:
        with closing(sqlite3.connect(root / "restante.db")) as database:
            (mailboxes, addresses) = (
                {int(name.partition("@")[0]) for (name,) in database.execute(question)}
                for question in ("SELECT username FROM mailbox", "SELECT username FROM virtual")
            )
        return mailboxes, len(mailboxes ^ addresses)


pytestmark = pytest.mark.soak


@only_root
@pytest.mark.parametrize(
    "work",
    [
        Queueing(),
        Dropping(listing=True),
        Dropping(listing=False),
        Appending(),
        Removing(),
        Administering(),
    ],
    ids=["queue", "drop", "drop unlisted", "mbox", "QUIT", "tables"],
)
@pytest.mark.parametrize("system", [EXT4, XFS, BTRFS], ids=str)
def test_power_cuts(system: FileSystem, work: Work) -> None:
    found = where_nobody_mounts(lambda: cut_while(work, system, CUTS, seed=1))
    assert found.whole > 0
    assert found.short == 0
    assert found.lost == 0, found.losses
