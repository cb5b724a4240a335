"""What is dropped gets into a real queue, once each, and whatever is no message is put aside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restante.address import MAX_LOCAL_PART, NULL_REVERSE_PATH, Address
from restante.config.tree import Queue, Sendmail, Server, Settings, Smtp
from restante.drop import DropPaths, new_names
from restante.drop.deposit import Deposit, wake
from restante.drop.record import HEAD_SIZE, BadRecord, Head, Recipient, Record, encode, encode_head
from restante.dsn.original import read_original
from restante.dsn.reporter import DsnReporter
from restante.envelope import Notify, RecipientDsn
from restante.pickup import collector as collecting
from restante.pickup.collector import Collector, claim, claimed_by, look, settle
from restante.pickup.letter import DroppedFile, Letter, Limits, read_letter
from restante.pickup.place import prepare
from restante.queue import Action, QueuedMessage, RecipientState, Submission
from restante.queue.bodies import IN_ROW
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.spool import Spool
from tests.support.events import capture_logs
from tests.support.instance import PATIENCE
from tests.support.queued import due, limits, new_id, record

HELLO = b"Subject: hello\n\nhello\n"
SLOT = 3


class World:
    """An instance's drop directory and one queue."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(
            str(directory),
            server=Server(me="mx.example.com"),
            smtp=Smtp(databytes=300_000, max_header=2000, max_received=20),
        )
        prepare(self.settings)
        self.paths = DropPaths.of(str(directory))
        self.root = directory / "queue"
        self.spool = directory / "spool"
        self.spool.mkdir(exist_ok=True)
        self.store = self.open()

    def open(self) -> QueueStore:
        return QueueStore.open(str(self.root), SLOT)

    def collector(self) -> Collector:
        return Collector(self.settings, SLOT, self.store, new_id, str(self.spool))

    def drop(self, content: bytes = HELLO, record: Record | None = None) -> None:
        deposit = Deposit(self.paths, record or to("ann@example.com"))
        deposit.write(content)
        deposit.finish()

    def put(self, octets: bytes) -> str:
        """A file as a hostile user might leave it; its name."""
        _, name = new_names()
        (Path(self.paths.incoming) / name).write_bytes(octets)
        return name

    def claim(self, slot: int = SLOT) -> list[str]:
        """Have all that was dropped claimed for the queue of ``slot``; their names."""
        return claim(self.paths, claimed_by(self.paths, slot), look(self.paths))

    def left(self) -> list[str]:
        """Whatever lies in the drop directory's folders, by its path there.

        A file may be moved from ``claimed`` to ``incoming`` and back meanwhile, so that one of
        them is looked at twice.
        """
        folders = (self.paths.claimed, self.paths.incoming, self.paths.claimed, self.paths.bad)
        found = [
            os.path.relpath(os.path.join(place, name), self.paths.root)
            for folder in folders
            for place, _, names in os.walk(folder)
            for name in names
        ]
        return list(dict.fromkeys(found))

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[Collector]:
        collector = self.collector()
        collector.start()
        try:
            yield collector
        finally:
            await collector.stop(PATIENCE)

    async def pick_up(self) -> None:
        """Until nothing is left to be picked up."""
        async with self.collecting():
            await until(lambda: all(each.startswith("bad/") for each in self.left()))

    async def collect(self) -> list[QueuedMessage]:
        """Pick up until nothing is left to be picked up; what is in the queue then."""
        await self.pick_up()
        return await due(self.store, float("inf"), limits(local=1000, per_lane=1000))


