"""Guesses: distinct wrong passwords count, for account and network, for all processes together."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from restante.guessing import (
    EVERYWHERE,
    KNOWN_FOR,
    MAX_DELAY,
    NEIGHBOURS,
    GuessesUnusable,
    Limits,
    Standing,
    delay,
    guard,
    objection,
)
from restante.guessing import file as guess_file
from restante.guessing.file import FILE_NAME, GuessFile
from restante.guessing.guard import FileGuard
from restante.guessing.secret import FILE_NAME as KEY_NAME
from restante.guessing.secret import KEY_SIZE, digest, read_key
from restante.network import network_of
from restante.tally.owner import as_owner
from tests.support.events import capture_logs

ANN, BOB = "ann@example.com", "bob@example.com"
HOME, OFFICE, THIEF = "192.0.2.7", "198.51.100.9", "203.0.113.66"
LIMITS = Limits(account=4, network=10, window=3600)


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Gate:
    """A guard, and a clock that a test may turn."""

    directory: Path
    limits: Limits = LIMITS
    shared: tuple[str, ...] = ()
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.guard = self.another()

    def another(self) -> FileGuard:
        """That of another process."""
        return FileGuard(str(self.directory), self.limits, self.shared, self.clock)

    async def reopen(self) -> None:
        await self.guard.close()
        self.guard = self.another()

    async def guess(self, account: str, peer: str, *passwords: str) -> list[bool]:
        """Whether each wrong password was looked at; those that were are counted."""
        return [await self._try(account, peer, password) for password in passwords]

    async def _try(self, account: str, peer: str, password: str) -> bool:
        if await self.refusal(account, peer):
            return False
        await self.guard.wrong(account, peer, password)
        return True

    async def refusal(self, account: str, peer: str) -> str:
        found = (await self.guard.look(account, peer)).objection
        return f"{found.scope} {found.name}" if found else ""

    async def log_in(self, account: str, peer: str) -> None:
        await self.guard.right(account, peer, await self.guard.look(account, peer))


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    made = Gate(tmp_path)
    yield made
    await made.guard.close()


def words(count: int, prefix: str = "guess") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def test_distinct_passwords_for_one_account_from_one_network_are_bounded(gate: Gate) -> None:
    assert await gate.guess(ANN, THIEF, *words(6)) == [True] * 4 + [False] * 2
    assert await gate.refusal(ANN, THIEF) == f"account {ANN}"
    assert await gate.refusal(BOB, THIEF) == ""
    assert await gate.refusal(ANN, HOME) == ""


async def test_what_a_phone_repeats_is_one_guess(gate: Gate) -> None:
    assert all(await gate.guess(ANN, HOME, *(["old password"] * 100)))
    assert (await gate.guard.look(ANN, HOME)).standing == Standing(1, 1, 1, 1)


async def test_a_guess_counts_for_the_window_from_when_it_was_first_tried(gate: Gate) -> None:
    for word in words(4):
        await gate.guess(ANN, THIEF, word)
        gate.clock.now += 600
    gate.clock.now += 3600 - 4 * 600 - 1
    assert await gate.refusal(ANN, THIEF)
    gate.clock.now += 1
    assert await gate.refusal(ANN, THIEF) == ""
    assert await gate.guess(ANN, THIEF, "fifth", "sixth") == [True, False]


async def test_names_of_one_account_count_together_whatever_their_case(gate: Gate) -> None:
    await gate.guess(ANN, THIEF, *words(2))
    await gate.guess(ANN.upper(), THIEF, *words(2, "other"))
    assert await gate.refusal(ANN, THIEF)


async def test_one_network_is_refused_for_all_accounts_known_or_not(gate: Gate) -> None:
    for number in range(10):
        assert await gate.guess(f"user{number}", THIEF, "123456") == [True]
    assert await gate.refusal("user99", THIEF) == f"network {THIEF}"
    assert await gate.refusal("user99", HOME) == ""


@pytest.mark.parametrize(
    ("addresses", "name"),
    [
        ([f"2001:db8:1:2::{number:x}" for number in range(1, 11)], "2001:db8:1:2::/64"),
        ([f"2001:db8:1:{number:x}::1" for number in range(1, 41)], "2001:db8:1::/48"),
        ([f"203.0.113.{number}" for number in range(1, 41)], "203.0.113.0/24"),
        (["203.0.113.5", "::ffff:203.0.113.5"] * 5, "203.0.113.5"),
    ],
)
async def test_what_a_network_is(gate: Gate, addresses: list[str], name: str) -> None:
    for number, address in enumerate(addresses):
        assert await gate.guess(f"user{number}", address, "123456") == [True], number
    assert await gate.refusal("user99", addresses[-1]) == f"network {name}"


async def test_strangers_do_not_keep_an_owner_from_where_he_has_logged_in(gate: Gate) -> None:
    await gate.log_in(ANN, HOME)
    await gate.reopen()
    for number in range(20):
        await gate.guess(ANN, f"203.0.{number}.1", *words(4, f"{number} "))
    assert await gate.refusal(ANN, OFFICE) == f"account {ANN}"
    assert await gate.refusal(ANN, HOME) == ""
    assert await gate.guess(ANN, HOME, *words(5, "home")) == [True] * 4 + [False]
    gate.clock.now += KNOWN_FOR
    for number in range(20):
        await gate.guess(ANN, f"203.0.{number}.1", *words(4, f"{number} "))
    assert await gate.refusal(ANN, HOME) == f"account {ANN}"


async def test_one_network_cannot_keep_an_owner_from_new_ones(gate: Gate) -> None:
    await gate.guess(ANN, THIEF, *words(50))
    assert await gate.refusal(ANN, HOME) == ""


async def test_whoever_is_known_logs_in_from_a_network_that_is_refused(gate: Gate) -> None:
    await gate.log_in(ANN, OFFICE)
    await gate.reopen()
    for number in range(10):
        await gate.guess(f"user{number}", OFFICE, "123456")
    assert await gate.refusal(BOB, OFFICE) == f"network {OFFICE}"
    assert await gate.refusal(ANN, OFFICE) == ""


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "192.0.2.25", "::ffff:192.0.2.25", ""])
async def test_a_webmail_is_not_refused_as_a_network(tmp_path: Path, peer: str) -> None:
    gate = Gate(tmp_path, shared=("192.0.2.25/32",))
    for number in range(50):
        assert await gate.guess(f"user{number}", peer, "123456") == [True]
    assert (await gate.guard.wrong(ANN, peer, "guess")).network == 0  # nobody waits for the others
    await gate.guess(ANN, peer, *words(3))
    assert await gate.refusal(ANN, peer) == f"account {ANN}"
    await gate.guard.close()


async def test_a_right_password_forgives_what_was_tried_before_it(gate: Gate) -> None:
    await gate.guess(ANN, HOME, *words(3))
    await gate.log_in(ANN, HOME)
    assert (await gate.guard.look(ANN, HOME)).standing.here == 0


async def test_a_password_that_is_not_seen_is_a_guess_each_time(gate: Gate) -> None:
    for _ in range(4):
        assert not await gate.refusal(ANN, HOME)
        await gate.guard.wrong(ANN, HOME, None)
    assert await gate.refusal(ANN, HOME)


async def test_limits_of_zero_are_none(tmp_path: Path) -> None:
    gate = Gate(tmp_path, Limits(account=0, network=0, window=3600))
    assert all(await gate.guess(ANN, THIEF, *words(200)))
    await gate.guard.close()


@pytest.mark.parametrize("name", ["", "\udce9\0" * 400, "x" * 100_000])
async def test_any_login_and_password_can_be_counted(gate: Gate, name: str) -> None:
    with capture_logs() as events:
        assert await gate.guess(name, THIEF, name, name + "!") == [True, True]
        assert (await gate.guard.look(name, THIEF)).standing.here == 2
    assert events == []


async def test_reaching_a_limit_is_logged_once(gate: Gate) -> None:
    with capture_logs() as events:
        await gate.guess(ANN, THIEF, *words(9))
    assert events == [
        {
            "event": "guessing",
            "log_level": "warning",
            "scope": "account",
            "name": ANN,
            "peer": THIEF,
            "guesses": 4,
        }
    ]


# Delays


@pytest.mark.parametrize(
    ("guesses", "seconds"), [(0, 2), (1, 2), (2, 2), (3, 4), (4, 8), (5, 16), (6, MAX_DELAY)]
)
def test_refusals_are_told_later_and_later(guesses: int, seconds: float) -> None:
    assert delay(2.0, Standing(network=guesses)) == seconds
    assert delay(2.0, Standing(here=guesses)) == seconds
    assert delay(0.0, Standing(here=guesses)) == 0.0
    assert delay(60.0, Standing(here=guesses)) == 60.0


def test_objections_name_what_is_exceeded_and_by_how_much() -> None:
    network = network_of(THIEF)
    found = objection(LIMITS, Standing(account=4 * EVERYWHERE), ANN, network)
    assert str(found) == "account ann@example.com: 12 wrong passwords of 12"
    found = objection(LIMITS, Standing(wide=10 * NEIGHBOURS), ANN, network)
    assert str(found) == "network 203.0.113.0/24: 40 wrong passwords of 40"


# The files


async def test_neither_file_tells_a_password(gate: Gate) -> None:
    await gate.guess(ANN, HOME, "correct horse battery staple")
    await gate.guard.close()
    key = (gate.directory / KEY_NAME).read_bytes()
    for path in gate.directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert b"horse" not in path.read_bytes()
    connection = sqlite3.connect(gate.directory / FILE_NAME)
    [(kept,)] = connection.execute("SELECT digest FROM wrong").fetchall()
    connection.close()
    assert kept == digest(key, ANN, "correct horse battery staple")
    assert len(kept) == 3  # so that even with the key, millions of passwords would fit
    assert digest(key, BOB, "correct horse battery staple") != kept
    gate.guard = gate.another()


def test_all_processes_have_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from restante.guessing.secret import read_key; sys.stdin.readline();"
        "print(read_key(sys.argv[1]).hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()
    assert {maker.communicate(timeout=60)[0].strip() for maker in makers} == {
        read_key(str(tmp_path)).hex()
    }
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_what_was_left_of_the_making_of_a_key_goes(tmp_path: Path) -> None:
    """Of a process that was killed."""
    (tmp_path / f"{KEY_NAME}.new").write_bytes(b"x" * KEY_SIZE)
    assert read_key(str(tmp_path)) != b"x" * KEY_SIZE
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_root_works_with_the_rights_of_the_directorys_owner(tmp_path: Path) -> None:
    """A link that the server's user has laid leads root nowhere, and nothing is made as root."""
    is_root = os.geteuid() == 0
    queue, secret = tmp_path / "queue", tmp_path / "secret"
    queue.mkdir()
    secret.write_text("of root's")
    secret.chmod(0o600)
    owner = (12345, 12346) if is_root else (os.geteuid(), os.getegid())
    os.chown(queue, *owner)
    (queue / KEY_NAME).symlink_to(secret)
    with as_owner(str(queue), [12347]):
        assert (os.geteuid(), os.getegid()) == owner
        assert not is_root or os.getgroups() == [12346, 12347]
        with pytest.raises(GuessesUnusable, match=r"guesses\.key"):
            read_key(str(queue))
        (queue / KEY_NAME).unlink()
        read_key(str(queue))
        GuessFile.open(str(queue / FILE_NAME), 3600, create=True).close()
    assert os.geteuid() == os.getuid()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in queue.iterdir()} == {owner}


