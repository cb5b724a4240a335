"""The contract of MailboxWriter, on the real disk."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH
from restante.envelope import Envelope, HeaderFacts, memory_content
from restante.mda import Delivery, MailboxWriter, batch, ext4, maildir
from restante.mda.batch import MANY
from restante.mda.writer import QUICK, BatchWriter
from restante.status import Delivered, PermanentFailure, TemporaryFailure
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
    expected,
    messages,
    settle,
)
from tests.support.faulty_disk import FaultyDisk
from tests.support.mailbox_writers import reply_of
from tests.support.owner import owners_rights


async def test_first_delivery_makes_the_maildir(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path, "iain", "sales@example.com")
    outcome = await writer.deliver_all(envelope(), CONTENT, [one])
    assert list(messages(one).values()) == [expected(one)]
    name = next(iter(messages(one)))
    assert outcome == Delivered(f"{one.maildir}/new/{name}")
    for part in ("", "tmp", "new", "cur", f"new/{name}"):
        found = (Path(one.maildir) / part).stat()
        assert (found.st_uid, found.st_gid) == (OWNER, GROUP)
        assert stat.S_IMODE(found.st_mode) == (0o600 if name in part else 0o700)
    assert messages(one, "tmp") == {}


async def test_the_name_carries_the_sizes(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    ((name, text),) = messages(one).items()
    wire = text.replace(b"\n", b"\r\n")
    assert name.endswith(f".{HOST},S={len(text)},W={len(wire)}")


async def test_null_reverse_path(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path)
    bounce = Envelope("q", NULL_REVERSE_PATH, (), 0.0)
    await writer.deliver_all(bounce, CONTENT, [one])
    assert next(iter(messages(one).values())).startswith(b"Return-Path: <>\nDelivered-To: iain@")


async def test_many_mailboxes_share_one_message(tmp_path: Path, writer: MailboxWriter) -> None:
    all_of_them = [delivery(tmp_path, f"user{i}") for i in range(MANY + 20)]
    outcome = await writer.deliver_all(envelope(), CONTENT, all_of_them)
    assert outcome == Delivered(f"{MANY + 20} mailboxes")
    for each in all_of_them:
        assert list(messages(each).values()) == [expected(each)]


async def test_a_spooled_body_is_copied(tmp_path: Path, writer: MailboxWriter) -> None:
    body = os.urandom(3_000_001).replace(b"\r", b"") + b"\n"
    spool = tmp_path / "spool"
    spool.write_bytes(body)
    content = spooled_content(TRACE, str(spool), body.count(b"\n"), HeaderFacts())
    one = delivery(tmp_path)
    assert isinstance(await writer.deliver_all(envelope(), content, [one]), Delivered)
    assert list(messages(one).values()) == [expected(one, TRACE + body)]


async def test_a_spooled_body_that_is_gone(tmp_path: Path, writer: MailboxWriter) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(BODY)
    content = spooled_content(TRACE, str(spool), 3, HeaderFacts())
    spool.unlink()
    one = delivery(tmp_path)
    assert reply_of(await writer.deliver_all(envelope(), content, [one])) == "451 4.3.0"
    assert messages(one) == messages(one, "tmp") == {}


async def test_a_spooled_body_that_was_cut(tmp_path: Path, writer: MailboxWriter) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(BODY)
    content = spooled_content(TRACE, str(spool), 3, HeaderFacts())
    spool.write_bytes(BODY[:5])
    one = delivery(tmp_path)
    assert reply_of(await writer.deliver_all(envelope(), content, [one])) == "451 4.3.0"
    assert messages(one) == messages(one, "tmp") == {}


async def test_one_mailbox_twice_is_one_copy(tmp_path: Path, writer: MailboxWriter) -> None:
    one, other_way = delivery(tmp_path), delivery(tmp_path, "iain", "all@example.com")
    outcomes = await writer.deliver_each(envelope(), CONTENT, [one, other_way], again=False)
    assert outcomes[0] == outcomes[1]
    assert list(messages(one).values()) == [expected(one)]


async def test_one_maildir_by_two_addresses_is_two_copies(
    tmp_path: Path, writer: MailboxWriter
) -> None:
    one = delivery(tmp_path)
    two = Delivery(one.maildir, one.account, ("iain@example.net",))
    await writer.deliver_all(envelope(), CONTENT, [one, two])
    assert sorted(messages(one).values()) == sorted([expected(one), expected(two)])


async def test_a_looping_message_bounces(tmp_path: Path, writer: MailboxWriter) -> None:
    looping = memory_content(TRACE, BODY, HeaderFacts(1, frozenset({"iain@example.com"})))
    one = Delivery(str(tmp_path / "Maildir"), account(), ("Iain@example.com",))
    two = delivery(tmp_path, "paul")
    outcome = await writer.deliver_all(envelope(), looping, [two, one])
    assert isinstance(outcome, PermanentFailure)
    assert str(outcome.reply) == (
        "554 5.4.6 The message is looping: it already bears Delivered-To Iain@example.com"
    )
    outcomes = await writer.deliver_each(envelope(1), looping, [one, two], again=False)
    assert outcomes[0] == outcome
    assert isinstance(outcomes[1], Delivered)
    assert len(messages(two)) == 1


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("operation", ["create", "write", "rename"])
async def test_all_or_nothing(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, operation: str, number: int
) -> None:
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(number)]
    left = [errno.ENOSPC, *[0] * (number - 1)]
    disk.faults[operation] = lambda _name: left.pop()
    outcome = await writer.deliver_all(envelope(), CONTENT, deliveries)
    assert reply_of(outcome) == "452 4.3.1"
    for each in deliveries:
        assert messages(each) == messages(each, "tmp") == {}


async def test_each_for_itself(tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk) -> None:
    deliveries = [delivery(tmp_path, name) for name in ("one", "two", "three")]
    disk.faults["write"] = lambda path: errno.EDQUOT if "/two/" in path else 0
    outcomes = await writer.deliver_each(envelope(), CONTENT, deliveries, again=False)
    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
    assert reply_of(outcomes[1]) == "452 4.2.2"
    assert [len(messages(each)) for each in deliveries] == [1, 0, 1]


async def test_a_bug_defers_and_the_writer_lives_on(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)

    def bug(_name: str) -> int:
        raise ZeroDivisionError("the secret")

    disk.faults["rename"] = bug
    outcome = await writer.deliver_all(envelope(), CONTENT, [one])
    assert reply_of(outcome) == "451 4.3.0"
    assert "secret" not in str(outcome)
    disk.faults.clear()
    disk.faults["order_all"] = bug
    many = [one, *(delivery(tmp_path, f"user{i}") for i in range(5))]
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, many)) == "451 4.3.0"
    assert messages(one) == messages(one, "tmp") == {}
    disk.faults.clear()
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)


async def test_mail_waits_while_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = delivery(tmp_path)
    writer = BatchWriter(HOST, 100, 1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        async with asyncio.timeout(10):
            outcome = await writer.deliver_all(envelope(), CONTENT, [one])
    assert reply_of(outcome) == "451 4.3.0"
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    await writer.close()


async def test_again_finds_what_was_delivered(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    for place in (f"new/{name}", f"cur/{name}", f"cur/{name}:2,S"):
        (now,) = (f"{part}/{found}" for part in ("new", "cur") for found in messages(one, part))
        os.rename(f"{one.maildir}/{now}", f"{one.maildir}/{place}")
        outcomes = await writer.deliver_each(envelope(), CONTENT, [one], again=True)
        assert isinstance(outcomes[0], Delivered)
        assert len(messages(one)) + len(messages(one, "cur")) == 1
    await writer.deliver_each(envelope(1), CONTENT, [one], again=True)
    assert len(messages(one)) == 1


async def test_again_finds_what_gets_a_flag_meanwhile(
    tmp_path: Path, writer: MailboxWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading of a large directory may miss a file that is renamed while it lasts."""
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    seen = f"{one.maildir}/cur/{name}:2,S"
    os.rename(f"{one.maildir}/new/{name}", seen)
    time.sleep(0.02)  # noqa: ASYNC251 - for the file system's clock
    original = os.listdir

    def set_a_flag(fd: int) -> list[str]:
        found = original(fd)
        if os.path.exists(seen) and f"{name}:2,S" in found:
            os.rename(seen, f"{seen}T")
            return []
        return found

    monkeypatch.setattr(os, "listdir", set_a_flag)
    await writer.deliver_each(envelope(), CONTENT, [one], again=True)
    assert not messages(one)