def to(*addresses: str, sender: str = "iain@example.com") -> Record:
    return Record(sender, tuple(Recipient(address) for address in addresses))


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - a directory sends no events
            await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def test_a_message_is_queued_as_it_was_dropped(world: World) -> None:
    recipients = (
        Recipient("Ann@example.com", "SUCCESS,DELAY", "rfc822;Ann@x.example"),
        Recipient("bob@elsewhere.example", "NEVER"),
        Recipient('"a b"@example.com'),
    )
    world.drop(HELLO, Record("iain@example.com", recipients, "HDRS", "id 1"))
    (message,) = await world.collect()
    envelope = message.envelope
    assert envelope.reverse_path == Address("iain", "example.com")
    assert [str(address) for address in envelope.recipients] == [
        "Ann@example.com",
        "bob@elsewhere.example",
        "a b@example.com",
    ]
    assert (envelope.ret, envelope.envid) == ("HDRS", "id 1")
    assert (envelope.eight_bit, envelope.smtputf8) == (False, False)
    assert [each.target.dsn for each in message.recipients] == [
        RecipientDsn(Notify.SUCCESS | Notify.DELAY, "rfc822;Ann@x.example"),
        RecipientDsn(Notify.NEVER),
        RecipientDsn(),
    ]
    trace, _, content = message.content.read().partition(b"Subject: ")
    assert content == b"hello\n\nhello\n"
    assert trace.startswith(
        f"Received: by mx.example.com (invoked by uid {os.getuid()})\n"
        f"\tid {envelope.queue_id};\n\t".encode()
    )
    assert world.left() == []
    assert await world.store.taken() == frozenset()


async def test_ids_may_be_as_long_as_smtp_can_write_them(world: World) -> None:
    envid, orcpt = "x" * 94 + " =", "utf-8;" + "é+x" * 38
    recipient = Recipient("ann@example.com", "", orcpt)
    world.drop(HELLO, Record("iain@example.com", (recipient,), envid=envid))
    (message,) = await world.collect()
    assert message.envelope.envid == envid
    assert [each.target.dsn.orcpt for each in message.recipients] == [orcpt]


@pytest.mark.parametrize(
    ("envid", "address"), [("x" * 101, "x" * 500), ("x" * 95 + " =", "=" * 170)]
)
async def test_ids_that_are_too_long_for_smtp_are_left_out(
    world: World, envid: str, address: str
) -> None:
    """The program was told that all is well: a former version measured them as they are."""
    recipient = Recipient("ann@example.com", "", f"rfc822;{address}")
    world.drop(HELLO, Record("iain@example.com", (recipient,), envid=envid))
    (message,) = await world.collect()
    assert message.envelope.envid == ""
    assert [each.target.dsn for each in message.recipients] == [RecipientDsn()]


async def test_a_list_has_a_sender_for_each_recipient(world: World) -> None:
    world.drop(HELLO, to("ann@example.com", '"b c"@x.example', sender="list-@example.com-@[]"))
    (message,) = await world.collect()
    assert message.envelope.reverse_path == Address("list-", "example.com")
    assert [each.target.reverse_path for each in message.recipients] == [
        "list-ann=example.com@example.com",
        "list-b c=x.example@example.com",
    ]


async def test_a_recipient_without_a_domain_is_left_to_routing(world: World) -> None:
    world.drop(HELLO, to("Ann"))
    (message,) = await world.collect()
    assert message.envelope.recipients == (Address("Ann", ""),)


async def test_a_bounce_and_mail_beyond_ascii(world: World) -> None:
    world.drop(b"Subject: \xc3\xa9\n\n", to("ann@example.com", sender=""))
    world.drop(HELLO, to("é@example.com"))
    first, second = sorted(await world.collect(), key=lambda each: each.envelope.smtputf8)
    assert first.envelope.reverse_path is NULL_REVERSE_PATH
    assert (first.envelope.eight_bit, first.envelope.smtputf8) == (True, False)
    assert (second.envelope.eight_bit, second.envelope.smtputf8) == (False, True)