_WORKER = """
import asyncio, sys
from restante.guessing import Limits
from restante.guessing.guard import FileGuard

async def main() -> None:
    guard = FileGuard(sys.argv[1], Limits(1000, 1000, 3600), ())
    sys.stdin.readline()
    for number in range(50):
        await guard.wrong("ann@example.com", "203.0.113.66", f"{sys.argv[2]} {number}")
    await guard.close()

asyncio.run(main())
"""


def test_processes_count_together_and_restarts_forget_nothing(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), name], stdin=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "b")
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=False)
    assert file.standing(ANN, network_of(THIEF), time.time()).here == 100
    file.close()


async def test_files_that_fail_are_said_and_keep_nobody_out(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "queue")
    with capture_logs() as events:
        assert all(await gate.guess(ANN, THIEF, *words(8)))
        await gate.log_in(ANN, THIEF)
    assert [event["event"] for event in events] == ["guessing_failed"]
    assert "guesses.key" in events[0]["why"]
    gate.directory.mkdir()
    gate.clock.now += 11
    assert await gate.guess(ANN, THIEF, *words(5)) == [True] * 4 + [False]
    await gate.guard.close()


async def test_a_file_that_breaks_while_it_is_used_is_opened_anew(gate: Gate) -> None:
    await gate.guess(ANN, THIEF, *words(4))
    connection = sqlite3.connect(gate.directory / FILE_NAME)
    connection.execute("DROP TABLE wrong")
    with capture_logs() as events:
        assert await gate.refusal(ANN, THIEF) == ""
    assert [event["event"] for event in events] == ["guessing_failed"]
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    gate.clock.now += 11
    await gate.guess(ANN, THIEF, "first")  # the writer notices, and mends it
    gate.clock.now += 11
    assert await gate.guess(ANN, THIEF, *words(4)) == [True] * 3 + [False]


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    """A power cut may leave it so; what a process that was killed has made of one goes too."""
    for left in ("", ".new"):
        (tmp_path / f"{KEY_NAME}{left}").touch()
    key = read_key(str(tmp_path))
    assert len(key) == KEY_SIZE
    assert read_key(str(tmp_path)) == key
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_a_key_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(os.readlink(f"/proc/self/fd/{fd}")))
    read_key(str(tmp_path))
    assert steps == [str(tmp_path / f"{KEY_NAME}.new"), str(tmp_path)]


