"""The contract of MailboxWriter, on the real disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH
from restante.envelope import Envelope, HeaderFacts, memory_content, spooled_content
from restante.mda import Delivery, MailboxWriter
from restante.mda.batch import MANY
from restante.mda.writer import QUICK, BatchWriter
from restante.status import Delivered, Outcome, PermanentFailure, TemporaryFailure
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
from tests.support.helpers import FarWriter, passable_directory

AS_ROOT = os.geteuid() == 0
IN_ITS_LOOP = "as its owner, in its loop"
SYNCS = ("fsync", "syncfs", "order_all", "begin_order", "order")


@pytest.fixture(params=["files without names", "names in tmp", "in order", "names follow"])
def disk(request: pytest.FixtureRequest) -> FaultyDisk:
    return FaultyDisk(
        named_only=request.param == "names in tmp",
        in_order=request.param in ("names in tmp", "in order"),
        following=request.param == "names follow",
    )


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


class NoLinks(FaultyDisk):
    """A policy of the system forbids link(2)."""

    error = errno.EPERM
    asked = 0

    def link(self, fd: int, name: str, parent: int | None) -> None:
        self.asked += 1
        raise OSError(self.error, os.strerror(self.error))


def fail_after(syncs: int, disk: FaultyDisk) -> list[int]:
    """Let one sync fail, of whatever kind, after so many; what is still to come of this."""
    left = [*[0] * syncs, errno.EIO]
    disk.faults = dict.fromkeys(SYNCS, lambda _name: left.pop(0) if left else 0)
    return left


@contextlib.contextmanager
def as_owner(root: Path) -> Iterator[None]:
    """As helpers work, and servers that are their mailboxes' user: never as root."""
    if not AS_ROOT:
        yield
        return
    os.chown(root, OWNER, GROUP)
    os.setegid(GROUP)
    os.seteuid(OWNER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.asynccontextmanager
async def writer_at_work(disk: FaultyDisk, where: str) -> AsyncIterator[MailboxWriter]:
    """All reach the same disk; the helper's code serves a connection of this process."""
    near = BatchWriter(HOST, 100, 1, disk, may_block=where == IN_ITS_LOOP)
    writer = FarWriter(near) if where == "by a helper" else near
    yield writer
    await writer.close()


@pytest.fixture(params=["here", "by a helper", "as its owner", IN_ITS_LOOP])
async def writer(
    disk: FaultyDisk, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[MailboxWriter]:
    rights = as_owner(tmp_path) if "owner" in request.param else contextlib.nullcontext()
    with rights:
        async with writer_at_work(disk, request.param) as writer:
            yield writer


def reply_of(outcome: Outcome) -> str:
    assert not isinstance(outcome, Delivered)
    return f"{outcome.reply.code} {outcome.reply.enhanced}"


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
    all_of_them = [delivery(tmp_path, f"user{i}") for i in range(200)]
    outcome = await writer.deliver_all(envelope(), CONTENT, all_of_them)
    assert outcome == Delivered("200 mailboxes")
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


@pytest.mark.parametrize("number", [1, 4])
async def test_a_sync_that_fails_acknowledges_nothing(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, number: int
) -> None:
    """Whichever it is: they fail one after the other, until all have."""
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(number)]
    await writer.deliver_all(envelope(0), CONTENT, deliveries)
    settle(*deliveries)
    if number == 1:
        syncs = 2 if disk.in_order or disk.following else 3
    else:
        syncs = 2 if disk.named_only or not disk.in_order else 2 * number + 1
    for nth in range(syncs):
        left = fail_after(nth, disk)
        outcome = await writer.deliver_all(envelope(1), CONTENT, deliveries)
        assert left == []
        assert reply_of(outcome) == "451 4.3.0"
        assert [len(messages(each)) for each in deliveries] == [1] * number
    left = fail_after(syncs, disk)
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, deliveries), Delivered)
    assert left == [errno.EIO]


