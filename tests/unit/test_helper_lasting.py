"""Requests that take long: a helper says that it is at work, and is given up if it says nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from restante.directory import Account
from restante.helper import NoHelper, Supplied, pool, serving
from restante.helper.pool import Helpers, Link
from restante.helper.store import HelperStore
from restante.helper.wire import HEAD, Kind, head
from restante.helper.writer import HelperWriter
from restante.mda.writer import BatchWriter
from restante.status import Delivered
from restante.store import MaildropUnavailable, files, scan
from restante.store.maildir import MaildirStore
from restante.threads import ThreadPool
from tests.support.deliveries import CONTENT, GROUP, HOST, OWNER, account, delivery, envelope
from tests.support.helpers import HereSupplier
from tests.support.jumping_clock import until

PATIENCE = 1.0


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Link, "request", partialmethod(Link.request, patience=PATIENCE))
    monkeypatch.setattr(pool, "LOOK_INTERVAL", PATIENCE / 20)
    monkeypatch.setattr(serving, "SIGN_OF_LIFE", PATIENCE / 10)


# The helper's side


@pytest.fixture
async def helpers() -> AsyncIterator[Helpers]:
    writer = BatchWriter(HOST, 1, 1)
    helpers = Helpers(HereSupplier(writer), 60.0)
    yield helpers
    await helpers.close()
    await writer.close()


def mailbox(root: Path, name: str) -> Account:
    """Somebody with one message."""
    new = root / name / "Maildir" / "new"
    new.mkdir(parents=True)
    (new / "1700000001.a,S=6,W=7").write_bytes(b"A: 1\n")
    return Account(name, OWNER, GROUP, str(root / name))


class Slow:
    """Something that is done in a thread, and takes as long as the test wants."""

    def __init__(self, place: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go_on = threading.Event()
        self.asked: list[bytes] = []
        self.work = getattr(place, name)
        monkeypatch.setattr(place, name, self)

    def __call__(self, path: bytes, **options: Any) -> object:
        self.asked.append(path)
        if b"/slow/" in path:
            self.may_go_on.wait()
        return self.work(path, **options)


async def test_a_maildrop_that_takes_long_to_read_takes_no_other_from_its_uid(
    helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the first session with thirty thousand messages whose names tell no sizes."""
    slow = Slow(scan, "listing", monkeypatch)
    store = HelperStore(helpers)
    other = await store.open(mailbox(tmp_path, "quick"))
    opening = asyncio.create_task(store.open(mailbox(tmp_path, "slow")))
    try:
        await asyncio.sleep(1.5 * PATIENCE)
        assert not opening.done()
        await other.remove([0])
    finally:
        slow.may_go_on.set()
    assert len((await opening).messages) == 1


