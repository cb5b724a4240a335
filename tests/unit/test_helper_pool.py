"""Connections to helpers: opened once, kept, closed, lost; and helpers that misbehave."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from restante import maillog
from restante.directory import Account
from restante.envelope import HeaderFacts
from restante.eventlog import NOWHERE, log
from restante.helper import NoHelper, Supplied, pool, serving, store
from restante.helper.choice import ChoosingWriter, Nearness
from restante.helper.messages import Owner, listing, opened, read_open, write_outcomes
from restante.helper.office import OfficeSupplier
from restante.helper.pool import Helpers
from restante.helper.process import log_by
from restante.helper.store import HelperStore
from restante.helper.wire import HEAD, Frame, Kind, Reader, Writer, head
from restante.helper.writer import HelperWriter
from restante.mda import MboxDelivery, ProgramDelivery
from restante.mda.answers import NOT_NOW
from restante.mda.writer import BatchWriter
from restante.mounts import FarPlaces
from restante.status import Delivered, Outcome, TemporaryFailure
from restante.store import MaildropUnavailable, Messages
from restante.threads import ThreadPool
from tests.support.contents import spooled_content
from tests.support.deliveries import (
    BODY,
    CONTENT,
    GROUP,
    HOST,
    OWNER,
    TRACE,
    account,
    delivery,
    envelope,
    messages,
)
from tests.support.faulty_disk import FaultyDisk
from tests.support.helpers import FarWriter, HereSupplier
from tests.support.instance import PATIENCE

ANN = account("ann")


class Scripted:
    """A supplier whose helper is the test itself."""

    def __init__(self, uid: int = OWNER, gid: int = GROUP) -> None:
        self.ids = (uid, gid)
        self.ends: list[socket.socket] = []

    async def supply(self, account: Account) -> Supplied:
        ours, its = socket.socketpair()
        its.setblocking(False)
        self.ends.append(its)
        return Supplied(ours, *self.ids)

    async def hear(self, end: int = -1) -> Frame:
        """The next request."""
        loop = asyncio.get_running_loop()
        octets = await loop.sock_recv(self.ends[end], 100_000)
        length, number, kind, _ = HEAD.unpack_from(octets)
        return Frame(number, kind, octets[HEAD.size : HEAD.size + length])

    async def say(self, number: int, kind: int, body: bytes = b"", end: int = -1) -> None:
        frame = head(number, kind, [body]) + body
        await asyncio.get_running_loop().sock_sendall(self.ends[end], frame)


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn."""
    while not is_so():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


def text(value: str) -> bytes:
    out = Writer()
    out.text(value, 1000)
    return out.octets()


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    supplier = Scripted()
    yield supplier
    for end in supplier.ends:
        end.close()


@pytest.fixture
async def helpers(scripted: Scripted) -> AsyncIterator[Helpers]:
    helpers = Helpers(scripted, 60.0)
    yield helpers
    await helpers.close()


# Opening


async def test_many_at_once_share_one_connection(helpers: Helpers, scripted: Scripted) -> None:
    links = await asyncio.gather(*(helpers.link(ANN) for _ in range(10)))
    assert len(set(links)) == len(scripted.ends) == 1
    assert await helpers.link(account("bob")) is links[0]


@pytest.mark.parametrize("ids", [(OWNER + 1, GROUP), (OWNER, GROUP + 1)])
async def test_a_row_that_changed_meanwhile(ids: tuple[int, int]) -> None:
    supplier = Scripted(*ids)
    with pytest.raises(NoHelper, match=rf"ann was looked up with uid {OWNER} .* has {ids[0]} and"):
        await Helpers(supplier, 60.0).link(ANN)
    assert supplier.ends[0].recv(10) == b""
    supplier.ends[0].close()


async def test_no_helper_to_be_had(tmp_path: Path) -> None:
    supplier = HereSupplier(BatchWriter(HOST, 1, 1))
    supplier.refuses = "there is none"
    helpers = Helpers(supplier, 60.0)
    outcome = await HelperWriter(helpers).deliver_all(envelope(), CONTENT, [delivery(tmp_path)])
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.detail == "there is none"
    with pytest.raises(MaildropUnavailable, match="there is none"):
        await HelperStore(helpers).open(ANN)
    await helpers.close()


