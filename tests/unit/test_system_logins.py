"""Logins of the system's users: the passwd and shadow files behind the tables."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from restante.auth import LoginAttempt, Refusal, Refused, SystemLogins, Welcome
from restante.auth.login import PasswordAuthenticator
from restante.auth.schemes import verify
from restante.auth.system import HostLogins
from restante.checkpassword.desk import Desk
from restante.config.tree import Auth
from restante.directory import Account
from restante.directory.passwd import PasswdEntry, passwd_entry
from restante.directory.shadow import DAY, SHADOW, ShadowEntry, system_password
from restante.directory.system import HostPasswords
from restante.errors import CannotKnow
from restante.service.system_logins import RegistrarLogins, ShadowDesk
from tests.support.deliveries import GROUP, OWNER
from tests.support.events import capture_logs
from tests.support.guards import Unguarded
from tests.support.memory_directory import MemoryDirectory
from tests.support.shell import Shell
from tests.support.system_users import SystemUsers, hashed

TODAY = 20_500
"""Days since the epoch."""
FREE = (-1, -1, -1, -1)
SECRET = hashed("secret", "$1$")


@dataclass
class Host:
    """A host with one user, and an authenticator that asks a table first."""

    home: Path
    stored: str = SECRET
    dates: tuple[int, int, int, int] = FREE
    uid: int = OWNER
    minimum: int = 1
    registrar: str = ""
    """A socket: another process's place, to be asked through it."""
    tables: MemoryDirectory = field(default_factory=MemoryDirectory)
    failure: CannotKnow | None = None

    def entry(self, name: str) -> PasswdEntry | None:
        found = PasswdEntry("ann", "x", self.uid, GROUP, str(self.home))
        return found if name == "ann" else None

    def password(self, entry: PasswdEntry) -> ShadowEntry:
        if self.failure:
            raise self.failure
        return ShadowEntry(self.stored, *self.dates)

    async def login(self, login: str = "ann", password: str = "secret") -> Welcome | Refused:
        settings = Auth(refusal_delay=0)
        passwords = HostPasswords(self.minimum, self.entry, self.password, lambda: TODAY * DAY)
        async with self._system(HostLogins(passwords, settings)) as system:
            authenticator = PasswordAuthenticator(self.tables, settings, Unguarded(), system=system)
            try:
                return await authenticator.login(LoginAttempt("s", login, password, "pop3", "::1"))
            finally:
                await authenticator.close()

    @asynccontextmanager
    async def _system(self, logins: HostLogins) -> AsyncIterator[SystemLogins]:
        if not self.registrar:
            yield logins
            await logins.close()
            return
        desk = ShadowDesk(self.registrar, logins)
        desk.start()
        yield RegistrarLogins(self.registrar)
        await desk.stop()


@pytest.fixture(params=["itself", "the registrar"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, OWNER, GROUP)
    return Host(home, registrar="" if request.param == "itself" else str(tmp_path / "run/shadow"))


async def test_a_user_logs_in_with_the_systems_password(host: Host) -> None:
    account = Account("ann", OWNER, GROUP, str(host.home))
    assert await host.login() == Welcome(account)
    assert await host.login(password="wrong") == Refused(Refusal.WRONG_PASSWORD)
    assert await host.login(password="") == Refused(Refusal.WRONG_PASSWORD)


@pytest.mark.parametrize("login", ["bob", "", "Ann", "ann@example.com", "an\0n", "\udcff"])
async def test_nobody_else_does(host: Host, login: str) -> None:
    assert await host.login(login) == Refused(Refusal.UNKNOWN_USER)


async def test_the_tables_come_first(host: Host) -> None:
    account = Account("ann", 1000, 1000, "/srv/ann")
    host.tables.tables.mailbox.append(account)
    host.tables.tables.passwords["ann"] = ("other", "Password")
    assert await host.login() == Refused(Refusal.WRONG_PASSWORD)
    assert await host.login(password="other") == Welcome(account)


async def test_a_database_that_is_away_is_never_nobody(host: Host) -> None:
    host.tables.away = True
    assert await host.login() == Refused(Refusal.SYSTEM_ERROR)


async def test_a_shadow_file_that_cannot_be_read_is_a_system_error(host: Host) -> None:
    host.failure = CannotKnow("shadow: ann: Permission denied")
    with capture_logs() as events:
        assert await host.login() == Refused(Refusal.SYSTEM_ERROR)
    assert events[0]["detail"] == "shadow: ann: Permission denied"


async def test_root_and_users_below_the_minimum_have_no_mail(host: Host) -> None:
    host.minimum = OWNER + 1
    assert await host.login() == Refused(Refusal.UNKNOWN_USER)
    host.minimum, host.uid = 1, 0
    assert await host.login() == Refused(Refusal.UNKNOWN_USER)


@pytest.mark.parametrize("stored", ["!", "*", "!!", "", "*LK*", "!HASH"])
async def test_locked_accounts(host: Host, stored: str) -> None:
    host.stored = stored.replace("HASH", SECRET)
    with capture_logs() as events:
        assert await host.login() == Refused(Refusal.WRONG_PASSWORD)
    assert events[0]["detail"] == "system user ann: locked"


@pytest.mark.parametrize(
    ("changed", "maximum", "inactive", "expires", "why"),
    [
        (TODAY - 10, 99999, -1, -1, ""),
        (TODAY - 10, 99999, -1, TODAY + 1, ""),
        (TODAY - 10, 99999, -1, TODAY, "the account has expired"),
        (TODAY - 10, 99999, -1, 0, "the account has expired"),
        (TODAY - 10, 7, -1, -1, ""),
        (TODAY - 10, 7, 3, -1, ""),
        (TODAY - 10, 7, 2, -1, "the password has expired"),
        (TODAY - 10, -1, 2, -1, ""),
        (-1, 7, 2, -1, ""),
        (0, 99999, -1, -1, ""),
    ],
)
async def test_dates(
    host: Host, changed: int, maximum: int, inactive: int, expires: int, why: str
) -> None:
    host.dates = (changed, maximum, inactive, expires)
    with capture_logs() as events:
        answer = await host.login()
    assert isinstance(answer, Refused) == bool(why)
    assert events[0].get("detail", "") == (why and f"system user ann: {why}")


async def test_a_registrar_that_is_gone_is_a_system_error(tmp_path: Path) -> None:
    logins = RegistrarLogins(str(tmp_path / "run" / "shadow"))
    with pytest.raises(CannotKnow, match="the registrar does not answer: No such file"):
        await logins.check(LoginAttempt("s", "ann", "secret", "pop3", ""))


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b"null", b'{"user": ["ann"]}', b'{"user": [0, "x", 1, 2], "good": true}',
     b'{"user": ["ann", 1, 1, "/"]}', b"[" * 10_000],
)  # fmt: skip
async def test_an_answer_that_is_none_is_a_system_error(tmp_path: Path, answer: bytes) -> None:
    async def respond(_question: bytes) -> bytes:
        return answer

    desk = Desk(str(tmp_path / "run" / "shadow"), 1000, respond)
    desk.start()
    logins = RegistrarLogins(str(tmp_path / "run" / "shadow"))
    with pytest.raises(CannotKnow, match="the registrar's answer is none"):
        await logins.check(LoginAttempt("s", "ann", "secret", "pop3", ""))
    await desk.stop()


