"""Whatever the moment of a crash: no half message is seen, none is lost, a retry delivers once."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from restante.mda import Delivery
from restante.mda.answers import Policy
from restante.mda.batch import Batch
from restante.mda.copies import Job
from restante.mda.durable import Disk
from restante.mda.maildir import Maildirs
from restante.status import Delivered
from tests.support.deliveries import (
    CONTENT,
    GROUP,
    HOST,
    OWNER,
    delivery,
    envelope,
    expected,
    messages,
    settle,
)
from tests.support.faulty_disk import FaultyDisk, PowerCut
from tests.support.mda_child import MAILBOXES, SENDERS
from tests.support.owner import owners_home, owners_rights
from tests.support.quiet_disk import QuietDisk

REPOSITORY = Path(__file__).parents[2]
ROUNDS = 4
MakeDisk = Callable[..., FaultyDisk]
Rights = Callable[[], contextlib.AbstractContextManager[None]]
FILE_SYSTEMS: dict[str, MakeDisk] = {
    "no promises": FaultyDisk,
    "names in tmp": partial(FaultyDisk, named_only=True),
    "in order": partial(FaultyDisk, in_order=True),
    "in order, names in tmp": partial(FaultyDisk, in_order=True, named_only=True),
    "names follow": partial(FaultyDisk, following=True),
    "nothing as a whole": partial(FaultyDisk, singly=True, named_only=True),
}
everywhere = pytest.mark.parametrize("make_disk", FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)


def deliver(disk: Disk, deliveries: Sequence[Delivery], *, again: bool = False) -> bool:
    """Whether all are acknowledged."""
    maildirs = Maildirs(disk)
    job = Job(envelope(), CONTENT, deliveries, together=not again, again=again)
    try:
        Batch(disk, maildirs, Policy(HOST, 1, 1), [job]).run()
    finally:
        maildirs.close()
    return all(isinstance(outcome, Delivered) for outcome in job.outcomes())


def deliver_and_lose_power(disk: FaultyDisk, deliveries: Sequence[Delivery]) -> bool:
    """Whether all are acknowledged, before the power fails."""
    acknowledged = deliver(disk, deliveries)
    disk.lose_power(entries_lost=True)
    return acknowledged


def check_visible(deliveries: Sequence[Delivery], count: int | None = None) -> None:
    """Whole messages only; ``count`` of them in each mailbox."""
    for each in deliveries:
        seen = list(messages(each).values())
        assert seen == [expected(each)] * len(seen)
        assert count is None or len(seen) == count


def mailboxes(root: Path, number: int, *, exist: bool) -> list[Delivery]:
    found = [delivery(root, f"user{i}") for i in range(number)]
    if exist:
        maildirs = Maildirs(QuietDisk())
        for each in found:
            maildirs.find(each)
        maildirs.close()
        settle(*found)
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    with owners_home() as found:
        yield found


@pytest.fixture(params=["as root", "as the owner"])
def rights(request: pytest.FixtureRequest, home: Path) -> Rights:
    """Root and owners reach a Maildir by different ways."""
    is_owner = request.param == "as the owner"
    return partial(owners_rights, home) if is_owner else contextlib.nullcontext


def deliver_until(
    step: int,
    deliveries: Sequence[Delivery],
    *,
    entries_lost: bool,
    make_disk: MakeDisk,
) -> bool:
    """Whether all are acknowledged before the power fails."""
    acknowledged = False
    disk = make_disk(cut_at=step)
    with contextlib.suppress(PowerCut):
        acknowledged = deliver(disk, deliveries)
    disk.lose_power(entries_lost=entries_lost)
    return acknowledged


@pytest.mark.parametrize("entries_lost", [True, False])
@everywhere
@pytest.mark.parametrize(("number", "exist"), [(1, True), (2, True), (4, True), (1, False)])
def test_power_cut_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    rights: Rights,
    number: int,
    exist: bool,
    make_disk: MakeDisk,
    entries_lost: bool,
) -> None:
    monkeypatch.setattr("restante.mda.batch.MANY", 4)  # so many are synced halfway as well
    step = 0
    acknowledged = False
    while not acknowledged:
        root = home / str(step)
        root.mkdir()
        os.chown(root, OWNER, GROUP)
        deliveries = mailboxes(root, number, exist=exist)
        with rights():
            acknowledged = deliver_until(
                step, deliveries, entries_lost=entries_lost, make_disk=make_disk
            )
        check_visible(deliveries, 1 if acknowledged else None)
        with rights():
            assert deliver(QuietDisk(), deliveries, again=True)
        check_visible(deliveries, 1)
        step += 1
    assert step > 5


def deliver_twice(step: int, deliveries: Sequence[Delivery], make_disk: MakeDisk) -> bool:
    """Whether the process lives on at that step; if not, another delivers, and the power fails."""
    disk = make_disk(cut_at=step)
    with contextlib.suppress(PowerCut):
        return deliver(disk, deliveries)
    disk.cut_at = -1
    assert deliver(disk, deliveries, again=True)
    disk.lose_power(entries_lost=True)
    return False


@everywhere
@pytest.mark.parametrize("number", [1, 2])
def test_killed_at_every_step_and_a_power_cut_after_the_retry(
    home: Path,
    rights: Rights,
    number: int,
    make_disk: MakeDisk,
) -> None:
    """What is found where an earlier attempt left it is durable before it counts."""
    step = 0
    lives = False
    while not lives:
        root = home / str(step)
        root.mkdir()
        os.chown(root, OWNER, GROUP)
        deliveries = mailboxes(root, number, exist=True)
        with rights():
            lives = deliver_twice(step, deliveries, make_disk)
        check_visible(deliveries, 1)
        step += 1
    assert step > 5


def deliver_while_moved(
    deliveries: Sequence[Delivery], moving: int, elsewhere: Path, make_disk: MakeDisk
) -> bool:
    """Whether all are acknowledged, before the power fails, though some Maildirs move meanwhile."""

    def move(_name: str) -> int:
        for number, each in enumerate(deliveries[:moving]):
            moved, place = Path(each.maildir), elsewhere / f"{number}"
            if not moved.is_symlink():
                shutil.copytree(moved, place)
                moved.rename(moved.with_name("former"))
                moved.symlink_to(place)
        return 0

    return deliver_and_lose_power(make_disk(faults={"create": move}), deliveries)


def deliver_where_it_is_made_again(one: Delivery, make_disk: MakeDisk) -> bool:
    """Whether the first of three jobs is acknowledged, before the power fails.

    The Maildir goes away while the second looks into it; the third cannot make it again, so that
    the first does when its file is created.
    """
    refused: list[str] = []

    def refuse_once(name: str) -> int:
        refused.append(name)
        return errno.EIO if len(refused) == 1 else 0

    disk = make_disk(faults={"make_directory": refuse_once})
    open_directory = disk.open_directory

    def move_and_open(name: str, parent: int | None) -> int:
        opened = open_directory(name, parent)
        if name.endswith("../new"):
            os.rename(one.maildir, one.maildir + ".old")
        return opened

    jobs = [
        Job(envelope(number), CONTENT, [one], together=False, again=number == 1)
        for number in range(3)
    ]
    maildirs = Maildirs(disk)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(disk, "open_directory", move_and_open)
        Batch(disk, maildirs, Policy(HOST, 1, 1), jobs).run()
    maildirs.close()
    disk.lose_power(entries_lost=True)
    return isinstance(jobs[0].outcomes()[0], Delivered)


@everywhere
def test_a_maildir_that_is_made_again_for_a_file(
    home: Path, rights: Rights, make_disk: MakeDisk
) -> None:
    (one,) = mailboxes(home, 1, exist=True)
    with rights():
        assert deliver_where_it_is_made_again(one, make_disk)
    check_visible([one])
    assert any(envelope(0).queue_id in name for name in messages(one))


@everywhere
@pytest.mark.parametrize(("number", "moving"), [(1, 1), (2, 1), (2, 2)])
def test_a_maildir_that_moves_to_another_disk_meanwhile(
    home: Path, number: int, moving: int, make_disk: MakeDisk
) -> None:
    """An administrator moves it and puts a link in its place."""
    deliveries = mailboxes(home, number, exist=True)
    with tempfile.TemporaryDirectory(prefix="restante-test-", dir="/dev/shm") as other:
        assert os.stat(other).st_dev != os.stat(home).st_dev
        os.chown(other, OWNER, GROUP)
        with owners_rights(home):
            assert deliver_while_moved(deliveries, moving, Path(other), make_disk)
        check_visible(deliveries, 1)


def replace(disk: FaultyDisk, deliveries: Sequence[Delivery]) -> None:
    """Put empty Maildirs in the places of those that are there."""
    for each in deliveries:
        os.rename(each.maildir, f"{each.maildir}.old")
        disk.was_moved(each.maildir, f"{each.maildir}.old")
        shutil.copytree(f"{each.maildir}.old", each.maildir, ignore=lambda *_: ["cur", "new"])
        os.mkdir(f"{each.maildir}/new")


def deliver_while_replaced(
    deliveries: Sequence[Delivery], make_disk: MakeDisk, *, named: bool
) -> bool:
    """Whether all are acknowledged, before the power fails, though Maildirs are replaced just
    before the last file gets its name, or when it is ``named``."""
    disk = make_disk()
    left = len(deliveries)

    def about(give_name: Callable[..., None]) -> Callable[..., None]:
        def replacing(*how: object) -> None:
            nonlocal left
            left -= 1
            if left == 0 and not named:
                replace(disk, deliveries)
            give_name(*how)
            if left == 0 and named:
                replace(disk, deliveries)

        return replacing

    with pytest.MonkeyPatch.context() as patched:
        for way in ("link", "rename"):
            patched.setattr(disk, way, about(getattr(disk, way)))
        return deliver_and_lose_power(disk, deliveries)


@everywhere
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_a_maildir_that_is_replaced_meanwhile(
    home: Path, number: int, named: bool, make_disk: MakeDisk
) -> None:
    """What is acknowledged is in one or the other, as a whole."""
    deliveries = mailboxes(home, number, exist=True)
    with owners_rights(home):
        acknowledged = deliver_while_replaced(deliveries, make_disk, named=named)
    assert acknowledged or not named
    if acknowledged:
        for each in deliveries:
            places = [Path(f"{each.maildir}{suffix}/new") for suffix in ("", ".old")]
            seen = [file.read_bytes() for place in places for file in place.iterdir()]
            assert seen == [expected(each)]


@everywhere
@pytest.mark.parametrize("error", [errno.EIO, errno.EPERM])
def test_the_last_name_is_refused(tmp_path: Path, make_disk: MakeDisk, error: int) -> None:
    """The others are durable all the same, and so is it if it could be written in another way."""
    deliveries = mailboxes(tmp_path, 3, exist=True)
    asked = 0

    def refuse(_name: str) -> int:
        nonlocal asked
        asked += 1
        return error if asked == len(deliveries) else 0

    disk = make_disk(faults={"rename": refuse})
    maildirs = Maildirs(disk)
    job = Job(envelope(), CONTENT, deliveries, together=False, again=False)
    Batch(disk, maildirs, Policy(HOST, 1, 1), [job]).run()
    maildirs.close()
    disk.lose_power(entries_lost=True)
    acknowledged = [isinstance(outcome, Delivered) for outcome in job.outcomes()]
    assert acknowledged[:2] == [True, True]
    for each, is_there in zip(deliveries, acknowledged, strict=True):
        check_visible([each], int(is_there))


def deliver_while_one_comes_home(deliveries: Sequence[Delivery], make_disk: MakeDisk) -> bool:
    """Whether all are acknowledged, before the power fails, though the last one's Maildir, which
    was elsewhere, is made anew where the first is, when that one's file has been begun."""
    moved = deliveries[-1].maildir

    def come_home(_name: str) -> int:
        if os.path.islink(moved):
            os.unlink(moved)
        return 0

    return deliver_and_lose_power(make_disk(faults={"create": come_home}), deliveries)