@pytest.mark.parametrize("size", [0, 1000, IN_ROW + 1000, 290_000])
async def test_contents_of_any_size(world: World, size: int) -> None:
    body = b"0123456789abcde\n" * (size // 16)
    world.drop(b"Subject: x\n\n" + body)
    (message,) = await world.collect()
    assert message.content.read().partition(b"\n\n")[2] == body
    assert list(world.spool.iterdir()) == []


async def test_many_messages_at_once(world: World) -> None:
    for number in range(250):
        world.drop(b"Subject: %d\n\n" % number)
    messages = await world.collect()
    subjects = {message.content.read().partition(b"Subject: ")[2] for message in messages}
    assert subjects == {b"%d\n\n" % number for number in range(250)}


async def test_a_poke_is_heard_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 1e6)
    async with world.collecting():
        for number in range(1, 4):
            world.drop()
            await until(lambda number=number: world.store.waiting == number)  # type: ignore[misc]


async def test_pokes_without_end_have_a_look_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LEAST_PAUSE", 0.1)
    looks, reads, real = list[float](), list[int](), os.read

    def looking(_: DropPaths) -> list[str]:
        looks.append(time.monotonic())
        return []

    def reading(descriptor: int, size: int) -> bytes:
        reads.append(descriptor)
        return real(descriptor, size)

    monkeypatch.setattr(collecting, "look", looking)
    async with world.collecting():
        await until(lambda: bool(looks))
        monkeypatch.setattr(os, "read", reading)
        async with asyncio.timeout(PATIENCE):
            while len(looks) < 4:
                wake(world.paths)
                await asyncio.sleep(0)
        monkeypatch.setattr(os, "read", real)
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(looks))
    assert len(reads) <= 4


