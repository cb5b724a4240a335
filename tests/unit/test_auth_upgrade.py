"""Upgrades of hashes: one after another, bounded, and silent about what was said already."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from restante.auth.upgrade import MAX_WAITING, PAUSE, PasswordUpgrades
from restante.directory import Account, Credentials
from restante.errors import CannotKnow
from tests.support.events import capture_logs
from tests.support.no_threads import FewThreads

CURRENT = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$nf65EOgLrQMR"


def credentials(name: str, stored: str | None = "{PLAIN}secret") -> Credentials:
    return Credentials(Account(name, 1, 1, "/home"), stored, None)


@dataclass
class Keeper:
    """Keeps what it is given, unless it is told to fail, and while the gate is open."""

    error: Exception | None = None
    keeps: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    kept: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    async def replace_password(self, credentials: Credentials, password: str) -> bool:
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.keeps:
            self.kept.append((credentials.account.name, password))
        return self.keeps


@dataclass
class Desk:
    """Upgrades under test, with a clock that stands still."""

    keeper: Keeper = field(default_factory=Keeper)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.upgrades = PasswordUpgrades(
            self.keeper, make_hash=lambda password: f"<{password}>", monotonic=lambda: self.now
        )

    async def settle(self) -> None:
        self.keeper.gate.set()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def test_upgrade_is_told_of(desk: Desk) -> None:
    with capture_logs() as events:
        desk.upgrades.offer(credentials("iain"), "secret")
        await desk.settle()
    assert desk.keeper.kept == [("iain", "<secret>")]
    assert [(event["event"], event["account"]) for event in events] == [
        ("password_upgraded", "iain")
    ]


async def test_hash_that_is_good_enough_is_left_alone(desk: Desk) -> None:
    desk.upgrades.offer(credentials("iain", CURRENT), "secret")
    await desk.settle()
    assert desk.keeper.asked == 0


async def test_user_of_the_system_is_left_alone(desk: Desk) -> None:
    shadow = Credentials(Account("root", 0, 0, "/root"), "$6$x", "Crypt-Password", is_row=False)
    desk.upgrades.offer(shadow, "secret")
    await desk.settle()
    assert desk.keeper.asked == 0


async def test_hash_that_somebody_changed_is_nothing_to_tell_of(desk: Desk) -> None:
    desk.keeper.keeps = False
    with capture_logs() as events:
        desk.upgrades.offer(credentials("iain"), "secret")
        await desk.settle()
    assert desk.keeper.asked == 1
    assert events == []


async def test_failure_is_said_once_and_tried_again_after_a_pause(desk: Desk) -> None:
    desk.keeper.error = CannotKnow("UPDATE command denied")
    with capture_logs() as events:
        for name in ("iain", "ann", "bob"):
            desk.upgrades.offer(credentials(name), "secret")
        await desk.settle()
        assert desk.keeper.asked == 1
        desk.now += PAUSE
        desk.upgrades.offer(credentials("iain"), "secret")
        await desk.settle()
        assert desk.keeper.asked == 2
    assert [(event["event"], event["why"]) for event in events] == [
        ("password_not_upgraded", "UPDATE command denied")
    ]
    desk.now += PAUSE
    desk.keeper.error = None
    desk.upgrades.offer(credentials("iain"), "secret")
    await desk.settle()
    assert desk.keeper.kept == [("iain", "<secret>")]


async def test_without_a_thread_the_old_hash_stands(desk: Desk) -> None:
    asyncio.get_running_loop().set_default_executor(FewThreads(1))
    with capture_logs() as events:
        desk.upgrades.offer(credentials("iain"), "secret")
        await desk.settle()
    assert [event["event"] for event in events] == ["password_not_upgraded"]
    desk.now += PAUSE
    desk.upgrades.offer(credentials("iain"), "secret")
    await desk.settle()
    assert desk.keeper.kept == [("iain", "<secret>")]


async def test_bug_is_not_lost(desk: Desk) -> None:
    desk.keeper.error = ZeroDivisionError("oops")
    with capture_logs() as events:
        desk.upgrades.offer(credentials("iain"), "secret")
        await desk.settle()
    assert [event["event"] for event in events] == ["unplanned"]


async def test_what_waits_is_bounded(desk: Desk) -> None:
    for number in range(MAX_WAITING + 5):
        desk.upgrades.offer(credentials(f"user{number}"), "secret")
        desk.upgrades.offer(credentials(f"user{number}"), "secret")
    await desk.settle()
    assert [name for name, _ in desk.keeper.kept] == [f"user{n}" for n in range(MAX_WAITING)]


async def test_end_gives_up_what_waits(desk: Desk) -> None:
    for name in ("iain", "ann"):
        desk.upgrades.offer(credentials(name), "secret")
    await desk.upgrades.close()
    await desk.settle()
    assert desk.keeper.kept == []
