"""Logins: three answers, one cost, a bound on what waits, and a record of each."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from restante.auth import LoginAttempt, Refusal, Refused, Welcome
from restante.auth.login import MAX_LOGIN, NOBODY, PasswordAuthenticator
from restante.auth.proven import ProvenPasswords
from restante.auth.schemes import Argon2Cost, hash_password, verify
from restante.checkpassword.wire import Question
from restante.config.tree import Auth
from restante.directory import Account, Credentials, DotQmail, KnownLookups
from restante.errors import CannotKnow
from restante.guessing import Guard, Limits
from restante.guessing.guard import FileGuard
from tests.support.events import capture_logs
from tests.support.guards import Unguarded

IAIN = Account("iain@example.com", 1000, 1000, "/srv/mail/iain")
DEAR = hash_password("secret", Argon2Cost(passes=1, memory=8, lanes=1))


@dataclass
class Rows:
    """A directory of credentials; an exception in place of a row is raised."""

    rows: dict[str, Credentials | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    in_full: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    def hold(self) -> Callable[[], None]:
        """Answer nothing until what this returns is called."""
        self.gate = asyncio.Event()
        return self.gate.set

    async def credentials(self, login: str, *, in_full: bool = False) -> Credentials | None:
        self.asked.append(login)
        if in_full:
            self.in_full.append(login)
        if self.gate is not None:
            await self.gate.wait()
        row = self.rows.get(login)
        if isinstance(row, Exception):
            raise row
        return row

    async def accepts_domain(self, domain: str) -> bool:
        raise AssertionError("a login asks for credentials only")

    async def account(self, name: str) -> Account | None:
        raise AssertionError("a login asks for credentials only")

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        raise AssertionError("a login asks for credentials only")

    async def knows_domain(self, domain: str) -> bool:
        raise AssertionError("a login asks for credentials only")

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        raise AssertionError("a login asks for credentials only")

    async def prefetch(self, addresses: Sequence[tuple[str, str]]) -> KnownLookups:
        raise AssertionError("a login asks for credentials only")

    async def owns_in(self, user: str, domain: str) -> bool:
        raise AssertionError("a login asks for credentials only")

    async def system_user(self, name: str) -> Account | None:
        raise AssertionError("a login asks for credentials only")

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        raise AssertionError("a login asks for credentials only")

    async def close(self) -> None:
        raise AssertionError("the directory is not the authenticator's to close")


@dataclass
class Desk:
    """An authenticator under test, the hashes it tried, and how long it slept."""

    settings: Auth = field(default_factory=lambda: Auth(refusal_delay=50.0))
    rows: Rows = field(default_factory=Rows)
    tried: list[str | None] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    guard: Guard = field(default_factory=Unguarded)
    proven: ProvenPasswords | None = None

    def __post_init__(self) -> None:
        self.gate.set()
        self.authenticator = self.renew()

    def renew(self) -> PasswordAuthenticator:
        self.authenticator = PasswordAuthenticator(
            self.rows,
            self.settings,
            self.guard,
            proven=self.proven,
            verify_password=self._verify,
            sleep=self._sleep,
        )
        return self.authenticator

    def _verify(self, password: str, stored: str | None, kind: str | None) -> bool:
        self.tried.append(stored)
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(60)
        return stored != NOBODY and verify(password, stored, kind)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def add(self, login: str, stored: str | None, kind: str | None = None) -> None:
        self.rows.rows[login] = Credentials(IAIN, stored, kind)

    async def login(
        self, login: str, password: str = "secret", peer: str = "192.0.2.7"
    ) -> Welcome | Refused:
        return await self.authenticator.login(LoginAttempt("s", login, password, "pop3", peer))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.gate.set()
    await made.authenticator.close()


async def test_right_password_is_welcome_at_once(desk: Desk) -> None:
    desk.add("iain", DEAR)
    with capture_logs() as events:
        assert await desk.login("iain") == Welcome(IAIN)
    assert desk.slept == []
    assert events == [
        {
            "event": "login",
            "log_level": "info",
            "session": "s",
            "service": "pop3",
            "peer": "192.0.2.7",
            "login": "iain",
            "account": "iain@example.com",
        }
    ]


async def test_wrong_password_waits_and_is_recorded(desk: Desk) -> None:
    desk.add("iain", DEAR)
    with capture_logs() as events:
        assert await desk.login("iain", "hunter2") == Refused(Refusal.WRONG_PASSWORD)
    assert len(desk.slept) == 1
    assert 0 < desk.slept[0] <= 50.0
    assert events[0]["event"] == "login_refused"
    assert events[0]["reason"] == "wrong password"
    assert "hunter2" not in str(events)


async def test_unknown_user_costs_a_hash_and_the_same_wait(desk: Desk) -> None:
    with capture_logs() as events:
        assert await desk.login("nobody") == Refused(Refusal.UNKNOWN_USER)
    assert desk.tried == [NOBODY]
    assert "hashing" in desk.threads[0]
    assert 0 < desk.slept[0] <= 50.0
    assert events[0]["reason"] == "unknown user"


async def test_database_that_is_away_is_a_system_error_at_once(desk: Desk) -> None:
    desk.rows.rows["iain"] = CannotKnow("no connection")
    with capture_logs() as events:
        assert await desk.login("iain") == Refused(Refusal.SYSTEM_ERROR)
    assert desk.slept == []
    assert (events[0]["reason"], events[0]["detail"]) == ("system error", "no connection")


async def test_hash_that_cannot_be_judged_is_a_system_error(desk: Desk) -> None:
    desk.add("iain", "{ROT13}frperg")
    with capture_logs() as events:
        assert await desk.login("iain") == Refused(Refusal.SYSTEM_ERROR)
    assert "iain@example.com" in events[0]["detail"]
    assert "frperg" not in str(events)


async def test_bug_is_a_system_error_with_a_trace(desk: Desk) -> None:
    desk.rows.rows["iain"] = ZeroDivisionError("oops")
    with capture_logs() as events:
        assert await desk.login("iain") == Refused(Refusal.SYSTEM_ERROR)
    assert [event["event"] for event in events] == ["unplanned", "login_refused"]


@pytest.mark.parametrize("stored", [None, ""])
async def test_account_without_password(desk: Desk, stored: str | None) -> None:
    desk.add("iain", stored)
    assert await desk.login("iain", "") == Refused(Refusal.WRONG_PASSWORD)
    assert await desk.login("iain", "secret") == Refused(Refusal.WRONG_PASSWORD)


async def test_a_password_that_was_right_is_not_hashed_again() -> None:
    desk = Desk(proven=ProvenPasswords(3600))
    desk.add("iain@example.com", DEAR)
    for _ in range(3):
        assert await desk.login("iain@example.com") == Welcome(IAIN)
    assert desk.tried == [DEAR]
    assert await desk.login("iain@example.com", "wrong") == Refused(Refusal.WRONG_PASSWORD)
    assert await desk.login("iain@example.com", "wrong") == Refused(Refusal.WRONG_PASSWORD)
    assert await desk.login("nobody@example.com") == Refused(Refusal.UNKNOWN_USER)
    assert await desk.login("nobody@example.com") == Refused(Refusal.UNKNOWN_USER)
    assert desk.tried == [DEAR, DEAR, DEAR, NOBODY, NOBODY]


async def test_beside_another_hash_it_is_hashed() -> None:
    desk = Desk(proven=ProvenPasswords(3600))
    desk.add("iain@example.com", DEAR)
    assert await desk.login("iain@example.com") == Welcome(IAIN)
    changed = hash_password("other", Argon2Cost(passes=1, memory=8, lanes=1))
    desk.add("iain@example.com", changed)
    assert await desk.login("iain@example.com") == Refused(Refusal.WRONG_PASSWORD)
    assert desk.tried == [DEAR, changed]


async def test_what_is_cheap_is_not_remembered() -> None:
    proven = ProvenPasswords(3600)
    desk = Desk(proven=proven)
    desk.add("iain@example.com", "secret", "Password")
    assert await desk.login("iain@example.com") == Welcome(IAIN)
    assert not proven.has("secret", "secret", "Password")


async def test_cheap_scheme_needs_no_thread(desk: Desk) -> None:
    desk.add("iain", "{PLAIN}secret")
    assert await desk.login("iain") == Welcome(IAIN)
    assert desk.threads == [threading.current_thread().name]


@pytest.mark.parametrize("login", ["", "a\0b", "x" * (MAX_LOGIN + 1), "é" * MAX_LOGIN, "\udcff"])
async def test_impossible_login_is_unknown_and_not_looked_up(desk: Desk, login: str) -> None:
    assert await desk.login(login) == Refused(Refusal.UNKNOWN_USER)
    assert desk.rows.asked == []
    assert desk.tried == [NOBODY]


async def test_logged_login_is_bounded(desk: Desk) -> None:
    with capture_logs() as events:
        await desk.login("x" * 100_000)
    assert len(events[0]["login"]) <= MAX_LOGIN + 1


async def test_nothing_is_recorded_where_that_is_switched_off(desk: Desk) -> None:
    await desk.authenticator.close()
    desk.settings = dataclasses.replace(desk.settings, log_logins=False)
    desk.renew()
    with capture_logs() as events:
        await desk.login("nobody")
    assert events == []


async def test_more_than_may_wait_is_a_system_error(desk: Desk) -> None:
    await desk.authenticator.close()
    desk.settings = Auth(refusal_delay=0, hashing_threads=1, hashing_queue=2)
    desk.renew()
    users = [dataclasses.replace(IAIN, name=f"user{number}") for number in range(4)]
    for user in users:
        desk.rows.rows[user.name] = Credentials(user, DEAR, None)
    desk.gate.clear()
    waiting = [asyncio.create_task(desk.login(each.name, peer=each.name)) for each in users[:3]]
    await asyncio.sleep(0)  # each has asked its directory and taken its place
    assert await desk.login("user3") == Refused(Refusal.SYSTEM_ERROR)
    desk.gate.set()
    assert await asyncio.gather(*waiting) == [Welcome(each) for each in users[:3]]
    assert await desk.login("user3") == Welcome(users[3])


async def test_one_peer_leaves_room_for_the_others(desk: Desk) -> None:
    await desk.authenticator.close()
    desk.settings = Auth(refusal_delay=0, hashing_threads=1, hashing_queue=1)
    desk.renew()
    desk.add("iain", DEAR)
    desk.gate.clear()
    guesses = [asyncio.create_task(desk.login("nobody", peer="192.0.2.66")) for _ in range(50)]
    await asyncio.sleep(0)
    welcome = asyncio.create_task(desk.login("iain"))
    await asyncio.sleep(0)
    desk.gate.set()
    assert await welcome == Welcome(IAIN)
    assert set(await asyncio.gather(*guesses)) == {Refused(Refusal.UNKNOWN_USER)}


async def test_place_of_a_client_that_left_is_given_back(desk: Desk) -> None:
    await desk.authenticator.close()
    desk.settings = Auth(refusal_delay=0, hashing_threads=1, hashing_queue=1)
    desk.renew()
    desk.add("iain", DEAR)
    desk.gate.clear()
    for _ in range(3):
        running, queued = (asyncio.create_task(desk.login("iain")) for _ in range(2))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        desk.gate.set()
        assert await running == Welcome(IAIN)
        desk.gate.clear()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk that takes three guesses for an account, and five from a network."""
    guard = FileGuard(str(tmp_path), Limits(account=3, network=5, window=3600), ())
    made = Desk(settings=Auth(refusal_delay=2.0, guess_network=5), guard=guard)
    made.add("iain", "{PLAIN}secret")
    yield made
    await made.authenticator.close()
    await guard.close()