@pytest.mark.parametrize(
    "question", [b"", b"[]", b"null", b'{"login": "ann"}', b"[" * 10_000, b"x" * 100_000]
)
async def test_what_is_no_question_gets_no_answer(tmp_path: Path, question: bytes) -> None:
    path = str(tmp_path / "run" / "shadow")
    desk = ShadowDesk(path, HostLogins(HostPasswords(1), Auth()))
    desk.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(question)
    writer.write_eof()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await desk.stop()


async def test_a_hash_of_no_known_kind_is_a_system_error(host: Host) -> None:
    host.stored = "$99$unheard$of"
    assert await host.login() == Refused(Refusal.SYSTEM_ERROR)


def test_a_hash_in_the_passwd_file_itself() -> None:
    entry = PasswdEntry("ann", SECRET, OWNER, GROUP, "/")
    assert system_password(entry) == ShadowEntry(SECRET, *FREE)


_ASK = """
import os, sys
from restante.directory.passwd import passwd_entry
from restante.directory.shadow import shadow_entry, system_password
from restante.errors import CannotKnow
print(shadow_entry("tess"))
print(shadow_entry("no-such-user-here"))
os.setgroups([])
os.setresgid(4242, 4242, 4242)
os.setresuid(4242, 4242, 4242)
try:
    print(system_password(passwd_entry("tess")))
except CannotKnow as error:
    print("cannot know:", error)
"""


def test_the_shadow_file_is_asked_through_the_name_service(tmp_path: Path) -> None:
    if os.geteuid() != 0:  # who may not mount, and seldom read it
        entry = passwd_entry("mail")
        assert entry is not None
        if os.access(SHADOW, os.R_OK):
            assert system_password(entry).password
            return
        with pytest.raises(CannotKnow, match="shadow: mail: "):
            system_password(entry)
        return
    users = SystemUsers(tmp_path)
    users.add("tess", 4242, "$y$abc", "1:30:7:5:20600")
    done = subprocess.run(
        users.seen_by([sys.executable, "-c", _ASK]), capture_output=True, text=True, check=True
    )
    expected = ShadowEntry("$y$abc", changed=20_000, maximum=30, inactive=5, expires=20_600)
    found, nobody, unreadable = done.stdout.splitlines()
    assert found == repr(expected)
    assert nobody == "None"
    assert unreadable.startswith("cannot know: shadow: tess: ")


def test_check_says_where_no_user_of_the_system_can_log_in(hosted: Shell, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        return  # the host's shadow file is as it is
    users = SystemUsers(tmp_path)
    command = users.seen_by(
        [sys.executable, "-m", "restante", "--dir", str(hosted.directory), "check"]
    )
    environ = {**os.environ, "RESTANTE_ROUTING__SYSTEM_FILES": "true"}
    said = {}
    for mode in (0o640, 0o600):
        (tmp_path / "shadow").chmod(mode)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        said[mode] = "no user of the system can log in" in done.stdout + done.stderr
    assert said == {0o640: False, 0o600: True}


@pytest.mark.parametrize(("remember", "hashed_again"), [(3600, False), (0, True)])
async def test_a_password_that_was_right_is_not_hashed_again(
    host: Host, remember: int, hashed_again: bool
) -> None:
    host.stored = hashed("secret", "$6$")
    tried = []

    def counted(password: str, stored: str | None, kind: str | None) -> bool:
        tried.append(password)
        return verify(password, stored, kind)

    passwords = HostPasswords(1, host.entry, host.password, lambda: TODAY * DAY)
    logins = HostLogins(passwords, Auth(remember=remember), counted)

    async def is_good(password: str) -> bool:
        verdict = await logins.check(LoginAttempt("s", "ann", password, "pop3", "::1"))
        assert verdict is not None
        return verdict.is_good

    assert await is_good("secret")
    assert not await is_good("wrong")
    assert await is_good("secret")
    assert tried == ["secret", "wrong"] + ["secret"] * hashed_again
    host.dates = (TODAY - 10, 99999, -1, TODAY)  # the account expires
    assert not await is_good("secret")
    await logins.close()