async def test_long_looks_are_rare(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much lies there that is no letter, and however often somebody asks for a look."""
    monkeypatch.setattr(collecting, "LEAST_PAUSE", 0.0)
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 0.0)
    monkeypatch.setattr(collecting, "BATCH", 1)
    ended = list[float]()

    def looking(paths: DropPaths) -> list[str]:
        until_then = time.thread_time() + 0.02
        while time.thread_time() < until_then:
            pass
        ended.append(time.monotonic())
        return look(paths)

    monkeypatch.setattr(collecting, "look", looking)
    world.drop()
    async with world.collecting():
        await until(lambda: len(ended) == 3)
    assert ended[1] - ended[0] > 0.18
    assert ended[2] - ended[1] > 0.18


async def test_without_a_poke_there_is_the_interval(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 0.01)
    os.unlink(world.paths.wake)
    async with world.collecting():
        world.drop()
        await until(lambda: world.store.waiting == 1)


GOOD = encode(to("ann@example.com"))


def file(envelope: bytes = GOOD, content: bytes = HELLO) -> bytes:
    return encode_head(Head(len(envelope), len(content))) + envelope + content


def recorded(*recipients: Recipient, sender: str = "", ret: str = "", envid: str = "") -> bytes:
    people = recipients or (Recipient("ann@example.com"),)
    return file(encode(Record(sender, people, ret, envid)))


BAD = {
    "empty": b"",
    "no head": b"hello\n" * 100,
    "another version": file().replace(b"drop 1", b"drop 2", 1),
    "too short": file()[:-1],
    "too long": file() + b"\n",
    "no recipients": file(b"Siain@example.com\0"),
    "not UTF-8": file(b"S\xff\0Tann@example.com\0"),
    "cut envelope": file(GOOD[:-1]),
    "a large envelope": encode_head(Head(5_000_000, 0)) + b"S\0" * 2_500_000,
    "many recipients": file(b"S\0" + b"Ta@b.example\0" * 10_001),
    "no sender's domain": recorded(sender="iain"),
    "no address": recorded(Recipient("ann@exa mple.com")),
    "a long address": recorded(Recipient("a" * (MAX_LOCAL_PART + 1) + "@example.com")),
    "unknown RET": recorded(ret="SOME"),
    "an ENVID with a line end": recorded(envid="a\nb"),
    "an ENVID beyond ASCII": recorded(envid="é"),
    "unknown NOTIFY": recorded(Recipient("ann@example.com", "SOMETIMES")),
    "NEVER and more": recorded(Recipient("ann@example.com", "NEVER,DELAY")),
    "an ORCPT without a type": recorded(Recipient("ann@example.com", "", "ann@example.com")),
    "a CR": file(content=b"Subject: x\n\na\rb\n"),
    "no last LF": file(content=b"Subject: x\n\na"),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_message_is_put_aside(world: World, what: str) -> None:
    name = world.put(BAD[what])
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == [f"bad/{name}"]


EXCEEDING = {
    "too large": (b"Subject: x\n\n" + b"x\n" * 150_000, "552 5.3.4"),
    "a large header": (b"Subject: " + b"x" * 2000 + b"\n\nbody\n", "552 5.3.4"),
    "looping": (b"Received: x\n" * 21 + b"\nbody\n", "554 5.4.6"),
}
TOO_LARGE, _ = EXCEEDING["too large"]


@pytest.mark.parametrize(("content", "status"), EXCEEDING.values(), ids=EXCEEDING)
async def test_of_what_exceeds_a_limit_by_now_the_sender_is_told(
    world: World, content: bytes, status: str
) -> None:
    """Its program was told that all is well: the limit was higher then."""
    world.drop(content, to("ann@example.com", "bob@elsewhere.example"))
    with capture_logs() as events:
        await world.pick_up()
    assert world.left() == []
    assert await world.store.taken() == frozenset()
    assert [each["event"] for each in events] == ["picked_up", "failed", "failed"]
    work = await world.store.due(float("inf"), limits())
    (pending,) = work.reports
    assert work.messages == ()
    assert pending.message.envelope.reverse_path == Address("iain", "example.com")
    assert [each.recipient.target.address for each in pending.notices] == [
        "ann@example.com",
        "bob@elsewhere.example",
    ]
    for each in pending.notices:
        assert each.action is Action.FAILED
        assert str(each.recipient.last).startswith(status)
    reporter = DsnReporter(Queue(), "mx.example.com")
    report = reporter.report(pending.message, pending.notices, time.time(), "r1")
    assert isinstance(report, Submission)
    assert status.encode() in report.content.read()
    assert (await world.store.tell(pending, report, time.time())).finished
    assert world.store.waiting == 1
    assert [each.name for each in world.root.glob("*/bodies/*")] == []


async def test_of_what_is_too_large_only_the_header_is_copied(world: World) -> None:
    """A file may have a hole for which its owner's quota has nothing to pay."""
    name = world.put(encode_head(Head(len(GOOD), 10**11)) + GOOD + b"Subject: large\n\n")
    os.truncate(os.path.join(world.paths.incoming, name), HEAD_SIZE + len(GOOD) + 10**11)
    await world.pick_up()
    (pending,) = (await world.store.due(float("inf"), limits())).reports
    message = pending.message
    assert message.content.size < 300_000
    assert read_original(message.envelope, message.content, failed=True).quoted.endswith(
        b"Subject: large\n"
    )
    assert world.left() == []


async def test_whoever_asks_for_no_report_gets_none(world: World) -> None:
    record = Record("iain@example.com", (Recipient("ann@example.com", "NEVER"),))
    world.drop(TOO_LARGE, record)
    with capture_logs() as events:
        await world.pick_up()
    assert [each["event"] for each in events] == ["picked_up", "failed", "message_finished"]
    assert world.store.waiting == 0
    assert world.left() == []
    assert [each.name for each in world.root.glob("*/bodies/*")] == []


async def test_a_recipient_fails_once_however_often_it_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOGGED_AT_ONCE", 1)
    world.drop(TOO_LARGE, to("ann@example.com", "bob@example.com", "Ann@Example.com"))
    with capture_logs() as events:
        await world.pick_up()
    (pending,) = (await world.store.due(float("inf"), limits())).reports
    failed = [each["recipient"] for each in events if each["event"] == "failed"]
    assert failed == [each.recipient.target.address for each in pending.notices]


async def test_what_exceeds_a_limit_waits_for_room_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    world.store._max_waiting = 1
    world.drop()
    await world.pick_up()
    world.drop(TOO_LARGE)
    with capture_logs() as events:
        async with world.collecting():
            await until(lambda: bool(events))
            world.store._max_waiting = 2
            await until(lambda: world.store.waiting == 2)
    assert events[0]["event"] == "drop_failed"


async def test_only_plain_files_are_read(world: World, tmp_path: Path) -> None:
    incoming = Path(world.paths.incoming)
    names = [new_names()[1] for _ in range(5)]
    secret = tmp_path / "secret"
    secret.write_bytes(file(content=b"Subject: secret\n\n"))
    (incoming / names[0]).symlink_to(secret)
    (incoming / names[1]).hardlink_to(secret)
    os.mkfifo(incoming / names[2])
    # Its path would have more octets than one of a socket may have.
    with contextlib.chdir(incoming), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(names[3])
    (incoming / names[4]).mkdir()
    world.drop()
    (message,) = await world.collect()
    assert b"secret" not in message.content.read()
    assert set(world.left()) == {f"bad/{name}" for name in names[:4]}
    assert (incoming / names[4]).is_dir()


async def test_a_lease_on_a_file_holds_up_no_other(world: World) -> None:
    """Whose file it is can have everybody else's open of it wait, or fail (fcntl(2))."""
    name = world.put(file())
    world.drop()
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    held = os.open(os.path.join(world.paths.incoming, name), os.O_RDWR)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert len(await world.collect()) == 1
    finally:
        os.close(held)
        signal.signal(signal.SIGIO, before)
    assert world.left() == [f"bad/{name}"]


async def test_a_directory_in_a_files_place_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the directory and the claim its owner may swap them."""
    name = world.put(file())
    path = Path(world.paths.incoming) / name
    real = collecting._is_letter

    def swapping(entry: os.DirEntry[str]) -> bool:
        is_letter = real(entry)
        if entry.name == name and is_letter:
            path.unlink()
            (path / "inside").mkdir(parents=True)
        return is_letter

    monkeypatch.setattr(collecting, "_is_letter", swapping)
    monkeypatch.setattr(collecting, "MAX_BAD", 0)
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 1e6)
    async with world.collecting():
        for number in (1, 2):
            world.drop()
            await until(lambda number=number: world.store.waiting == number)  # type: ignore[misc]
    await reopened(world)
    world.drop()
    assert len(await world.collect()) == 3


async def test_a_claimed_name_that_is_a_directory_by_now_holds_up_no_other(world: World) -> None:
    world.drop()
    (name,) = world.claim()
    os.mkdir(os.path.join(world.paths.incoming, name))
    await reopened(world)
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == [f"bad/{name}"]


async def test_other_names_are_none_of_its_business(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = Path(world.paths.incoming)
    unfinished, _ = new_names()
    (incoming / unfinished).write_bytes(file())
    (incoming / "README").write_bytes(file())
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 0.01)
    async with world.collecting():
        world.drop()
        others = {f"incoming/{unfinished}", "incoming/README"}
        await until(lambda: world.store.waiting == 1 and set(world.left()) == others)
        os.utime(incoming / unfinished, (0, 0))
        await until(lambda: world.left() == ["incoming/README"])


async def test_only_so_many_bad_files_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MAX_BAD", 2)
    for _ in range(5):
        world.put(b"")
    assert await world.collect() == []
    assert len(world.left()) == 2


async def test_a_place_for_bad_files_that_was_removed_is_made_again(world: World) -> None:
    os.rmdir(world.paths.bad)
    name = world.put(b"")
    assert await world.collect() == []
    assert world.left() == [f"bad/{name}"]
    assert os.stat(world.paths.bad).st_mode & 0o777 == 0o700


async def test_a_place_for_bad_files_may_be_another_users(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator may have made it again."""
    os.chmod(world.paths.bad, 0o755)
    real = os.chmod

    def refusing(path: str, mode: int) -> None:
        if path == world.paths.bad:
            raise PermissionError(errno.EPERM, "not yours", path)
        real(path, mode)

    monkeypatch.setattr(os, "chmod", refusing)
    prepare(world.settings)
    name = world.put(b"")
    assert await world.collect() == []
    assert world.left() == [f"bad/{name}"]


async def test_what_cannot_be_put_aside_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 1e6)
    monkeypatch.setattr(collecting, "BATCH", 1)
    os.rmdir(world.paths.bad)
    os.symlink("nowhere", world.paths.bad)
    names = {world.put(b"") for _ in range(3)}
    world.drop()
    moved = {os.path.join("claimed", str(SLOT), name) for name in names}
    with capture_logs() as events:
        async with world.collecting():
            await until(lambda: world.store.waiting == 1 and set(world.left()) == moved)
    assert sorted(each["event"] for each in events) == ["drop_failed", "picked_up"]
    await reopened(world)
    os.unlink(world.paths.bad)
    assert len(await world.collect()) == 1
    assert set(world.left()) == {f"bad/{name}" for name in names}