async def guess(desk: Desk, login: str, count: int) -> list[Refusal]:
    answers = [await desk.login(login, f"guess {number}") for number in range(count)]
    assert all(isinstance(answer, Refused) for answer in answers)
    return [answer.reason for answer in answers if isinstance(answer, Refused)]


@pytest.mark.parametrize(
    ("login", "reason"), [("iain", Refusal.WRONG_PASSWORD), ("nobody", Refusal.UNKNOWN_USER)]
)
async def test_guesses_are_refused_unseen_alike_for_users_that_exist_and_that_do_not(
    guarded: Desk, login: str, reason: Refusal
) -> None:
    assert await guess(guarded, login, 5) == [reason] * 3 + [Refusal.TOO_MANY_GUESSES] * 2
    assert len(guarded.tried) == 3
    assert [round(seconds) for seconds in guarded.slept] == [2, 2, 4, 4, 4]


async def test_the_right_password_is_refused_there_and_taken_elsewhere(guarded: Desk) -> None:
    await guess(guarded, "iain", 3)
    with capture_logs() as events:
        assert await guarded.login("iain") == Refused(Refusal.TOO_MANY_GUESSES)
        assert await guarded.login("iain", peer="198.51.100.9") == Welcome(IAIN)
    assert events[0]["reason"] == "too many guesses"
    assert events[0]["detail"] == "account iain@example.com: 3 wrong passwords of 3"
    assert "secret" not in str(events)


