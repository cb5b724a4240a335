"""Logins by SCRAM: who can prove a password, and that nobody else is told apart from them."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from restante.auth import Refusal, Refused, ScramAttempt, Welcome
from restante.auth.login import PasswordAuthenticator
from restante.auth.schemes.derived import make_scram
from restante.auth.scram import ITERATIONS, SALT_SIZE, SECRET_FILE, load_secret
from restante.config.tree import Auth
from restante.directory import Account, Credentials
from restante.errors import CannotKnow, OperatorError
from restante.guessing import CLEAR, Guard, Look, Objection, Standing
from tests.support.deliveries import OWNER
from tests.support.events import capture_logs
from tests.support.guards import Unguarded
from tests.support.owner import as_owner, owners_home
from tests.support.scram import ScramClient, b64
from tests.unit.test_auth_login import Rows

IAIN = Account("iain@example.com", 1000, 1000, "/srv/mail/iain")
SALT = b"a salt that is stored"


def keys_of(password: str, iterations: int = 5000) -> str:
    keys = make_scram("sha256", password.encode(), SALT, iterations)
    parts = (keys.salt, keys.stored_key, keys.server_key)
    return ",".join([str(iterations), *(base64.b64encode(part).decode() for part in parts)])


@dataclass
class Desk:
    """An authenticator under test."""

    rows: Rows = field(default_factory=Rows)
    slept: list[float] = field(default_factory=list)
    secret: bytes = b"of this instance"
    guard: Guard = field(default_factory=Unguarded)
    settings: Auth = field(default_factory=lambda: Auth(refusal_delay=50.0))

    def __post_init__(self) -> None:
        self.authenticator = PasswordAuthenticator(
            self.rows,
            self.settings,
            self.guard,
            scram_secret=self.secret,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def add(self, login: str, stored: str | None, kind: str | None = None) -> None:
        self.rows.rows[login] = Credentials(IAIN, stored, kind)

    async def offer(self, login: str) -> tuple[bytes, int]:
        begun = await self.authenticator.scram(ScramAttempt("s", login, "pop3", "192.0.2.7"))
        assert not isinstance(begun, Refused)
        return begun.salt, begun.iterations

    async def login(self, login: str, password: str = "secret") -> Welcome | Refused:
        """Hold an exchange as the cores do."""
        client = ScramClient(login, password)
        attempt = ScramAttempt("s", login, "pop3", "192.0.2.7")
        begun = await self.authenticator.scram(attempt)
        if isinstance(begun, Refused):
            return begun
        server_first = b"r=%bserver,s=%b,i=%d" % (
            client.nonce.encode(),
            b64(begun.salt),
            begun.iterations,
        )
        without_proof, _, proof = client.final(server_first).rpartition(b",p=")
        first_bare = client.first().removeprefix(b"n,,")
        message = b",".join((first_bare, server_first, without_proof))
        answer = await begun.prove(message, base64.b64decode(proof))
        if isinstance(answer, Welcome):
            assert client.trusts(b"v=" + b64(answer.signature))
        return answer


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.authenticator.close()


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ("secret", "Password"),
        ("{PLAIN}secret", None),
        ("{CLEARTEXT.b64}c2VjcmV0", None),
        ("{SCRAM-SHA-256}" + keys_of("secret"), None),
        ("{SCRAM-SHA-256}" + keys_of("secret", 1), "Crypt-Password"),
    ],
)
async def test_password_is_proved(desk: Desk, stored: str, kind: str | None) -> None:
    desk.add("iain", stored, kind)
    with capture_logs() as events:
        answer = await desk.login("iain")
    assert isinstance(answer, Welcome)
    assert answer.account == IAIN
    assert desk.slept == []
    assert [(event["event"], event["login"]) for event in events] == [("login", "iain")]
    assert "secret" not in str(events)
    with capture_logs() as events:
        assert await desk.login("iain", "hunter2") == Refused(Refusal.WRONG_PASSWORD)
    assert len(desk.slept) == 1
    assert (events[0]["reason"], events[0]["detail"]) == (
        "wrong password",
        "account iain@example.com",
    )


async def test_password_and_name_are_prepared(desk: Desk) -> None:
    desk.add("iain", "{PLAIN}I\u00adX")
    assert isinstance(await desk.login("\u00adiain", "\u2168"), Welcome)


async def test_a_password_of_which_preparing_leaves_nothing_proves_nobody(desk: Desk) -> None:
    desk.add("iain", "\u00ad", "Password")
    assert await desk.login("iain", "") == Refused(Refusal.WRONG_PASSWORD)


async def test_password_that_cannot_be_prepared_can_only_be_sent(desk: Desk) -> None:
    desk.add("iain", "{PLAIN}a\u0007b")
    assert await desk.login("iain", "ab") == Refused(Refusal.WRONG_PASSWORD)


@pytest.mark.parametrize(
    "stored",
    [
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "{SCRAM-SHA-1}4096,c2FsdA==,AAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7",
        "{PLAIN}",
        "{SCRAM-SHA-256}!" + keys_of("secret"),
        "!",
        "",
        None,
    ],
)
async def test_account_without_keys_is_refused_as_nobody_is(desk: Desk, stored: str | None) -> None:
    desk.add("iain", stored)
    salt, iterations = await desk.offer("iain")
    assert (len(salt), iterations) == (SALT_SIZE, ITERATIONS)
    with capture_logs() as events:
        assert await desk.login("iain") == Refused(Refusal.WRONG_PASSWORD)
        assert await desk.login("iain", "nobody") == Refused(Refusal.WRONG_PASSWORD)
    assert events[0]["detail"] == "account iain@example.com has no hash that SCRAM can use"
    assert len(desk.slept) == 2


async def test_nobody_has_a_salt_that_stays(desk: Desk) -> None:
    salt, iterations = await desk.offer("nobody@example.com")
    assert (len(salt), iterations) == (SALT_SIZE, ITERATIONS)
    assert await desk.offer("Nobody@Example.com") == (salt, iterations)
    in_a_labels = await desk.offer("nobody@xn--mller-kva.example")
    assert await desk.offer("nobody@müller.example") == in_a_labels
    assert await desk.offer("nobody2@example.com") != (salt, iterations)
    desk.add("nobody@example.com", "{PLAIN}secret")
    assert await desk.offer("nobody@example.com") == (salt, iterations)
    other = Desk(secret=b"of another instance")
    assert await other.offer("nobody@example.com") != (salt, iterations)
    await other.authenticator.close()


@pytest.mark.parametrize("password", ["secret", "nobody"])
async def test_nobody_is_refused_in_the_end(desk: Desk, password: str) -> None:
    with capture_logs() as events:
        assert await desk.login("nobody", password) == Refused(Refusal.UNKNOWN_USER)
    assert events[0]["reason"] == "unknown user"
    assert len(desk.slept) == 1


async def test_stored_salt_is_offered(desk: Desk) -> None:
    desk.add("iain", "{SCRAM-SHA-256}" + keys_of("secret"))
    assert await desk.offer("iain") == (SALT, 5000)


async def test_hash_that_was_changed_meanwhile_fails(desk: Desk) -> None:
    desk.add("iain", "{SCRAM-SHA-256}" + keys_of("secret"))
    begun = await desk.authenticator.scram(ScramAttempt("s", "iain", "pop3", "192.0.2.7"))
    assert not isinstance(begun, Refused)
    desk.rows.rows["iain"] = CannotKnow("gone")
    assert await begun.prove(b"message", bytes(32)) == Refused(Refusal.SYSTEM_ERROR)


async def test_what_cannot_be_known_is_a_system_error_at_once(desk: Desk) -> None:
    desk.rows.rows["iain"] = CannotKnow("no connection")
    desk.add("ann", "{ROT13}frperg")
    with capture_logs() as events:
        assert await desk.login("iain") == Refused(Refusal.SYSTEM_ERROR)
        assert await desk.login("ann") == Refused(Refusal.SYSTEM_ERROR)
    assert desk.slept == []
    assert [event["reason"] for event in events] == ["system error", "system error"]
    assert "account iain@example.com" in events[1]["detail"]


@dataclass
class Counting(Unguarded):
    """Writes down what it is told, and objects when it is told to."""

    objection: Objection | None = None
    told: list[tuple[str, str]] = field(default_factory=list)

    async def look(self, account: str, peer: str) -> Look:
        return Look(objection=self.objection)

    async def right(self, account: str, peer: str, before: Look) -> None:
        self.told.append(("right", account))

    async def wrong(self, account: str, peer: str, password: str | None) -> Standing:
        assert password is None, "a proof is no password, and never the same twice"
        self.told.append(("wrong", account))
        return CLEAR


async def test_a_salt_is_asked_for_as_if_there_were_no_account(desk: Desk) -> None:
    """The time until it is there would tell."""
    desk.add("iain", "{PLAIN}secret")
    for login in ("iain", "nobody"):
        await desk.offer(login)
    assert desk.rows.in_full == desk.rows.asked == ["iain", "nobody"]


@pytest.mark.parametrize("login", ["iain", "nobody"])
async def test_a_salt_is_not_given_to_who_guesses_too_much(login: str) -> None:
    desk = Desk(guard=Counting(Objection("network", "192.0.2.7", 10, 10)))
    desk.add("iain", "{PLAIN}secret")
    attempt = ScramAttempt("s", login, "pop3", "192.0.2.7")
    with capture_logs() as events:
        assert await desk.authenticator.scram(attempt) == Refused(Refusal.TOO_MANY_GUESSES)
    assert len(desk.slept) == 1
    assert [event["reason"] for event in events] == ["too many guesses"]
    await desk.authenticator.close()


async def test_a_network_has_its_salts_in_turns() -> None:
    desk = Desk(settings=Auth(guess_network=1))
    release = desk.rows.hold()
    offers = [asyncio.create_task(desk.offer(login)) for login in ("iain", "nobody")]
    await asyncio.sleep(0.01)
    assert desk.rows.asked == ["iain"]
    release()
    await asyncio.gather(*offers)
    assert desk.rows.asked == ["iain", "nobody"]
    await desk.authenticator.close()


async def test_proofs_count_as_guesses() -> None:
    guard = Counting()
    desk = Desk(guard=guard)
    desk.add("iain", "{PLAIN}secret")
    assert isinstance(await desk.login("iain"), Welcome)
    await desk.login("iain", "hunter2")
    await desk.login("iain", "hunter2")
    await desk.login("nobody", "hunter2")
    assert guard.told == [
        ("right", "iain@example.com"),
        ("wrong", "iain@example.com"),
        ("wrong", "iain@example.com"),
        ("wrong", "nobody"),
    ]
    guard.objection = Objection("account", "iain@example.com", 10, 10)
    assert await desk.login("iain") == Refused(Refusal.TOO_MANY_GUESSES)
    assert len(guard.told) == 4
    await desk.authenticator.close()


def test_the_secret_may_be_a_link_to_where_machines_share_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (tmp_path / "queue").mkdir()
    secret = load_secret(str(tmp_path))
    (tmp_path / SECRET_FILE).rename(shared)
    (tmp_path / "queue" / SECRET_FILE).symlink_to(shared)
    assert load_secret(str(tmp_path / "queue")) == secret


def test_secret_is_made_once(tmp_path: Path) -> None:
    directory = str(tmp_path / "queue")
    made = load_secret(directory)
    assert len(made) == 32
    assert load_secret(directory) == made
    assert os.listdir(directory) == [SECRET_FILE]
    assert stat.S_IMODE(os.stat(tmp_path / "queue" / SECRET_FILE).st_mode) == 0o600
    assert load_secret(str(tmp_path / "other")) != made


def test_secret_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"short")
    with pytest.raises(OperatorError, match="remove it"):
        load_secret(str(tmp_path))
    with pytest.raises(OperatorError, match="cannot be used"):
        load_secret(str(tmp_path / SECRET_FILE / "queue"))


def test_a_secret_that_root_has_copied_is_named_with_the_remedy() -> None:
    def refusal() -> str:
        with pytest.raises(OperatorError) as caught:
            load_secret(str(queue))
        return str(caught.value)

    with owners_home() as queue:
        secret = queue / SECRET_FILE
        secret.touch(mode=0)
        told = as_owner(refusal)
    assert told.endswith(f"denied; give it to the server's user: chown {OWNER}: {secret}")