async def test_again_finds_what_gets_a_flag_within_a_tick(
    tmp_path: Path, writer: MailboxWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many names may change in the time for which the directory's own stays the same."""
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    cur = f"{one.maildir}/cur"
    os.rename(f"{one.maildir}/new/{name}", f"{cur}/{name}:2,S")
    original, readings = os.listdir, []

    def miss_once(fd: int) -> list[str]:
        found = original(fd)
        if not any(each.startswith(name) for each in found):
            return found
        readings.append(found)
        return [] if len(readings) == 1 else found

    monkeypatch.setattr(os, "listdir", miss_once)
    monkeypatch.setattr(time, "time", lambda: os.stat(cur).st_ctime)
    await writer.deliver_each(envelope(), CONTENT, [one], again=True)
    assert not messages(one)


@pytest.mark.parametrize("moved", [True, False])
async def test_a_maildir_that_goes_away_is_made_again(
    tmp_path: Path, writer: MailboxWriter, moved: bool
) -> None:
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(0), CONTENT, [one])
    if moved:
        os.rename(one.maildir, one.maildir + ".old")
    else:
        shutil.rmtree(one.maildir)
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)
    assert list(messages(one).values()) == [expected(one)]


async def test_a_maildir_removed_in_the_middle_is_made_again(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)

    def remove(_name: str) -> int:
        del disk.faults["create"]
        shutil.rmtree(one.maildir)
        return 0

    disk.faults["create"] = remove
    outcome = await writer.deliver_all(envelope(), CONTENT, [one])
    if isinstance(outcome, TemporaryFailure) and _is_in_memory(tmp_path):
        # tmpfs makes files where nothing can have a name any more.
        outcome = await writer.deliver_all(envelope(), CONTENT, [one])
    assert isinstance(outcome, Delivered)
    assert list(messages(one).values()) == [expected(one)]