@pytest.mark.parametrize("operation", ["begin_order", "order"])
async def test_octets_that_cannot_be_written_fail_for_themselves(
    tmp_path: Path, operation: str
) -> None:
    deliveries = [delivery(tmp_path, name) for name in ("one", "two", "three")]
    disk = FaultyDisk(in_order=True)
    writer = BatchWriter(HOST, 1, 1, disk)
    await writer.deliver_all(envelope(0), CONTENT, deliveries)
    descriptors = len(os.listdir("/proc/self/fd"))
    disk.faults[operation] = lambda path: errno.EIO if "/two/" in path else 0
    outcomes = await writer.deliver_each(envelope(1), CONTENT, deliveries, again=False)
    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [True, False, True]
    assert reply_of(outcomes[1]) == "451 4.3.0"
    assert [len(messages(each)) for each in deliveries] == [2, 1, 2]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    await writer.close()


async def test_a_new_maildir_counts_as_durable_once_the_last_sync_has_succeeded(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)
    disk.faults["syncfs"] = lambda _name: errno.EIO
    assert reply_of(await writer.deliver_all(envelope(0), CONTENT, [one])) == "451 4.3.0"
    disk.faults.clear()
    assert isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)
    disk.lose_power(entries_lost=True)
    assert list(messages(one).values()) == [expected(one)]


@pytest.mark.parametrize("number", [2, 9, MANY - 1])
async def test_what_is_ordered_file_by_file(tmp_path: Path, disk: FaultyDisk, number: int) -> None:
    """Files without names, in Maildirs that are durable, where that keeps them in order."""
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(number)]
    for delivered in (deliveries[1:], deliveries):
        await deliver_anew(disk, delivered)
        assert (disk.counts["order"], disk.counts["order_all"]) == (0, 1), "a Maildir is fresh"
        settle(*delivered)
    await deliver_anew(disk, deliveries)
    may_be = disk.in_order and not disk.named_only
    one_by_one = number if may_be else 0
    assert disk.counts["begin_order"] == disk.counts["order"] == one_by_one
    assert disk.counts["order_all"] == (0 if one_by_one else 1)
    one_for_all = (1, 0) if one_by_one else (0, 1)
    assert (disk.counts["fsync"], disk.counts["syncfs"]) == one_for_all


async def deliver_anew(disk: FaultyDisk, deliveries: Sequence[Delivery]) -> None:
    """By a writer that knows of none of their Maildirs; the disk counts what it does for it."""
    disk.counts.clear()
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    await writer.close()