async def test_where_nothing_can_be_put_aside_what_was_claimed_is_put_in_order_all_the_same(
    world: World,
) -> None:
    world.drop()
    (name,) = world.claim()
    os.mkdir(os.path.join(world.paths.incoming, name))
    os.rmdir(world.paths.bad)
    os.symlink("nowhere", world.paths.bad)
    world.drop()
    with capture_logs() as events:
        async with world.collecting():
            await until(lambda: world.store.waiting == 1)
    assert world.left() == [f"claimed/{SLOT}/{name}"]
    assert events[0]["event"] == "drop_failed"


async def test_what_cannot_be_put_aside_now_is_put_aside_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_STUCK", 0.01)
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 0.01)
    real, failures = os.listdir, [errno.EMFILE, errno.EIO]

    def failing(path: str) -> list[str]:
        if path == world.paths.bad and failures:
            raise OSError(failures.pop(), "not now")
        return real(path)

    monkeypatch.setattr(os, "listdir", failing)
    name = world.put(b"")
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == [f"bad/{name}"]


async def test_a_directory_of_a_bad_files_name_holds_up_no_other(world: World) -> None:
    """Its owner may have had it put aside before."""
    name = world.put(b"")
    os.mkdir(os.path.join(world.paths.bad, name))
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_a_bug_in_reading_does_not_hold_up_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = read_letter

    async def buggy(dropped: DroppedFile, *rest: object) -> Letter:
        if os.fstat(dropped._file).st_size == len(file(content=b"poison\n")):
            raise KeyError("a bug")
        return await real(dropped, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "read_letter", buggy)
    name = world.put(file(content=b"poison\n"))
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == [f"bad/{name}"]


