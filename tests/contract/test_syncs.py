"""Nothing acknowledged is lost: what of queue and drop directory is synced, and what came before.

Whether that is enough, tests/crash sees where the power really fails.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import closing
from pathlib import Path

import pytest

from restante.drop import is_finished, is_unfinished
from restante.drop.deposit import Deposit, finish
from restante.pickup.claims import settle
from restante.queue.bodies import Bodies, make_durable_directory
from restante.queue.schema import connect_writer
from tests.support.dropped import HELLO, SLOT, World, to
from tests.support.queued import LARGE, content, envelope, targets
from tests.support.syncs import note_syncs

CLAIMED = f"claimed/{SLOT}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def test_a_commit_of_the_queue_is_on_the_disk(tmp_path: Path) -> None:
    with closing(connect_writer(str(tmp_path))) as connection:
        modes = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    assert modes == ["wal", 2], "FULL: each commit syncs the log"


def test_a_large_body_and_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = content(LARGE)
    synced = note_syncs(monkeypatch, tmp_path)
    Bodies(str(tmp_path)).keep("m1", given)
    assert synced == [("m1", LARGE), (".", ["m1"])]


def test_a_directory_and_what_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = note_syncs(monkeypatch, tmp_path)
    make_durable_directory(str(tmp_path / "queue" / "0"))
    assert dict(synced) == {".": ["queue"], "queue": ["0"], "queue/0": []}


@pytest.mark.parametrize("may_list", [True, False])
def test_what_is_dropped_and_then_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch, *, may_list: bool
) -> None:
    deposit = Deposit(world.paths, to("ann@example.com"))
    deposit.write(HELLO)
    if not may_list:
        _close(world.paths.incoming, monkeypatch)
    synced = note_syncs(monkeypatch, Path(world.paths.incoming))
    finish(world.paths, [deposit])
    (unnamed, octets), named = synced
    (name,) = os.listdir(world.paths.incoming)
    assert is_unfinished(unnamed)
    assert is_finished(name)
    assert octets == (Path(world.paths.incoming) / name).read_bytes()
    assert named == ((".", [name]) if may_list else (name, octets))


@pytest.mark.parametrize("may_list", [True, False])
def test_of_several_messages_all_are_there_before_the_first_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, *, may_list: bool
) -> None:
    deposits = [Deposit(world.paths, to(address)) for address in ("ann@example.com", "bob@x.org")]
    if not may_list:
        _close(world.paths.incoming, monkeypatch)
    synced = note_syncs(monkeypatch, Path(world.paths.incoming))
    finish(world.paths, deposits)
    contents, named = synced[:2], synced[2:]
    names = os.listdir(world.paths.incoming)
    assert all(is_unfinished(name) for name, _ in contents)
    assert all(is_finished(name) for name in names)
    shown = [(name.replace("t", "m"), octets) for name, octets in contents]
    assert named == ([(".", sorted(names))] if may_list else shown)


def _close(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for who may leave a file there and not list it."""
    opened = os.open

    def closed(path: str, flags: int, mode: int = 0o777) -> int:
        if path == directory:
            raise PermissionError(path)
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", closed)


async def test_what_is_claimed_has_its_new_name_before_it_loses_the_former(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without a journal writes each directory for itself."""
    world.drop()
    synced = note_syncs(monkeypatch, Path(world.paths.root))
    names = world.claim()
    assert synced == [("claimed", [str(SLOT)]), (CLAIMED, names), ("incoming", [])]


async def test_what_was_picked_up_is_gone_before_it_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it comes a second time."""
    world.drop()
    (name,) = os.listdir(world.paths.incoming)
    steps = _steps(world, monkeypatch)
    await world.pick_up()
    assert steps[-2:] == [(CLAIMED, []), ("forgotten", {name})]


async def test_what_is_settled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop()
    (taken,) = world.claim()
    await world.store.add(envelope(), content(), targets(), taken)
    world.drop()
    given_back = world.claim()
    steps = _steps(world, monkeypatch)
    await settle(world.settings, SLOT, world.store)
    assert steps == [("incoming", given_back), (CLAIMED, []), ("forgotten", {taken})]


def _steps(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is synced of the drop directory from now on, and what the queue forgets meanwhile."""
    steps = note_syncs(monkeypatch, Path(world.paths.root))
    forget = world.store.forget_taken

    async def forgetting(names: Collection[str]) -> None:
        steps.append(("forgotten", set(names)))
        await forget(names)

    monkeypatch.setattr(world.store, "forget_taken", forgetting)
    return steps