def test_a_damaged_key_is_said(tmp_path: Path) -> None:
    (tmp_path / KEY_NAME).write_bytes(b"short")
    with pytest.raises(GuessesUnusable, match=r"guesses\.key is damaged: remove it"):
        read_key(str(tmp_path))


async def test_a_right_password_that_nobody_guesses_at_writes_nothing(gate: Gate) -> None:
    await gate.log_in(ANN, HOME)
    await gate.reopen()  # writes down where ann logs in from
    await gate.log_in(ANN, HOME)
    await gate.reopen()
    before = _changes(gate.directory)
    for _ in range(10):
        await gate.log_in(ANN, HOME)
    assert _changes(gate.directory) == before


def _changes(directory: Path) -> list[tuple[str, int, int]]:
    return [
        (path.name, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(directory.glob("*.db*"))
        if not path.name.endswith("-shm") and path.stat().st_size
    ]


def test_the_file_is_bounded_and_forgets_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guess_file, "MAX_WRONG", 100)
    monkeypatch.setattr(guess_file, "MAX_KNOWN", 50)
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=True)
    with file.transaction():
        for number in range(300):
            network = network_of(f"10.0.{number // 250}.{number % 250}")
            file.count(f"user{number}", network, b"abc", 1000 + number)
        file.know((f"user{number}", "10.0.0.1", 1000.0) for number in range(300))
        file.forget_old(1300)
    guessed = {each.account for each in file.guessed(1300)}
    assert guessed == {f"user{number}" for number in range(200, 300)}
    monkeypatch.setattr(guess_file, "MAX_WRONG", 1000)
    with file.transaction():
        for number in range(300):
            file.count(f"user{number}", network_of("10.0.0.1"), b"abc", 1300)
    known = [
        file.standing(f"user{number}", network_of("10.0.0.1"), 1300).known for number in range(300)
    ]
    assert known == [False] * 250 + [True] * 50
    file.close()