def _is_in_memory(directory: Path) -> bool:
    fd = os.open(directory, os.O_RDONLY)
    try:
        return ext4.kind(fd) == 0x01021994
    finally:
        os.close(fd)


async def test_who_writes_where_the_loop_may_wait(tmp_path: Path, disk: FaultyDisk) -> None:
    loop = threading.current_thread()
    wrote: list[threading.Thread] = []

    def note(_name: str) -> int:
        wrote.append(threading.current_thread())
        return 0

    def dawdle(_name: str) -> int:
        time.sleep(2 * QUICK)
        return 0

    with owners_rights(tmp_path):
        one, young = delivery(tmp_path, "old"), delivery(tmp_path, "young")
        maker = BatchWriter(HOST, 1, 1)
        await maker.deliver_all(envelope(0), CONTENT, [one])
        await maker.close()
        settle(one)
        disk.faults = {"create": note}

        writer = BatchWriter(HOST, 1, 1, disk, may_block=True)
        await writer.deliver_all(envelope(1), CONTENT, [one])
        assert wrote[-1] is loop
        await asyncio.gather(
            *(writer.deliver_all(envelope(number), CONTENT, [one]) for number in (2, 3))
        )
        assert wrote[-1] is not loop
        await writer.close()

        slow = ((4, one, True), (5, young, False))
        for number, target, again in slow:
            writer = BatchWriter(HOST, 1, 1, disk, may_block=True)
            await writer.deliver_each(envelope(number), CONTENT, [target], again=again)
            assert wrote[-1] is not loop
            await writer.close()

        writer = BatchWriter(HOST, 1, 1, disk, may_block=True)
        disk.faults["fsync"] = dawdle
        for number, is_loop in ((6, True), (7, False), (8, False)):
            await writer.deliver_all(envelope(number), CONTENT, [one])
            assert (wrote[-1] is loop) is is_loop
            disk.faults.pop("fsync", None)
        await writer.close()
    assert len(messages(one)) == 8


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildir, "OPEN_MAILDIRS", 30)
    monkeypatch.setattr(batch, "MANY", 25)


@pytest.mark.usefixtures("few_are_many")  # before there is a writer
async def test_more_maildirs_than_are_kept_open(tmp_path: Path, writer: MailboxWriter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(70)]
    for number in range(2):
        outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
        assert isinstance(outcome, Delivered)
    assert all(len(messages(each)) == 2 for each in deliveries)
    assert len(os.listdir("/proc/self/fd")) < before + 70
    await writer.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_a_cancelled_wait_leaves_the_writer_working(
    tmp_path: Path, writer: MailboxWriter
) -> None:
    one = delivery(tmp_path)
    task = asyncio.create_task(writer.deliver_all(envelope(0), CONTENT, [one]))
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)


async def test_closing_finishes_what_was_begun(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path)
    tasks = [
        asyncio.create_task(writer.deliver_all(envelope(i), CONTENT, [one])) for i in range(20)
    ]
    await asyncio.sleep(0)
    await writer.close()
    assert all(isinstance(outcome, Delivered) for outcome in await asyncio.gather(*tasks))
    assert reply_of(await writer.deliver_all(envelope(99), CONTENT, [one])) == "451 4.3.2"
    await writer.close()