class Desk:
    """The supervisor's answers, by the kind of wish."""

    def __init__(self, **answers: tuple[int, int] | str) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.ends: list[socket.socket] = []

    async def ask(self, kind: str, name: str) -> tuple[dict[str, object], list[int]]:
        self.asked.append((kind, name))
        answer = self.answers[kind]
        if isinstance(answer, str):
            raise NoHelper(answer)
        ours, its = socket.socketpair()
        self.ends.append(its)
        return {"uid": answer[0], "gid": answer[1]}, [ours.detach()]


async def test_rows_come_before_users_of_the_system() -> None:
    desk = Desk(helper=(OWNER, GROUP))
    (await OfficeSupplier(desk).supply(ANN)).connection.close()
    assert desk.asked == [("helper", "ann")]
    desk.ends[0].close()
    for first in ("no such account", (1, 1)):
        desk = Desk(helper=first, system=(OWNER, GROUP))
        supplied = await OfficeSupplier(desk).supply(ANN)
        assert (supplied.uid, supplied.gid) == (OWNER, GROUP)
        supplied.connection.close()
        for end in desk.ends:
            assert end.recv(10) == b""
            end.close()
    desk = Desk(helper="no such account", system="no such user")
    with pytest.raises(NoHelper, match="ann: no such account; no such user"):
        await OfficeSupplier(desk).supply(ANN)


# The end of a connection


async def test_an_unused_connection_is_closed() -> None:
    supplier = Scripted()
    helpers = Helpers(supplier, 0.02)
    link = await helpers.link(ANN)
    work = asyncio.create_task(link.request(Kind.READ, []))
    number = (await supplier.hear()).number
    await asyncio.sleep(0.1)
    await supplier.say(number, Kind.DONE)
    assert (await work).kind == Kind.DONE
    assert await asyncio.get_running_loop().sock_recv(supplier.ends[0], 10) == b""
    supplier.ends[0].close()


async def test_a_connection_that_is_asked_back(helpers: Helpers, scripted: Scripted) -> None:
    first = await helpers.link(ANN)
    work = asyncio.create_task(first.request(Kind.READ, []))
    number = (await scripted.hear()).number
    await scripted.say(0, Kind.GOODBYE)
    await until(lambda: not first.is_usable)
    second = await helpers.link(ANN)
    assert second is not first
    await scripted.say(number, Kind.DONE, end=0)
    assert (await work).kind == Kind.DONE
    assert await asyncio.get_running_loop().sock_recv(scripted.ends[0], 10) == b""
    assert await helpers.link(ANN) is second


async def test_a_lost_connection_is_opened_anew(helpers: Helpers, scripted: Scripted) -> None:
    link = await helpers.link(ANN)
    work = asyncio.create_task(link.request(Kind.READ, []))
    await scripted.hear()
    await scripted.say(0, Kind.REFUSED, text("all of them are busy"))
    scripted.ends[0].close()
    with pytest.raises(NoHelper, match=f"helper of uid {OWNER}: all of them are busy"):
        await work
    with pytest.raises(NoHelper):
        await link.request(Kind.READ, [], os.dup(0))
    assert await helpers.link(ANN) is not link