async def let_go_of(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel what is under way, as when clients go."""
    await asyncio.sleep(PATIENCE / 10)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_maildrop_that_no_thread_has_begun_to_open_is_not_opened_for_nobody(
    helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system hangs, and clients come again and again."""
    asyncio.get_running_loop().set_default_executor(ThreadPool(1, "files"))
    slow = Slow(scan, "listing", monkeypatch)
    far, near = HelperStore(helpers), MaildirStore()
    quick = mailbox(tmp_path, "quick")
    opening = asyncio.create_task(far.open(mailbox(tmp_path, "slow")))
    try:
        await until(lambda: bool(slow.asked))
        await let_go_of([asyncio.create_task(far.open(quick)) for _ in range(3)])
        await let_go_of([asyncio.create_task(near.open(quick))])
    finally:
        slow.may_go_on.set()
    (await opening).close()
    assert len((await far.open(quick)).messages) == 1
    assert [os.path.dirname(path) for path in slow.asked] == [
        os.fsencode(tmp_path / name) for name in ("slow", "quick")
    ]


async def test_maildrops_that_hang_hold_up_no_deliveries(
    helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_OPENING", 2)
    monkeypatch.setattr(serving, "MAX_REQUESTS", 4)
    slow = Slow(scan, "listing", monkeypatch)
    store = HelperStore(helpers)
    mailboxes = [mailbox(tmp_path, f"slow/{number}") for number in range(6)]
    opening = [asyncio.create_task(store.open(each)) for each in mailboxes]
    one = delivery(tmp_path)
    try:
        await until(lambda: sum(each.done() for each in opening) == 4)
        hanging = [each for each in opening if not each.done()]
        for each in set(opening).difference(hanging):
            assert isinstance(each.exception(), MaildropUnavailable)
        outcome = await HelperWriter(helpers).deliver_all(envelope(), CONTENT, [one])
    finally:
        slow.may_go_on.set()
    assert isinstance(outcome, Delivered), outcome
    assert [len((await each).messages) for each in hanging] == [1, 1]


async def test_deletions_may_take_long(
    helpers: Helpers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(files, "fsync_directory", monkeypatch)
    drop = await HelperStore(helpers).open(mailbox(tmp_path, "slow"))
    removing = asyncio.create_task(drop.remove([0]))
    try:
        await asyncio.sleep(1.5 * PATIENCE)
        assert not removing.done()
    finally:
        slow.may_go_on.set()
    await removing


# The worker's side


class Scripted:
    """A helper that says what the test says."""

    def __init__(self) -> None:
        self.end: socket.socket

    async def supply(self, account: Account) -> Supplied:
        ours, self.end = socket.socketpair()
        return Supplied(ours, OWNER, GROUP)

    def say(self, number: int, kind: int, body: bytes = b"") -> None:
        self.end.sendall(head(number, kind, [body]) + body)


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def link(scripted: Scripted) -> AsyncIterator[Link]:
    helpers = Helpers(scripted, 60.0)
    yield await helpers.link(account("ann"))
    await helpers.close()
    scripted.end.close()


async def ask(link: Link, kind: Kind) -> tuple[int, asyncio.Task[Any]]:
    number = link.next_number()
    asking = asyncio.create_task(link.request(kind, [], number=number))
    await asyncio.sleep(0)
    return number, asking


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.REMOVE])
async def test_signs_of_life_are_waited_for(link: Link, scripted: Scripted, kind: Kind) -> None:
    number, asking = await ask(link, kind)
    for _ in range(6):
        await asyncio.sleep(PATIENCE / 4)
        scripted.say(number, Kind.WORKING)
    scripted.say(number, Kind.DONE)
    assert (await asking).kind == Kind.DONE


async def test_who_gives_none_any_more_is_given_up(link: Link, scripted: Scripted) -> None:
    number, asking = await ask(link, Kind.OPEN)
    scripted.say(number, Kind.WORKING)
    with pytest.raises(NoHelper, match="it does not answer"):
        await asking


async def test_nobody_is_waited_for_without_end(
    link: Link, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that somebody has taken over may give signs of life for ever."""
    monkeypatch.setattr(pool, "MOST_PATIENCE", 2 * PATIENCE)
    number, asking = await ask(link, Kind.OPEN)
    while not asking.done():
        scripted.say(number, Kind.WORKING)
        await asyncio.sleep(PATIENCE / 10)
    with pytest.raises(NoHelper, match="it does not answer"):
        await asking


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        pytest.param(Kind.READ, HEAD.pack(0, 1, Kind.WORKING, 0), id="for what never lasts"),
        pytest.param(Kind.DELIVER, HEAD.pack(0, 1, Kind.WORKING, 0), id="for a delivery"),
        pytest.param(Kind.OPEN, HEAD.pack(1, 1, Kind.WORKING, 0) + b"x", id="with a body"),
        pytest.param(Kind.OPEN, HEAD.pack(0, 2, Kind.WORKING, 0), id="for another request"),
        pytest.param(Kind.OPEN, HEAD.pack(0, 0, Kind.WORKING, 0), id="for none"),
    ],
)
async def test_a_sign_of_life_that_nobody_asked_for_ends_the_connection(
    link: Link, scripted: Scripted, kind: Kind, sign: bytes
) -> None:
    _, asking = await ask(link, kind)
    scripted.end.sendall(sign)
    with pytest.raises(NoHelper):
        await asyncio.wait_for(asking, 10)
    assert not link.is_usable