def test_those_who_log_in_often_take_nobody_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker tells of them each day, and whenever it is new."""
    monkeypatch.setattr(guess_file, "MAX_KNOWN", 50)
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=True)
    day = 86400
    with file.transaction():
        file.know((f"weekly{number}", HOME, day) for number in range(10))
        for now in range(day, 8 * day, day // 4):
            file.know((f"daily{number}", HOME, now) for number in range(10))
            file.forget_old(now)
        file.count("weekly0", network_of(HOME), b"abc", now)
    assert file.standing("weekly0", network_of(HOME), now).known
    with file.transaction():
        file.know([("ahead", HOME, now + 900 * day), ("ahead", HOME, now)])
        file.forget_old(now + 40 * day)
        file.count("ahead", network_of(HOME), b"abc", now + 40 * day)
    assert not file.standing("ahead", network_of(HOME), now + 40 * day).known
    file.close()


def test_a_login_that_was_noted_is_not_noted_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "MAX_NOTED", 10)
    logins = guard._Logins()
    assert all(logins.note(f"user{number}", HOME, 1000.0) for number in range(11))
    assert [logins.note(f"user{number}", HOME, 1001.0) for number in range(5, 11)] == [False] * 6
    assert logins.note("user0", HOME, 1001.0), "it was forgotten, as others were too many"


def test_a_look_counts_no_further_than_any_limit_is(tmp_path: Path) -> None:
    """Where ``auth.guess_account`` is 0, one account may have all the guesses of the file."""
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=True)
    with file.transaction():
        for number in range(guess_file.MOST + 100):
            file.count(ANN, network_of(HOME), number.to_bytes(3, "big"), 1000)
    standing = file.standing(ANN, network_of(HOME), 1000)
    assert {standing.here, standing.account, standing.network} == {guess_file.MOST}
    file.close()


def test_what_is_old_or_lies_in_the_future_is_removed(tmp_path: Path) -> None:
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=True)
    now = 1_800_000_000.0
    with file.transaction():
        for at in (now - 3600, now - 3599, now, now + 86400):
            file.count(ANN, network_of(HOME), f"{at}".encode(), at)
        file.forget_old(now)
        assert file.clear_all() == 2
    file.close()


def test_clearing(tmp_path: Path) -> None:
    file = GuessFile.open(str(tmp_path / FILE_NAME), 3600, create=True)
    with file.transaction():
        for account in (ANN, BOB):
            for peer in (HOME, "192.0.2.8", OFFICE):
                file.count(account, network_of(peer), b"abc", 1000)
        assert file.clear(ANN) == 3
        assert file.clear(HOME) == 1
        assert file.clear("192.0.2.0/24") == 1
        assert file.clear("nobody") == 0
        assert [(each.account, each.network) for each in file.guessed(1000)] == [(BOB, OFFICE)]
    file.close()
