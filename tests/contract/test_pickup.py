"""What is dropped gets into a real queue, once each, and whatever is no message is put aside."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address
from restante.config.tree import Sendmail, Settings
from restante.drop import DropPaths
from restante.drop.deposit import wake
from restante.drop.record import BadRecord, Head, Recipient, Record, encode_head
from restante.envelope import Notify, RecipientDsn
from restante.pickup import collector as collecting
from restante.pickup.claims import claimed_by, look, settle
from restante.pickup.collector import Collector
from restante.pickup.letter import DroppedFile, Letter, Limits, read_letter
from restante.pickup.place import ROOM, prepare
from restante.queue import RecipientState
from restante.queue.bodies import IN_ROW
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.spool import Spool
from tests.support.dropped import HELLO, SLOT, World, qualified, reopened, to, until
from tests.support.events import capture_logs
from tests.support.instance import PATIENCE
from tests.support.queued import due, new_id, record


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
    """The program was told that all is well: any may write a file, and measure them as they are."""
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


async def test_a_recipient_without_a_domain_is_queued_with_it(world: World) -> None:
    """Reports name it, and so does a sender that is for it alone."""
    world.drop(HELLO, to("Ann"))
    world.drop(HELLO, to("bob", sender="l-owner-@example.com-@[]"))
    (ann,), (bob,) = (message.recipients for message in await world.collect())
    if ann.target.address != "Ann@here.example":
        ann, bob = bob, ann
    assert ann.target.address == "Ann@here.example"
    assert ann.target.reverse_path is None
    assert bob.target.address == "bob@here.example"
    assert bob.target.reverse_path == "l-owner-bob=here.example@example.com"


async def test_a_bounce_and_mail_beyond_ascii(world: World) -> None:
    world.drop(b"Subject: \xc3\xa9\n\n", to("ann@example.com", sender=""))
    world.drop(HELLO, to("é@example.com"))
    first, second = sorted(await world.collect(), key=lambda each: each.envelope.smtputf8)
    assert first.envelope.reverse_path is NULL_REVERSE_PATH
    assert (first.envelope.eight_bit, first.envelope.smtputf8) == (True, False)
    assert (second.envelope.eight_bit, second.envelope.smtputf8) == (False, True)


async def test_a_program_may_say_smtputf8_of_the_header_alone(world: World) -> None:
    world.drop(b"Subject: \xc3\xa9\n\n", to("ann@example.com")._replace(smtputf8=True))
    (message,) = await world.collect()
    assert message.envelope.smtputf8


@pytest.mark.parametrize("size", [0, 1000, IN_ROW + 1000, 290_000])
async def test_contents_of_any_size(world: World, size: int) -> None:
    body = b"0123456789abcde\n" * (size // 16)
    world.drop(b"Subject: x\n\n" + body)
    (message,) = await world.collect()
    assert message.content.read().partition(b"\n\n")[2] == body
    assert list(world.spool.iterdir()) == []


async def test_programs_have_room_for_what_they_add(world: World) -> None:
    largest = world.settings.smtp.databytes + ROOM
    world.drop(b"\n" + b"x" * (largest - 2) + b"\n")
    world.drop(b"\n" + b"x" * (largest - 1) + b"\n")
    (message,) = await world.collect()
    assert message.content.size == largest + len(message.content.trace)


async def test_programs_have_room_for_the_fields_that_they_add(world: World) -> None:
    world.drop(b"X: " + b"x" * (world.settings.smtp.max_header + ROOM - 4) + b"\n\nbody\n")
    (message,) = await world.collect()
    assert message.content.read().endswith(b"x\n\nbody\n")


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

    def looking(_: DropPaths, most: int) -> list[str]:
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

    def looking(paths: DropPaths, most: int) -> list[str]:
        until_then = time.thread_time() + 0.02
        while time.thread_time() < until_then:
            pass
        ended.append(time.monotonic())
        return look(paths, most)

    monkeypatch.setattr(collecting, "look", looking)
    world.drop()
    async with world.collecting():
        await until(lambda: len(ended) == 3)
    assert ended[1] - ended[0] > 0.18
    assert ended[2] - ended[1] > 0.18


@pytest.mark.parametrize("is_file", [False, True])
async def test_without_a_poke_there_is_the_interval(
    world: World, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    monkeypatch.setattr(collecting, "SCAN_INTERVAL", 0.01)
    os.unlink(world.paths.wake)
    if is_file:
        os.mknod(world.paths.wake)
    async with world.collecting():
        world.drop()
        await until(lambda: world.store.waiting == 1)


async def test_claimed_and_not_yet_queued(world: World) -> None:
    world.drop()
    assert len(world.claim()) == 1
    await reopened(world)
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_claimed_and_not_yet_gone_from_where_it_was(world: World) -> None:
    """As a power cut leaves it on a file system without a journal."""
    world.drop()
    (name,) = world.claim()
    os.link(f"{claimed_by(world.paths, SLOT)}/{name}", f"{world.paths.incoming}/{name}")
    await reopened(world)
    assert len(await world.collect()) == 1
    assert world.left() == []


async def test_claimed_for_another_queue_and_not_yet_gone_from_where_it_was(world: World) -> None:
    """It is for whoever opens that queue; before it was claimed again, and put aside."""
    world.drop()
    (name,) = world.claim(9)
    os.link(f"{claimed_by(world.paths, 9)}/{name}", f"{world.paths.incoming}/{name}")
    other = QueueStore.open(str(world.root), 9)
    async with world.collecting():
        await until(lambda: world.left() == [f"claimed/9/{name}"])
        await settle(world.settings, 9, other)
    assert len(await world.collect()) == 1
    assert world.left() == []
    await other.close()


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
    later = Collector(world.settings, 9, other, new_id, str(world.spool), qualified)
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
        return await read_letter(dropped, spool, Limits(0, 100), "mx", new_id(), 0.0, qualified)
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
            dropped, Spool(str(tmp_path), 1000, 1000), Limits(0, 100), "mx", "id", 0.0, qualified
        )
    except BadRecord:
        return
    finally:
        dropped.close()
    assert letter.targets
    assert letter.content.read().endswith(b"\n")


# The directory


def test_a_file_where_programs_wake_the_server_is_no_more(tmp_path: Path) -> None:
    """As somebody has made it who wrote there before the first start."""
    settings = Settings(str(tmp_path))
    paths = DropPaths.of(settings.directory)
    os.mkdir(paths.root)
    Path(paths.wake).write_text("\n")
    prepare(settings)
    assert stat.S_ISFIFO(os.stat(paths.wake).st_mode)


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
