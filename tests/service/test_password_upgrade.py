"""A running server replaces weak hashes when their owners log in."""

from __future__ import annotations

import os
import poplib
import sqlite3
from pathlib import Path

import pytest

from restante.auth.schemes import is_current
from tests.support.instance import Instance, until
from tests.support.owner import only_root
from tests.support.serving import IAIN, account_ids, configure, new_server, start

WEAK = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # secret


UPGRADE = {"upgrade": "argon2id"}


def database_of(instance: Instance) -> Path:
    moved = instance.directory / "accounts" / "restante.db"
    return moved if moved.exists() else instance.directory / "restante.db"


def give_accounts(instance: Instance) -> None:
    """Start again with a database that belongs to whoever owns the accounts, directory and all."""
    instance.stop()
    moved = instance.directory / "accounts" / "restante.db"
    moved.parent.mkdir()
    database_of(instance).rename(moved)
    for path in (moved, moved.parent):
        os.chown(path, *account_ids())
    configure(instance, {"auth": UPGRADE, "database": {"url": "sqlite:///accounts/restante.db"}})
    start(instance)


def stored(instance: Instance) -> str:
    with sqlite3.connect(database_of(instance)) as database:
        (found,) = database.execute(
            "SELECT password FROM mailbox WHERE username = ?", (IAIN,)
        ).fetchone()
    database.close()
    return str(found)


def weaken(instance: Instance) -> None:
    with sqlite3.connect(database_of(instance)) as database:
        database.execute("UPDATE mailbox SET password = ? WHERE username = ?", (WEAK, IAIN))
    database.close()


def test_login_upgrades_a_hash(tmp_path: Path) -> None:
    with new_server(tmp_path, {"auth": UPGRADE}) as running:
        give_accounts(running)
        weaken(running)
        with pytest.raises(poplib.error_proto):
            running.pop3(IAIN, "wrong")
        assert stored(running) == WEAK
        running.pop3(IAIN).quit()
        until(lambda: "event=password_upgraded" in running.log(), "the upgrade")
        made = stored(running)
        assert made.startswith("{ARGON2ID}")
        assert is_current(made)
        running.pop3(IAIN).quit()
        with pytest.raises(poplib.error_proto):
            running.pop3(IAIN, "wrong")
        assert stored(running) == made
        assert made not in running.log()


def test_hash_stays_where_nobody_asked_for_better_ones(tmp_path: Path) -> None:
    with new_server(tmp_path, {}) as running:
        weaken(running)
        running.pop3(IAIN).quit()
        assert running.stop() == 0
        assert stored(running) == WEAK
        assert "password_upgraded" not in running.log()


@only_root
def test_accounts_that_only_root_may_change_stay_as_they_are(tmp_path: Path) -> None:
    """The login is good all the same, and the log says what is missing."""
    with new_server(tmp_path, {"auth": UPGRADE}) as running:
        weaken(running)
        running.pop3(IAIN).quit()
        until(lambda: "event=password_not_upgraded" in running.log(), "it says so")
        assert stored(running) == WEAK
        running.pop3(IAIN).quit()