async def test_what_an_earlier_attempt_left_is_not_ordered_file_by_file(tmp_path: Path) -> None:
    disk = FaultyDisk(in_order=True)
    old, new = delivery(tmp_path, "old"), delivery(tmp_path, "new")
    await deliver_anew(disk, [old])
    await deliver_anew(disk, [new])
    settle(old, new)
    shutil.rmtree(f"{new.maildir}/new")
    os.mkdir(f"{new.maildir}/new")
    os.chown(f"{new.maildir}/new", OWNER, GROUP)
    settle(new)
    disk.counts.clear()
    writer = BatchWriter(HOST, 1, 1, disk)
    outcomes = await writer.deliver_each(envelope(), CONTENT, [old, new], again=True)
    await writer.close()
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert (disk.counts["order"], disk.counts["order_all"], disk.counts["syncfs"]) == (0, 1, 1)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_a_sync_of_many_that_fails_acknowledges_nothing(
    tmp_path: Path,
    writer: MailboxWriter,
    disk: FaultyDisk,
    nth: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first and the third are begun early; whatever they report is reported once."""
    monkeypatch.setattr("restante.mda.batch.MANY", 4)
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(4)]
    fail_after(nth - 1, disk)
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, deliveries)) == "451 4.3.0"
    assert [len(messages(each)) for each in deliveries] == [0] * 4
    disk.faults.clear()
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    assert [len(messages(each)) for each in deliveries] == [1] * 4


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


async def test_what_a_crash_left_in_tmp_is_replaced(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    disk.named_only = True
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    (Path(one.maildir) / "new" / name).rename(Path(one.maildir) / "tmp" / name)
    (Path(one.maildir) / "tmp" / name).write_bytes(b"half")
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    assert messages(one) == {name: expected(one)}
    assert messages(one, "tmp") == {}


async def test_more_copies_than_files_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.mda.unnamed.MOST", 2)
    made: list[str] = []

    def note(name: str) -> int:
        made.append(name)
        return 0

    disk = FaultyDisk(faults={"create": note})
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(5)]
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, deliveries), Delivered)
    await writer.close()
    assert [bool(name) for name in made] == [False, False, True, True, True]
    for each in deliveries:
        assert list(messages(each).values()) == [expected(each)]
        assert messages(each, "tmp") == {}


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOSYS])
@pytest.mark.parametrize("copies", [1, 3])
async def test_where_files_may_get_no_name_later(tmp_path: Path, error: int, copies: int) -> None:
    """They are written again, with names, and so is whatever comes after them."""
    disk = NoLinks()
    disk.error = error
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(copies)]
    writer = BatchWriter(HOST, 1, 1, disk)
    for number in range(2):
        outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
        assert isinstance(outcome, Delivered)
    await writer.close()
    assert disk.asked == copies
    disk.lose_power(entries_lost=True)
    for each in deliveries:
        assert list(messages(each).values()) == [expected(each)] * 2
        assert messages(each, "tmp") == {}


async def test_a_file_that_cannot_be_synced_with_its_name_is_taken_back(tmp_path: Path) -> None:
    one = delivery(tmp_path)
    first = BatchWriter(HOST, 1, 1)
    await first.deliver_all(envelope(0), CONTENT, [one])
    await first.close()
    settle(one)
    before = messages(one)
    disk = FaultyDisk()
    disk.faults = {"fsync": lambda _: errno.EIO if disk.counts["rename"] else 0}
    writer = BatchWriter(HOST, 1, 1, disk)
    descriptors = len(os.listdir("/proc/self/fd"))
    assert reply_of(await writer.deliver_all(envelope(1), CONTENT, [one])) == "451 4.3.0"
    await writer.close()
    assert messages(one) == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_where_files_without_names_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.mda.unnamed._KEEPING", {0x9123683E: "btrfs"})
    made: list[str] = []

    def note(name: str) -> int:
        made.append(name)
        return 0

    one = delivery(tmp_path)
    writer = BatchWriter(HOST, 1, 1, FaultyDisk(faults={"create": note}))
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(2):
        assert isinstance(await writer.deliver_all(envelope(number), CONTENT, [one]), Delivered)
    assert [bool(name) for name in made] == [False, True, True]
    await writer.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert len(messages(one)) == 2


@pytest.mark.parametrize("error", [errno.EISDIR, errno.EINVAL, errno.ENOSYS])
async def test_where_nobody_has_heard_of_files_without_names(tmp_path: Path, error: int) -> None:
    one = delivery(tmp_path)
    disk = FaultyDisk(faults={"create": lambda name: 0 if name else error})
    writer = BatchWriter(HOST, 1, 1, disk)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    await writer.close()
    assert list(messages(one).values()) == [expected(one)]


async def test_what_bears_the_name_already_is_replaced(
    tmp_path: Path, writer: MailboxWriter
) -> None:
    """An attempt that failed could not take its copy back."""
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(), CONTENT, [one])
    (name,) = messages(one)
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    assert messages(one) == {name: expected(one)}


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
    assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
    assert list(messages(one).values()) == [expected(one)]


async def test_fifty_messages_share_their_syncs(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk
) -> None:
    one = delivery(tmp_path)
    all_wait = threading.Event()
    disk.faults["create"] = lambda _name: 0 if all_wait.wait() else errno.EINTR
    tasks = [
        asyncio.create_task(writer.deliver_all(envelope(i), CONTENT, [one])) for i in range(50)
    ]
    await asyncio.sleep(0)
    all_wait.set()
    assert all(isinstance(outcome, Delivered) for outcome in await asyncio.gather(*tasks))
    assert len(messages(one)) == 50
    # Two batches at the most: what the thread had taken before, and all that waited then.
    assert sum(disk.counts[sync] for sync in SYNCS) <= 4


@pytest.mark.parametrize("part", ["Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"])
async def test_a_part_that_is_missing_is_made_again(
    tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, part: str
) -> None:
    one = delivery(tmp_path)
    await writer.deliver_all(envelope(0), CONTENT, [one])
    await writer.close()
    shutil.rmtree(Path(one.maildir).parent / part)
    async with writer_at_work(disk, "here") as later:
        outcome = await later.deliver_all(envelope(1), CONTENT, [one])
    assert isinstance(outcome, Delivered)
    assert sorted(os.listdir(one.maildir)) == ["cur", "new", "tmp"]
    assert expected(one) in messages(one).values()


@pytest.mark.parametrize(
    ("disk", "fsyncs", "orders"),
    [
        (FaultyDisk(named_only=True), 2, 0),
        (FaultyDisk(), 3, 0),
        (FaultyDisk(following=True), 2, 0),
        (FaultyDisk(in_order=True), 1, 1),
    ],
    ids=["names in tmp", "files without names", "names follow", "in order"],
)
async def test_one_message_is_synced_for_itself(
    tmp_path: Path, disk: FaultyDisk, fsyncs: int, orders: int
) -> None:
    one = delivery(tmp_path)
    first = BatchWriter(HOST, 1, 1)
    await first.deliver_all(envelope(0), CONTENT, [one])
    await first.close()
    settle(one)
    second = BatchWriter(HOST, 1, 1, disk)
    await second.deliver_all(envelope(1), CONTENT, [one])
    await second.close()
    assert (disk.counts["fsync"], disk.counts["order"]) == (fsyncs, orders)
    assert disk.counts["syncfs"] == disk.counts["order_all"] == disk.counts["begin_order"] == 0


async def test_a_name_that_is_refused_leaves_nothing_open(tmp_path: Path, disk: FaultyDisk) -> None:
    one = delivery(tmp_path)
    writer = BatchWriter(HOST, 1, 1, disk)
    await writer.deliver_all(envelope(0), CONTENT, [one])
    settle(one)
    held = len(os.listdir("/proc/self/fd"))
    disk.faults["rename"] = lambda _name: errno.EIO
    assert not isinstance(await writer.deliver_all(envelope(1), CONTENT, [one]), Delivered)
    assert len(os.listdir("/proc/self/fd")) == held
    await writer.close()


async def test_a_directory_that_may_not_be_read_is_no_refusal_of_links(tmp_path: Path) -> None:
    disk = FaultyDisk(in_order=True)
    with as_owner(tmp_path):
        deliveries = [delivery(tmp_path, f"user{i}") for i in range(3)]
        await deliver_anew(disk, deliveries)
        settle(*deliveries)
        writer = BatchWriter(HOST, 1, 1, disk)
        for number, mode, syncs in ((1, 0o300, (0, 1)), (2, 0o700, (1, 0))):
            os.chmod(f"{deliveries[-1].maildir}/new", mode)
            disk.counts.clear()
            outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
            assert isinstance(outcome, Delivered)
            assert disk.counts["order"] == len(deliveries)
            assert (disk.counts["fsync"], disk.counts["syncfs"]) == syncs
        await writer.close()


async def test_who_writes_where_the_loop_may_wait(tmp_path: Path, disk: FaultyDisk) -> None:
    loop = threading.current_thread()
    wrote: list[threading.Thread] = []

    def note(_name: str) -> int:
        wrote.append(threading.current_thread())
        return 0

    def dawdle(_name: str) -> int:
        time.sleep(2 * QUICK)
        return 0

    with as_owner(tmp_path):
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


async def test_more_maildirs_than_are_kept_open(tmp_path: Path, writer: MailboxWriter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    deliveries = [delivery(tmp_path, f"user{i}") for i in range(300)]
    for number in range(2):
        outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
        assert isinstance(outcome, Delivered)
    assert all(len(messages(each)) == 2 for each in deliveries)
    assert len(os.listdir("/proc/self/fd")) < before + 300
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


@pytest.mark.parametrize("path", ["relative/Maildir", "/tmp/../Maildir"])
async def test_paths_that_are_refused(writer: MailboxWriter, path: str) -> None:
    one = Delivery(path, account(), ("iain@example.com",))
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, [one])) == "451 4.3.5"


async def test_an_address_with_a_line_end_is_refused(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path, "iain", "x@example.com\nBcc: y@example.com")
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, [one])) == "451 4.3.5"


async def test_a_file_in_the_way(tmp_path: Path, writer: MailboxWriter) -> None:
    (tmp_path / "example.com").write_text("")
    outcome = await writer.deliver_all(envelope(), CONTENT, [delivery(tmp_path)])
    assert isinstance(outcome, TemporaryFailure)
    assert "example.com is not a directory" in outcome.detail


async def test_another_uid_than_the_accounts(tmp_path: Path, writer: MailboxWriter) -> None:
    outcome = await writer.deliver_all(
        envelope(), CONTENT, [delivery(tmp_path, uid=7 if AS_ROOT else OWNER + 1)]
    )
    assert isinstance(outcome, TemporaryFailure)
    assert reply_of(outcome) == "451 4.3.5"
    assert outcome.detail.startswith("the account's uid is ")
    assert os.listdir(tmp_path) == []


class AsRoot:
    """What only root meets: homes under other people's control. Collected by its subclass."""

    @pytest.fixture(params=["here", "by a helper"])
    async def writer(
        self, disk: FaultyDisk, request: pytest.FixtureRequest
    ) -> AsyncIterator[MailboxWriter]:
        async with writer_at_work(disk, request.param) as writer:
            yield writer

    async def test_a_maildir_of_somebody_else(self, tmp_path: Path, writer: MailboxWriter) -> None:
        one = delivery(tmp_path)
        os.makedirs(one.maildir)
        os.chown(one.maildir, 54321, 54321)
        outcome = await writer.deliver_all(envelope(), CONTENT, [one])
        assert isinstance(outcome, TemporaryFailure)
        assert outcome.detail == (
            f"{one.maildir} belongs to uid 54321, the account's uid is {OWNER}"
        )

    @pytest.mark.parametrize("link", ["Maildir", "Maildir/tmp", "Maildir/new", "."])
    async def test_a_link_elsewhere_is_not_followed(
        self, tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, link: str
    ) -> None:
        home, elsewhere = tmp_path / "homes" / "iain", tmp_path / "elsewhere"
        for directory in (home.parent, elsewhere, elsewhere / "Maildir"):
            directory.mkdir()
            os.chown(directory, OWNER, GROUP)
        one = Delivery(str(home / "Maildir"), account(), ("iain@example.com",))
        if link != ".":
            await writer.deliver_all(envelope(0), CONTENT, [one])
            shutil.rmtree(home / link)
        (home / link).symlink_to(elsewhere)
        outcome = await writer.deliver_all(envelope(1), CONTENT, [one])
        is_used = link != "Maildir/tmp" or disk.named_only
        assert isinstance(outcome, TemporaryFailure if is_used else Delivered)
        assert [path for path in elsewhere.rglob("*") if path.is_file()] == []

    async def test_roots_own_link_is_followed(self, tmp_path: Path, writer: MailboxWriter) -> None:
        (tmp_path / "disk2").mkdir()
        (tmp_path / "homes").symlink_to("disk2")
        one = delivery(tmp_path / "homes")
        assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
        assert len(messages(delivery(tmp_path / "disk2"))) == 1

    @pytest.mark.parametrize("left", [".", "Maildir", "Maildir/new"])
    async def test_what_root_cannot_give_away_costs_no_descriptor(
        self, tmp_path: Path, writer: MailboxWriter, left: str
    ) -> None:
        one = delivery(tmp_path)
        await writer.deliver_all(envelope(0), CONTENT, [one])
        await writer.close()
        directory = Path(one.account.home) / left
        (directory / "something").touch()
        os.chown(directory, 0, 0)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 4):
            again = BatchWriter(HOST, 1, 1)
            outcome = await again.deliver_all(envelope(number), CONTENT, [one])
            await again.close()
            assert reply_of(outcome) == "451 4.3.5"
        assert len(os.listdir("/proc/self/fd")) <= before

    async def test_nothing_is_made_in_a_strangers_directory(
        self, tmp_path: Path, writer: MailboxWriter
    ) -> None:
        stranger = tmp_path / "example.com"
        stranger.mkdir()
        os.chown(stranger, 54321, 54321)
        outcome = await writer.deliver_all(envelope(), CONTENT, [delivery(tmp_path)])
        assert reply_of(outcome) == "451 4.3.5"
        assert list(stranger.iterdir()) == []

    async def test_what_was_made_and_not_given_away_is_given_away(
        self, tmp_path: Path, writer: MailboxWriter
    ) -> None:
        one = delivery(tmp_path)
        os.makedirs(os.path.dirname(one.maildir))
        os.mkdir(one.maildir, 0o700)
        assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
        assert os.stat(one.maildir).st_uid == OWNER

    async def test_a_gid_below_the_minimum(self, tmp_path: Path, writer: MailboxWriter) -> None:
        one = Delivery(str(tmp_path / "Maildir"), account(gid=0), ("iain@example.com",))
        outcome = await writer.deliver_all(envelope(), CONTENT, [one])
        assert isinstance(outcome, TemporaryFailure)
        assert "gid is 0, below the minimum 1" in outcome.detail


if AS_ROOT:

    class TestAsRoot(AsRoot):
        """Root alone can make the directories of strangers that these need."""
