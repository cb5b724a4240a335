"""Whatever rows change, and whenever: mail goes by rows that were read after its RCPT, or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.receiver import trust
from tests.support.events import capture_logs
from tests.support.memory_directory import account
from tests.unit.test_receiver_trust import Site, SlowDirectory, tables

NAMES = ("ann", "bob", "cid", "dan")
SESSIONS = 4
"""At the same time."""
AWAY, GONE = "away", "gone"
"""What somebody may be instead of a home: out of the database's reach, and nobody."""


@dataclass
class History:
    """Changes the rows, and knows what everybody has been: where their home was, AWAY or GONE."""

    site: Site
    chance: random.Random
    lives: dict[str, list[str]] = field(default_factory=lambda: {name: [name] for name in NAMES})

    def __post_init__(self) -> None:
        self._write()

    def now(self, name: str) -> int:
        """When it is in somebody's life."""
        return len(self.lives[name]) - 1

    def since(self, name: str, then: int) -> list[str]:
        """All that somebody has been from then on."""
        return self.lives[name][then:]

    async def go_on(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(0)
            happens = (self._move, self._move, self._go_away_or_come, self._hang, self._answer)
            self.chance.choice(happens)()

    def _move(self) -> None:
        if self.site.directory.away:
            return
        name = self.chance.choice(NAMES)
        home = f"{name}{self.now(name)}"
        self.lives[name].append(self.chance.choice((home, home, GONE)))
        self._write()

    def _go_away_or_come(self) -> None:
        away = self.site.directory.away = self.chance.random() < 0.2
        for name in NAMES:
            self.lives[name].append(AWAY if away else self._home(name))

    def _hang(self) -> None:
        self.site.directory.open.clear()

    def _answer(self) -> None:
        self.site.directory.open.set()

    def _write(self) -> None:
        rows = self.site.directory.tables
        homes = {name: self._home(name) for name in NAMES}
        there = [name for name in NAMES if homes[name] != GONE]
        rows.virtual[:] = [(f"{name}@example.com", name, "example.com") for name in there]
        rows.virtual.append(("other@example.com", "other", "example.com"))
        rows.mailbox[:] = [account(f"{name}@example.com", f"/{homes[name]}") for name in NAMES]

    def _home(self, name: str) -> str:
        return next(state for state in reversed(self.lives[name]) if state != AWAY)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@given(st.integers(0, 2**32), st.sampled_from((1, 2, 50)), st.sampled_from((1, 2, 1_000)))
def test_mail_goes_by_rows_that_were_read_after_its_rcpt(
    place: Path, seed: int, together: int, most: int
) -> None:
    with (
        patch.object(trust, "TOGETHER", together),
        patch.object(trust, "MOST_QUESTIONS", most),
        capture_logs() as events,
    ):
        asyncio.run(some_sessions(place, random.Random(seed)))
    assert "unplanned" not in {event["event"] for event in events}


async def some_sessions(place: Path, chance: random.Random) -> None:
    history = History(Site(SlowDirectory(tables(*NAMES)), place), chance)
    changing = asyncio.create_task(history.go_on())
    async with asyncio.timeout(60):
        await asyncio.gather(*(session(history, str(number)) for number in range(SESSIONS)))
    changing.cancel()
    assert history.site.keeper.queued == [], "all of them have a Maildir here"


async def session(history: History, session_id: str) -> None:
    """One transaction after the other, some of them dropped."""
    site, chance = history.site, history.chance
    for _ in range(4):
        transaction = await site.begin(session_id)
        taken: dict[str, int] = {}
        for name in chance.choices(NAMES, k=5):
            then = history.now(name)
            reply = site.on_trust(transaction, name)[0]
            if not reply:
                (reply,) = await site.asked(transaction, name)
                assert kind(reply) in map(kind_of, history.since(name, then))
            if reply.startswith("250"):
                taken.setdefault(name, then)
        if taken and chance.random() < 0.8:
            reply = await site.finish(transaction)
            lives = [history.since(name, then) for name, then in taken.items()]
            copies = list(delivered(site, transaction.queue_id))
            assert_right(reply, copies, lives)


def assert_right(reply: str, copies: list[str], lives: list[list[str]]) -> None:
    """``reply`` to the content, and where it went, by what its recipients have been since RCPT."""
    if kind(reply) == "2":
        assert len(copies) == len(lives)
        for maildir, life in zip(copies, lives, strict=True):
            assert maildir.removesuffix("/Maildir").removeprefix("/") in life
        return
    assert copies == []
    seen = {state for life in lives for state in life}
    if kind(reply) == "5":
        assert len(lives) == 1
        assert GONE in seen
    else:
        assert AWAY in seen or (GONE in seen and len(lives) > 1)


def delivered(site: Site, queue_id: str) -> Iterator[str]:
    """The Maildirs that have a message."""
    for content, copies in zip(site.keeper.kept, site.keeper.together, strict=True):
        if queue_id.encode() in content.trace:
            yield from (copy.maildir for copy in copies)


def kind_of(state: str) -> str:
    """How RCPT is answered for who is in a state."""
    return {AWAY: "4", GONE: "5"}.get(state, "2")


def kind(reply: str) -> str:
    """The first digit, which says what is meant (RFC 5321 §4.2.1)."""
    return reply[0]
