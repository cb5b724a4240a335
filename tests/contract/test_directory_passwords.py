"""A hash is replaced whole, or not at all, on every engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from restante.auth import LoginAttempt, Welcome
from restante.auth.login import PasswordAuthenticator
from restante.auth.schemes import Argon2Cost, hash_password
from restante.auth.upgrade import PasswordUpgrades
from restante.config.tree import Auth, Database
from restante.directory import Account, Credentials
from restante.directory.engine import Engine, Rejected, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.errors import CannotKnow
from tests.support.directory import Rows, directory_with, engine_with
from tests.support.events import capture_logs
from tests.support.guards import Unguarded
from tests.support.mariadb import MariaDB

OLD = "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"  # PASSWORD('mypass')
NEW = hash_password("mypass", Argon2Cost(passes=1, memory=8, lanes=1))
OTHERS = [("IAIN2", 1, 1, "/iain2", OLD, None), ("anna", 1, 1, "/anna", "", None)]
SITE: Rows = {"mailbox": [("Iain", 1000, 1001, "/home/iain", OLD, "MySQL-Password"), *OTHERS]}


async def stored(engine: Engine, name: str = "Iain") -> tuple[object, ...]:
    rows = await engine.fetch(
        "SELECT `password`, `password_type`, `home` FROM `mailbox` WHERE `username` = ?", (name,)
    )
    assert len(rows) == 1
    return tuple(value.decode() if isinstance(value, bytes) else value for value in rows[0])


async def iain(directory: SqlDirectory) -> Credentials:
    found = await directory.credentials("iain")
    assert found is not None
    return found


async def test_hash_is_replaced_and_nothing_else(database_url: str) -> None:
    async with engine_with(database_url, SITE) as engine:
        directory = SqlDirectory(engine)
        old = await iain(directory)
        assert await directory.replace_password(old, NEW)
        assert await stored(engine) == (NEW, "MySQL-Password", "/home/iain")
        assert await stored(engine, "IAIN2") == (OLD, None, "/iain2")
        assert not await directory.replace_password(old, "{PLAIN}late")
        assert await stored(engine) == (NEW, "MySQL-Password", "/home/iain")


async def test_hash_that_was_changed_meanwhile_stays(database_url: str) -> None:
    async with engine_with(database_url, SITE) as engine:
        directory = SqlDirectory(engine)
        old = await iain(directory)
        other = OLD.lower()  # which MySQL takes for the same
        await engine.transaction([Statement("UPDATE `mailbox` SET `password` = ?", (other,))])
        assert not await directory.replace_password(old, NEW)
        assert (await stored(engine))[0] == other


async def test_nobody_and_an_account_without_a_password_are_left_alone(database_url: str) -> None:
    async with directory_with(database_url, SITE) as directory:
        account = Account("root", 0, 0, "/root")
        assert not await directory.replace_password(Credentials(account, OLD, None), NEW)
        anna = await directory.credentials("anna")
        assert anna is not None
        assert not await directory.replace_password(anna, NEW)


async def test_hashes_are_not_logged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'restante.db'}"
    async with engine_with(url, SITE):
        logging = open_engine(Database(url=url), "/", log_sql=True)
        directory = SqlDirectory(logging)
        old = await iain(directory)
        with capture_logs() as events:
            assert await directory.replace_password(old, NEW)
        await directory.close()
    assert len(events) == 2
    assert OLD not in str(events)
    assert NEW not in str(events)


MYISAM = "ALTER TABLE mailbox MODIFY username VARCHAR(99), MODIFY password CHAR(41), ENGINE=MyISAM"
TRIGGER = (
    "CREATE TRIGGER short BEFORE UPDATE ON mailbox FOR EACH ROW "
    "SET NEW.password = SUBSTRING(NEW.password, 1, 41)"
)


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE mailbox MODIFY password VARCHAR(41)", "too long for column 'password'"),
        (MYISAM, "too long"),
        (TRIGGER, "did not stay"),
    ],
)
async def test_hash_is_never_cut_short(mariadb_server: MariaDB, change: str, why: str) -> None:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE) as engine:
        mariadb_server.sql(change, name)
        mariadb_server.sql("SET GLOBAL sql_mode = ''")
        try:
            directory = SqlDirectory(engine)
            with pytest.raises(CannotKnow, match=why):
                await directory.replace_password(await iain(directory), NEW)
            assert (await stored(engine))[0] == OLD
        finally:
            mariadb_server.sql("SET GLOBAL sql_mode = DEFAULT")


@pytest.mark.mariadb
async def test_right_to_one_column_is_enough(mariadb_server: MariaDB) -> None:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE) as engine:
        rights = f"SELECT, UPDATE (password) ON {name}.mailbox"
        url = mariadb_server.url_of("changer", rights, name)
        directory = SqlDirectory(open_engine(Database(url=url), "/"))
        assert await directory.replace_password(await iain(directory), NEW)
        await directory.close()
        assert (await stored(engine))[0] == NEW


@pytest.mark.mariadb
async def test_missing_right_is_told(mariadb_server: MariaDB) -> None:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        url = mariadb_server.url_of("reader", f"SELECT ON {name}.*", name)
        directory = SqlDirectory(open_engine(Database(url=url), "/"))
        with pytest.raises(CannotKnow, match="UPDATE command denied"):
            await directory.replace_password(await iain(directory), NEW)
        await directory.close()


@pytest.mark.mariadb
async def test_a_server_that_may_change_nothing_is_well(mariadb_server: MariaDB) -> None:
    """A replica, or one that is being backed up."""
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        rights = f"SELECT, UPDATE ON {name}.mailbox"
        url = mariadb_server.url_of("changer", rights, name)
        directory = SqlDirectory(open_engine(Database(url=url), "/"))
        mariadb_server.sql("SET GLOBAL read_only = 1")
        try:
            with capture_logs() as events, pytest.raises(Rejected, match="read-only"):
                await directory.replace_password(await iain(directory), NEW)
        finally:
            mariadb_server.sql("SET GLOBAL read_only = 0")
        assert events == []
        assert await directory.replace_password(await iain(directory), NEW)
        await directory.close()


async def test_login_upgrades_a_hash_once(database_url: str) -> None:
    async with engine_with(database_url, SITE) as engine:
        directory = SqlDirectory(engine)
        upgrades = PasswordUpgrades(directory)
        authenticator = PasswordAuthenticator(
            directory, Auth(refusal_delay=0), Unguarded(), upgrades=upgrades
        )
        attempt = LoginAttempt("s", "iain", "mypass", "pop3", "192.0.2.7")
        assert isinstance(await authenticator.login(attempt), Welcome)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        made = str((await stored(engine))[0])
        assert made.startswith("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$")
        assert isinstance(await authenticator.login(attempt), Welcome)
        await authenticator.close()
        assert (await stored(engine))[0] == made
