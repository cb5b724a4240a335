"""What is dropped and is no message, or exceeds a limit, holds up nobody else's mail."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.address import MAX_LOCAL_PART, Address
from restante.config.tree import Queue
from restante.drop import new_names
from restante.drop.record import HEAD_SIZE, Head, Recipient, Record, encode_head
from restante.dsn.original import read_original
from restante.dsn.reporter import DsnReporter
from restante.pickup import claims
from restante.pickup import collector as collecting
from restante.pickup.letter import DroppedFile, Letter, read_letter
from restante.pickup.place import prepare
from restante.queue import Action, Submission
from tests.support.dropped import GOOD, HELLO, SLOT, World, file, recorded, reopened, to, until
from tests.support.events import capture_logs
from tests.support.queued import limits


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


BAD = {
    "empty": b"",
    "no head": b"hello\n" * 100,
    "no version": file().replace(b"drop 1", b"drop x", 1),
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
    "too large": (b"Subject: x\n\n" + b"x\n" * 200_000, "552 5.3.4"),
    "a large header": (b"Subject: " + b"x" * 70_000 + b"\n\nbody\n", "552 5.3.4"),
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


async def test_of_what_is_no_address_the_sender_is_told(world: World) -> None:
    """It stands as a local part. Who has a list gets it in the sender, as from qmail."""
    record = to('"joe@x.org,"@mx.example.com', sender="list-@example.com-@[]")
    world.drop(HELLO, record._replace(no_addresses=True))
    with capture_logs() as events:
        await world.pick_up()
    assert [each["event"] for each in events] == ["picked_up", "failed"]
    work = await world.store.due(float("inf"), limits())
    assert work.messages == ()
    (pending,) = work.reports
    (notice,) = pending.notices
    assert notice.recipient.target.reverse_path == "list-joe=x.org,@example.com"
    report = DsnReporter(Queue(), "mx.example.com").report(pending.message, pending.notices, 1, "r")
    assert isinstance(report, Submission)
    assert [each.address for each in report.targets] == ["list-joe=x.org,@example.com"]
    text = report.content.read()
    assert b'Final-Recipient: rfc822; "joe@x.org,"@mx.example.com\n' in text
    assert b"Diagnostic-Code: smtp; 553 5.1.3 what was given as this recipient" in text


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
    real = claims._is_letter

    def swapping(entry: os.DirEntry[str]) -> bool:
        is_letter = real(entry)
        if entry.name == name and is_letter:
            path.unlink()
            (path / "inside").mkdir(parents=True)
        return is_letter

    monkeypatch.setattr(claims, "_is_letter", swapping)
    monkeypatch.setattr(claims, "MAX_BAD", 0)
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
    monkeypatch.setattr(claims, "MAX_BAD", 2)
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


async def test_what_a_newer_version_has_written_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody has gone back to this one: it is mail that was accepted."""
    monkeypatch.setattr(collecting, "PAUSE_AFTER_FAILURE", 1e6)
    monkeypatch.setattr(collecting, "BATCH", 1)
    newer = file().replace(b"drop 1", b"drop 2", 1)
    moved = {os.path.join("claimed", str(SLOT), world.put(newer)) for _ in range(2)}
    world.drop()
    with capture_logs() as events:
        async with world.collecting():
            await until(lambda: world.store.waiting == 1 and set(world.left()) == moved)
    failed, _ = sorted(events, key=lambda each: str(each["event"]))
    assert (failed["event"], failed["path"]) == ("drop_failed", world.paths.root)
    assert str(failed["why"]).endswith("it was written by a newer version of Restante")


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