@everywhere
def test_one_who_was_alone_on_a_disk_is_not_any_more(home: Path, make_disk: MakeDisk) -> None:
    deliveries = mailboxes(home, 2, exist=True)
    moved = Path(deliveries[-1].maildir)
    with tempfile.TemporaryDirectory(prefix="restante-test-", dir="/dev/shm") as other:
        os.chown(other, OWNER, GROUP)
        place = Path(other, "Maildir")
        shutil.move(moved, place)
        for each in (place, *place.iterdir()):
            os.chown(each, OWNER, GROUP)
        moved.symlink_to(place)
        settle(deliveries[-1])
        with owners_rights(home):
            assert deliver_while_one_comes_home(deliveries, make_disk)
        check_visible(deliveries, 1)


@everywhere
@pytest.mark.parametrize("number", [1, 4])
def test_the_lossy_disk_loses_what_is_not_synced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, make_disk: MakeDisk
) -> None:
    """The crash test can fail: without syncs a power cut takes the message away."""
    deliveries = mailboxes(tmp_path, number, exist=True)
    disk = make_disk()
    for sync in ("fsync", "syncfs"):
        monkeypatch.setattr(disk, sync, lambda _fd: None)
    assert deliver(disk, deliveries)
    disk.lose_power(entries_lost=True)
    assert not any(messages(each) for each in deliveries)


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_lossy_disk_cuts_what_is_not_brought_there_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, in_order: bool
) -> None:
    """So the crash test can fail: a name is kept, and half of the octets, or all, if in order."""
    deliveries = mailboxes(tmp_path, number, exist=True)
    disk = FaultyDisk(in_order=in_order)
    monkeypatch.setattr(disk, "keeps_order", lambda _fd: True)
    monkeypatch.setattr(disk, "fsync", lambda _fd: None)
    monkeypatch.setattr(disk, "syncfs", lambda _fd: None)
    assert deliver(disk, deliveries)
    disk.lose_power(entries_lost=False)
    seen = [octets for each in deliveries for octets in messages(each).values()]
    whole = [expected(each) for each in deliveries]
    assert len(seen) == number
    assert all(octets == all_of_it for octets, all_of_it in zip(seen, whole, strict=True)) is (
        in_order
    )


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_in_the_middle_of_batches(tmp_path: Path, number: int) -> None:
    acknowledged = _kill_after(tmp_path, 1 + 17 * number)
    deliveries = [delivery(tmp_path, name) for name in MAILBOXES]
    check_visible(deliveries)
    for each in deliveries:
        ids = {name.split(".")[1].split("_")[0] for name in messages(each)}
        assert {envelope(sent).queue_id for sent in acknowledged} <= ids
    begun = range(max(acknowledged) + SENDERS + 1)
    _retry(begun, deliveries)
    check_visible(deliveries, len(begun))


def _retry(numbers: Iterable[int], deliveries: Sequence[Delivery]) -> None:
    disk = QuietDisk()
    maildirs = Maildirs(disk)
    jobs = [Job(envelope(n), CONTENT, deliveries, together=False, again=True) for n in numbers]
    Batch(disk, maildirs, Policy(HOST, 1, 1), jobs).run()
    maildirs.close()
    assert all(isinstance(outcome, Delivered) for job in jobs for outcome in job.outcomes())


def _kill_after(root: Path, acknowledgements: int) -> set[int]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mda_child", str(root)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    with child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.kill()
        lines += child.stdout.readlines()
    return {int(line) for line in lines if line.endswith(b"\n")}