@pytest.mark.parametrize(
    "rubbish",
    [
        HEAD.pack(2**31, 1, Kind.DONE, 0),
        HEAD.pack(0, 77, Kind.DONE, 0),
        HEAD.pack(0, 0, Kind.DONE, 0),
        HEAD.pack(0, 1, Kind.LISTING, 0),
        HEAD.pack(0, 0, Kind.REFUSED, 0),
        HEAD.pack(0, 1, Kind.DONE, 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
async def test_a_helper_that_misbehaves(
    helpers: Helpers, scripted: Scripted, rubbish: bytes
) -> None:
    link = await helpers.link(ANN)
    work = asyncio.create_task(link.request(Kind.READ, []))
    await scripted.hear()
    await asyncio.get_running_loop().sock_sendall(scripted.ends[0], rubbish)
    with pytest.raises(NoHelper):
        await work


async def test_descriptors_of_a_helper_are_not_taken(helpers: Helpers, scripted: Scripted) -> None:
    before = len(os.listdir("/proc/self/fd"))
    link = await helpers.link(ANN)
    work = asyncio.create_task(link.request(Kind.READ, []))
    number = (await scripted.hear()).number
    socket.send_fds(scripted.ends[0], [head(number, Kind.DONE, [])], [0, 0])
    assert (await work).kind == Kind.DONE
    assert len(os.listdir("/proc/self/fd")) == before + 2


async def test_a_helper_that_does_not_answer(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LOOK_INTERVAL", 0.01)
    helpers = Helpers(scripted, 60.0)
    link = await helpers.link(ANN)
    with pytest.raises(NoHelper, match="it does not answer"):
        await link.request(Kind.READ, [], patience=0.05)
    with pytest.raises(NoHelper, match="has not answered lately"):
        await helpers.link(ANN)
    await helpers.close()


async def test_a_request_that_is_not_answered_in_time_is_given_up_alone(
    helpers: Helpers, scripted: Scripted
) -> None:
    """A helper that says anything is at work: others' requests and maildrops stay."""
    link = await helpers.link(ANN)
    late = asyncio.create_task(link.request(Kind.READ, [], patience=0.0))
    number = (await scripted.hear()).number
    await asyncio.sleep(0.01)  # for the loop's clock
    other = asyncio.create_task(link.request(Kind.READ, []))
    last = asyncio.create_task(link.request(Kind.READ, []))
    await scripted.hear()
    await scripted.say(number + 1, Kind.DONE)
    await other
    assert not link.give_up_if_late()
    with pytest.raises(NoHelper, match="does not answer this request"):
        await late
    await scripted.say(number, Kind.DONE)
    await scripted.say(number + 2, Kind.DONE)
    assert (await last).kind == Kind.DONE
    assert await helpers.link(ANN) is link


async def test_a_maildrop_that_is_not_opened_in_time_is_given_back(
    helpers: Helpers, scripted: Scripted
) -> None:
    opening = asyncio.create_task(HelperStore(helpers).open(ANN))
    await until(lambda: bool(scripted.ends))
    number = (await scripted.hear()).number
    link = await helpers.link(ANN)
    await scripted.say(number, Kind.FAILED, b"")
    with pytest.raises(MaildropUnavailable):
        await opening
    async with asyncio.timeout(PATIENCE):
        assert (await scripted.hear()).kind == Kind.CLOSE
    assert link.is_unused


async def test_answers_that_never_come_are_not_waited_for_without_end(
    helpers: Helpers, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_GIVEN_UP", 0)
    link = await helpers.link(ANN)
    late = asyncio.create_task(link.request(Kind.READ, [], patience=0.0))
    await scripted.hear()
    await asyncio.sleep(0.01)  # for the loop's clock
    other = asyncio.create_task(link.request(Kind.READ, []))
    await scripted.hear()
    await scripted.say(2, Kind.DONE)
    await other
    assert link.give_up_if_late()
    with pytest.raises(NoHelper):
        await late


async def test_lines_of_a_helper_are_logged(
    helpers: Helpers, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(maillog, "helper_remark", lambda uid, text: said.append((uid, text)))
    await helpers.link(ANN)
    await scripted.say(0, Kind.REMARK, text("something is wrong"))
    await until(lambda: bool(said))
    assert said == [(OWNER, "something is wrong")]


async def test_lines_without_end_are_counted(
    helpers: Helpers, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(maillog, "helper_remark", lambda _uid, text: said.append(text))
    link = await helpers.link(ANN)
    for _ in range(pool.MOST_REMARKS + 1000):
        await scripted.say(0, Kind.REMARK, text("x"))
    await scripted.say(0, Kind.GOODBYE)
    await until(lambda: not link.is_usable)
    assert said == ["x"] * pool.MOST_REMARKS + ["1000 lines were left out"]


# Deliveries


async def test_the_descriptors_of_bodies_are_closed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(BODY * 50_000)
    content = spooled_content(TRACE, str(spool), 150_000, HeaderFacts())
    writer = FarWriter(BatchWriter(HOST, 1, 1))
    one = delivery(tmp_path)
    assert isinstance(await writer.deliver_all(envelope(), content, [one]), Delivered)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        await writer.deliver_all(envelope(number), content, [one])
    assert len(os.listdir("/proc/self/fd")) == before
    await writer.close()


async def test_a_lost_answer_makes_the_next_attempt_look(tmp_path: Path) -> None:
    """Whether the caller knows that there was an attempt, or not."""
    writer = FarWriter(BatchWriter(HOST, 1, 1))
    one = delivery(tmp_path)
    assert isinstance(await writer.near.deliver_all(envelope(), CONTENT, [one]), Delivered)
    link = await writer.helpers.link(one.account)
    work = asyncio.create_task(writer.deliver_each(envelope(), CONTENT, [one], again=False))
    await asyncio.sleep(0)
    link.close()
    assert isinstance((await work)[0], TemporaryFailure)
    outcomes = await writer.deliver_each(envelope(), CONTENT, [one], again=False)
    assert isinstance(outcomes[0], Delivered)
    assert len(messages(one)) == 1
    await writer.close()


async def test_what_may_be_delivered_is_not_withdrawn(
    helpers: Helpers, scripted: Scripted, tmp_path: Path
) -> None:
    """A helper that hangs would do it when the next attempt has found what was delivered."""
    writer = HelperWriter(helpers)
    work = asyncio.create_task(writer.deliver_all(envelope(), CONTENT, [delivery(tmp_path)]))
    await until(lambda: bool(scripted.ends))
    assert (await scripted.hear()).kind == Kind.DELIVER
    scripted.ends[0].close()
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await work, TemporaryFailure)
    assert len(scripted.ends) == 1


async def test_a_withdrawal_has_its_turn_among_deliveries(tmp_path: Path) -> None:
    """However many maildrops hang: what is delivered after it stays."""
    loop, may_go_on = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPool(1, "files"))
    loop.run_in_executor(None, may_go_on.wait)
    writer = BatchWriter(HOST, 1, 1)
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    withdrawing = asyncio.create_task(writer.withdraw(envelope(), CONTENT, [one]))
    await asyncio.sleep(0)
    (outcome,) = await writer.deliver_each(envelope(), CONTENT, [one], again=True)
    assert isinstance(outcome, Delivered)
    may_go_on.set()
    await withdrawing
    assert len(messages(one)) == 1
    await writer.close()


async def test_after_a_withdrawal_the_next_attempt_looks(
    helpers: Helpers, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail program may have moved it from ``new`` to ``cur``, where no withdrawal finds it."""
    monkeypatch.setattr(helpers, "place_of", lambda who: (Owner(who.uid, who.gid), who.name))
    writer = HelperWriter(helpers)
    both = [delivery(tmp_path, name) for name in ("iain", "paul")]
    work = asyncio.create_task(writer.deliver_all(envelope(), CONTENT, both))
    await until(lambda: len(scripted.ends) == len(both))
    outcomes: list[Outcome] = [Delivered("new/x"), TemporaryFailure(NOT_NOW)]
    for end, outcome in enumerate(outcomes):
        out = Writer()
        write_outcomes(out, [outcome])
        await scripted.say((await scripted.hear(end)).number, Kind.OUTCOMES, out.octets(), end)
    asked = await scripted.hear(0)
    assert asked.kind == Kind.WITHDRAW
    await scripted.say(asked.number, Kind.DONE, end=0)
    assert await work == outcomes[1]
    again = asyncio.create_task(writer.deliver_each(envelope(), CONTENT, both, again=False))
    for end in range(len(both)):
        fields = Reader((await scripted.hear(end)).body)
        together, looks = fields.flag(), fields.flag()
        assert (together, looks) == (False, True)
    await helpers.close()
    await again


async def test_what_hangs_takes_no_other_work_from_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands and mboxes of one uid may be those of thousands of mailboxes."""
    monkeypatch.setattr(serving, "TURN", 0.05)
    writer = FarWriter(BatchWriter(HOST, 1, 1))
    none = asyncio.Semaphore(0)
    writer.supplier.tools = replace(writer.supplier.tools, programs=none, appends=none)
    one = delivery(tmp_path)
    command = ProgramDelivery("true", one.account, one.delivered_to, "iain")
    mbox = MboxDelivery(str(tmp_path / "mbox"), one.account, one.delivered_to)
    for outcome in (
        (await writer.run(envelope(), CONTENT, command)).outcome,
        await writer.append(envelope(), CONTENT, mbox, again=False),
    ):
        assert isinstance(outcome, TemporaryFailure)
        assert "have taken all places" in outcome.detail
    (outcome,) = await writer.deliver_each(envelope(), CONTENT, [one], again=False)
    assert isinstance(outcome, Delivered)
    assert len(writer.supplier.serving) == 1, "by the connection that there was"
    await writer.close()


class ByName(Nearness):
    """The accounts of here-… are near."""

    def of(self, account: Account) -> bool:
        return account.name.startswith("here")


def test_who_is_near(tmp_path: Path) -> None:
    """An own account whose home is on a file system that may hang is not."""
    table = tmp_path / "mounts"
    table.write_text("/dev/sda1 / ext4 rw 0 0\nserver:/mail /srv/mail nfs4 rw,hard 0 0\n")
    nearness = Nearness(FarPlaces(str(table)))
    own = Account("iain", os.geteuid(), os.getegid(), "/home/iain")
    assert nearness.of(own)
    assert not nearness.of(replace(own, home="/srv/mail/iain"))
    assert not nearness.of(replace(own, uid=own.uid + 1))


@pytest.mark.parametrize("failing", ["", "/here1/", "/there1/"])
async def test_all_or_none_of_what_is_here_and_there(tmp_path: Path, failing: str) -> None:
    here, there = FaultyDisk(), FaultyDisk()
    near, far = BatchWriter(HOST, 1, 1, here), FarWriter(BatchWriter(HOST, 1, 1, there))
    writer = ChoosingWriter(near, far, ByName(FarPlaces()))
    those = [delivery(tmp_path, name) for name in ("here1", "there1", "here2", "there2")]
    for disk in (here, there):
        disk.faults["write"] = lambda path: errno.ENOSPC if failing and failing in path else 0
    outcome = await writer.deliver_all(envelope(), CONTENT, those)
    if failing:
        assert isinstance(outcome, TemporaryFailure)
        assert all(messages(each) == messages(each, "tmp") == {} for each in those)
    else:
        assert outcome == Delivered("4 mailboxes")
        assert all(len(messages(each)) == 1 for each in those)
    outcomes = await writer.deliver_each(envelope(1), CONTENT, those, again=False)
    assert [isinstance(each, Delivered) for each in outcomes] == [
        not failing or failing not in each.maildir for each in those
    ]
    await writer.close()


@pytest.mark.parametrize(("failing", "read"), [("here", "there"), ("there", "here")])
async def test_what_was_read_before_it_could_be_withdrawn_is_not_delivered_again(
    tmp_path: Path, failing: str, read: str
) -> None:
    """A mail program moves it from ``new`` to ``cur`` while the other mailbox fails."""
    disk = FaultyDisk()
    near, far = BatchWriter(HOST, 1, 1, disk), FarWriter(BatchWriter(HOST, 1, 1, disk))
    writer = ChoosingWriter(near, far, ByName(FarPlaces()))
    fails, reads = delivery(tmp_path, failing), delivery(tmp_path, read)

    def fail_when_it_was_read(path: str) -> int:
        if f"/{failing}/" not in path:
            return 0
        for _ in range(1000):
            time.sleep(0.01)
            for name in messages(reads):
                os.rename(f"{reads.maildir}/new/{name}", f"{reads.maildir}/cur/{name}:2,S")
                return errno.ENOSPC
        return errno.EIO

    disk.faults["write"] = fail_when_it_was_read
    outcome = await writer.deliver_all(envelope(), CONTENT, [fails, reads])
    assert isinstance(outcome, TemporaryFailure)
    disk.faults.clear()
    outcomes = await writer.deliver_each(envelope(), CONTENT, [fails, reads], again=False)
    assert all(isinstance(each, Delivered) for each in outcomes)
    assert len(messages(fails)) == 1
    assert (len(messages(reads)), len(messages(reads, "cur"))) == (0, 1)
    await writer.close()


# Maildrops


async def test_an_open_that_is_cancelled_is_closed(helpers: Helpers, scripted: Scripted) -> None:
    opening = asyncio.create_task(HelperStore(helpers).open(ANN))
    asked = None
    while asked is None:
        await asyncio.sleep(0)
        if scripted.ends:
            asked = await scripted.hear()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    closing = await scripted.hear()
    assert closing.kind == Kind.CLOSE
    assert int.from_bytes(closing.body, "big") == asked.number


async def test_a_listing_without_end(
    helpers: Helpers, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_MESSAGES", 3)
    opening = asyncio.create_task(HelperStore(helpers).open(ANN))
    await until(lambda: bool(scripted.ends))
    number = (await scripted.hear()).number
    ((part, _),) = listing(Messages([b"a"] * 2, [1] * 2))
    for _ in range(2):
        await scripted.say(number, Kind.LISTING, part)
    with pytest.raises(MaildropUnavailable):
        await opening


async def test_a_listing_belongs_to_its_home(helpers: Helpers, scripted: Scripted) -> None:
    """A worker names what it has to those alone who told it."""
    mails = HelperStore(helpers)

    async def open_as(who: Account, answer: Kind, body: bytes = b"") -> tuple[bytes, list[bytes]]:
        opening = asyncio.create_task(mails.open(who))
        await until(lambda: opening.done() or bool(scripted.ends))
        asked = await scripted.hear()
        await scripted.say(asked.number, answer, body)
        drop = await opening
        drop.close()
        assert (await scripted.hear()).kind == Kind.CLOSE
        _, version = read_open(Reader(asked.body), Owner(who.uid, who.gid))
        return version, list(drop.messages.uids)

    ((part, _),) = listing(Messages([b"a"], [1]))
    ((other, _),) = listing(Messages([b"b"], [1]))
    assert await open_as(ANN, Kind.OPENED, opened(b"one") + part) == (b"", [b"a"])
    bob = replace(ANN, home="/home/of/another")
    assert await open_as(bob, Kind.OPENED, opened(b"one") + other) == (b"", [b"b"])
    assert await open_as(ANN, Kind.UNCHANGED) == (b"one", [b"a"])
    assert await open_as(bob, Kind.UNCHANGED) == (b"one", [b"b"])
    assert await open_as(ANN, Kind.OPENED, opened(b"") + other) == (b"one", [b"b"])
    assert await open_as(ANN, Kind.OPENED, opened(b"two") + part) == (b"", [b"a"])
    await helpers.close()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(Kind.UNCHANGED, b"", id="nobody knows what is unchanged"),
        pytest.param(Kind.OPENED, b"", id="no listing"),
        pytest.param(Kind.OPENED, opened(b"") + b"\0\0\0\1", id="half a listing"),
        pytest.param(Kind.DONE, b"", id="another answer"),
    ],
)
async def test_what_is_opened_with_a_bad_answer_is_closed(
    helpers: Helpers, scripted: Scripted, kind: Kind, body: bytes
) -> None:
    """Its lock would be held for as long as others of the uid use the connection."""
    opening = asyncio.create_task(HelperStore(helpers).open(ANN))
    await until(lambda: bool(scripted.ends))
    number = (await scripted.hear()).number
    await scripted.say(number, kind, body)
    with pytest.raises(MaildropUnavailable):
        await opening
    told = await asyncio.wait_for(scripted.hear(), 10)
    assert (told.kind, Reader(told.body).count(number)) == (Kind.CLOSE, number)
    assert not helpers._links[Owner(ANN.uid, ANN.gid), ""].drops


async def test_a_drop_outlives_nothing_of_its_helper(helpers: Helpers, scripted: Scripted) -> None:
    opening = asyncio.create_task(HelperStore(helpers).open(ANN))
    await until(lambda: bool(scripted.ends))
    ((part, _),) = listing(Messages([b"a"], [1]))
    await scripted.say((await scripted.hear()).number, Kind.OPENED, opened(b"") + part)
    drop = await opening
    scripted.ends[0].close()
    with pytest.raises(MaildropUnavailable):
        await drop.remove([0])
    drop.close()


async def test_bugs_in_a_helper_are_told_to_a_worker() -> None:
    said: list[str] = []
    log_by(asyncio.get_running_loop(), said.append)
    try:
        await asyncio.to_thread(maillog.unplanned, "mailbox writer", ZeroDivisionError("why"))
        await until(lambda: bool(said))
    finally:
        log.destination = NOWHERE
    assert "where=mailbox writer" in said[0]
    assert "ZeroDivisionError: why" in said[0]