class Scarce(ThreadPoolExecutor):
    """Threads that are wanted once when there is none."""

    def __init__(self, lacking: int) -> None:
        """``lacking``: how many pieces of work find one before."""
        super().__init__()
        self._before = lacking

    def submit(self, *work: Any) -> Future[Any]:  # type: ignore[override]
        self._before -= 1
        if self._before == -1:
            raise RuntimeError("can't start new thread")
        return super().submit(*work)


@pytest.mark.parametrize("lacking", range(10))
async def test_a_lack_of_threads_loses_nothing_at_any_step(
    world: World, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    asyncio.get_running_loop().set_default_executor(Scarce(lacking))
    world.drop(b"Subject: large\n\n" + b"x\n" * 140_000)
    with capture_logs() as events:
        assert len(await world.collect()) == 1
    assert world.left() == []
    assert {each["event"] for each in events} == {"drop_failed", "picked_up"}


async def test_a_lack_of_memory_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    failures = [MemoryError()]

    async def lacking(*rest: object) -> Letter:
        if failures:
            raise failures.pop()
        return await read_letter(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "read_letter", lacking)
    world.drop()
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_a_full_queue_lets_mail_wait_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(collecting, "AT_ONCE", 1)
    world.store._max_waiting = 2
    for _ in range(5):
        world.drop()
    async with world.collecting():
        await until(lambda: world.store.waiting == 2 and len(world.left()) == 3)
        world.store._max_waiting = 0
        await until(lambda: world.store.waiting == 5)
    assert world.left() == []


async def test_a_spool_that_fails_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    world.spool.rmdir()
    world.spool.touch()
    world.drop(b"Subject: large\n\n" + b"x\n" * 140_000)
    world.drop()
    async with world.collecting():
        await until(lambda: world.store.waiting == 1)
        world.spool.unlink()
        await until(lambda: world.store.waiting == 2)
    assert world.left() == []


async def test_a_disk_that_reads_only_a_part_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives what it could read, and its error the next time."""
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 0.01)
    content = b"Subject: x\n\n" + b"x\n" * 5000
    real, times = os.read, itertools.count(1)

    def failing(descriptor: int, size: int) -> bytes:
        if not 1000 < size <= len(content):  # the envelope, or the FIFO
            return real(descriptor, size)
        if next(times) == 3:
            raise OSError(errno.EIO, "a disk that fails")
        return real(descriptor, 1000)

    monkeypatch.setattr(os, "read", failing)
    world.drop(content)
    (message,) = await world.collect()
    assert message.content.read().endswith(content)
    assert world.left() == []


async def test_a_file_that_becomes_shorter_is_no_message(world: World) -> None:
    path = os.path.join(world.paths.incoming, world.put(file()))
    dropped = DroppedFile(path)
    os.truncate(path, len(file()) - 1)
    with pytest.raises(BadRecord, match="shorter"):
        await read_letter(
            dropped, Spool(str(world.spool), 1000, 1000), Limits(0, 100), "mx", "id", 0.0
        )
    dropped.close()


# What a crash leaves


async def reopened(world: World) -> None:
    """As after the end of the process."""
    await world.store.close()
    world.store = world.open()


async def test_claimed_and_not_yet_queued(world: World) -> None:
    world.drop()
    assert len(world.claim()) == 1
    await reopened(world)
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_queued_and_not_yet_removed(world: World) -> None:
    world.drop()
    (name,) = world.claim()
    letter = await read(world, os.path.join(claimed_by(world.paths, SLOT), name))
    await world.store.add(letter.envelope, letter.content, letter.targets, name)
    await reopened(world)
    assert await world.store.taken() == {name}
    (message,) = await world.collect()
    assert message.envelope == letter.envelope
    assert await world.store.taken() == frozenset()
    assert world.left() == []


async def test_queued_delivered_and_gone_before_the_file_is(world: World) -> None:
    """The message has left the queue; only the name that was committed with it is left."""
    world.drop()
    (name,) = world.claim()
    letter = await read(world, os.path.join(claimed_by(world.paths, SLOT), name))
    await world.store.add(letter.envelope, letter.content, letter.targets, name)
    (message,) = await due(world.store, float("inf"))
    result = Result(message.recipients[0].id, RecipientState.DELIVERED)
    assert await record(world.store, message, [result])
    await reopened(world)
    assert await world.collect() == []
    assert world.left() == []


async def test_removed_and_not_yet_forgotten(world: World) -> None:
    world.drop()
    (name,) = world.claim()
    path = os.path.join(claimed_by(world.paths, SLOT), name)
    letter = await read(world, path)
    await world.store.add(letter.envelope, letter.content, letter.targets, name)
    os.unlink(path)
    await reopened(world)
    world.drop()
    assert len(await world.collect()) == 2
    assert await world.store.taken() == frozenset()


async def test_a_queue_that_is_adopted_gives_back_what_was_claimed_for_it(world: World) -> None:
    world.drop()
    world.claim(9)
    other = QueueStore.open(str(world.root), 9)
    await settle(world.settings, 9, other)
    assert os.listdir(world.paths.claimed) == []
    assert len(await world.collect()) == 1
    await other.close()


async def test_a_queue_that_is_gone_takes_no_mail_with_it(world: World) -> None:
    world.drop()
    world.claim(9)
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_a_queue_that_cannot_be_looked_for_is_not_gone(world: World) -> None:
    """What it has taken would come twice. Here the name leads in a circle; a disk may fail too."""
    world.drop()
    (name,) = world.claim(9)
    (world.root / "9").symlink_to("9")
    with capture_logs() as events:
        async with world.collecting():
            await until(lambda: bool(events) or world.left() != [f"claimed/9/{name}"])
    assert world.left() == [f"claimed/9/{name}"]
    assert events[0]["event"] == "drop_failed"
    (world.root / "9").unlink()
    assert len(await world.collect()) == 1


async def test_two_generations_take_each_message_once(world: World, tmp_path: Path) -> None:
    for _ in range(150):
        world.drop()
    other = QueueStore.open(str(world.root), 9)
    later = Collector(world.settings, 9, other, new_id, str(world.spool))
    later.start()
    await world.collect()
    await later.stop(PATIENCE)
    assert world.store.waiting + other.waiting == 150
    assert world.left() == []
    await other.close()


async def read(world: World, path: str) -> Letter:
    dropped = DroppedFile(path)
    spool = Spool(str(world.spool), 1000, 1000)
    try:
        return await read_letter(dropped, spool, Limits(0, 100), "mx", new_id(), 0.0)
    finally:
        dropped.close()


PIECES = st.sampled_from(
    [
        *(b"restante-drop 1 ", b"00000021 ", b"000000000005\n", b"Sa@b.example\0"),
        *(b"Tc@d.example\0", b"NNEVER\0", b"Ox;y\0", b"RFULL\0", b"Vid\0", b"a: b\n"),
        *(b"\n", b"\r", b"\0", b"\xff"),
    ]
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=12), st.booleans())
async def test_any_file_is_a_message_or_none(
    tmp_path: Path, pieces: list[bytes], headed: bool
) -> None:
    """Whatever is in it, it is read as a whole or refused with BadRecord."""
    octets = b"".join(pieces)
    envelope = next((n for n, piece in enumerate(pieces) if piece in {b"a: b\n", b"\n"}), 0)
    size = len(b"".join(pieces[:envelope]))
    head = encode_head(Head(size, len(octets) - size)) if headed else b""
    (tmp_path / "f").write_bytes(head + octets)
    dropped = DroppedFile(str(tmp_path / "f"))
    try:
        letter = await read_letter(
            dropped, Spool(str(tmp_path), 1000, 1000), Limits(0, 100), "mx", "id", 0.0
        )
    except BadRecord:
        return
    finally:
        dropped.close()
    assert letter.targets
    assert letter.content.read().endswith(b"\n")


# The directory


@pytest.mark.parametrize(
    ("users", "modes"),
    [("everyone", (0o711, 0o1733, 0o622)), ("owner", (0o700, 0o700, 0o600))],
)
def test_rights(tmp_path: Path, users: str, modes: tuple[int, int, int]) -> None:
    for each in ("everyone", "owner", users):
        paths = prepare(Settings(str(tmp_path), sendmail=Sendmail(users=each)))  # type: ignore[arg-type]
    found = tuple(os.stat(path).st_mode & 0o7777 for path in (paths.root, paths.incoming))
    assert (*found, os.stat(paths.wake).st_mode & 0o7777) == modes
    assert os.stat(paths.site).st_mode & 0o777 == 0o644
    assert {os.stat(path).st_mode & 0o777 for path in (paths.claimed, paths.bad)} == {0o700}