async def test_a_phone_with_an_old_password_locks_nobody_out(guarded: Desk) -> None:
    for _ in range(20):
        assert await guarded.login("iain", "old") == Refused(Refusal.WRONG_PASSWORD)
    assert await guarded.login("iain") == Welcome(IAIN)
    assert {round(seconds) for seconds in guarded.slept} == {2}


async def test_no_password_at_all_is_one_guess_however_often(guarded: Desk) -> None:
    for _ in range(20):
        assert await guarded.login("iain", "") == Refused(Refusal.WRONG_PASSWORD)
    assert await guarded.login("iain") == Welcome(IAIN)


async def test_system_errors_are_no_guesses(guarded: Desk) -> None:
    guarded.rows.rows["iain"] = CannotKnow("no connection")
    assert await guess(guarded, "iain", 9) == [Refusal.SYSTEM_ERROR] * 9
    guarded.add("iain", "{ROT13}frperg")
    assert await guess(guarded, "iain", 9) == [Refusal.SYSTEM_ERROR] * 9


async def test_guesses_at_the_same_moment_hardly_exceed_the_limit(guarded: Desk) -> None:
    tries = (guarded.login(f"user{number}", "123456") for number in range(100))
    await asyncio.gather(*tries)
    assert 5 <= len(guarded.tried) <= 10


async def test_guesses_at_one_account_at_the_same_moment_hardly_exceed_its_limit(
    tmp_path: Path,
) -> None:
    guard = FileGuard(str(tmp_path), Limits(account=3, network=100, window=3600), ())
    desk = Desk(settings=Auth(refusal_delay=0, guess_network=100, hashing_threads=2), guard=guard)
    desk.add("iain", DEAR)
    await guess(desk, "somebody", 1)  # the files are there
    networks = [f"192.0.2.{number % 40}" for number in range(200)]
    tries = [desk.login("iain", f"x{n}", peer=peer) for n, peer in enumerate(networks)]
    await asyncio.gather(*tries)
    assert 9 <= desk.tried.count(DEAR) <= 10  # three times three from everywhere
    await desk.authenticator.close()
    await guard.close()


def test_attempt_shows_no_password() -> None:
    assert "hunter2" not in repr(LoginAttempt("s", "iain", "hunter2", "pop3", "192.0.2.7"))
    assert "hunter2" not in repr(Question("check", "iain", "hunter2", "192.0.2.7"))


def test_credentials_show_no_hash() -> None:
    assert "hunter2" not in repr(Credentials(IAIN, "hunter2", "Password"))
