"""A running server replaces weak hashes when their owners log in."""

from __future__ import annotations

import poplib
import sqlite3
from pathlib import Path

import pytest

from restante.auth.schemes import is_current
from tests.support.instance import Instance, until
from tests.support.serving import IAIN, new_server

WEAK = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # secret


def stored(instance: Instance) -> str:
    with sqlite3.connect(instance.directory / "restante.db") as database:
        (found,) = database.execute(
            "SELECT password FROM mailbox WHERE username = ?", (IAIN,)
        ).fetchone()
    database.close()
    return str(found)


def weaken(instance: Instance) -> None:
    with sqlite3.connect(instance.directory / "restante.db") as database:
        database.execute("UPDATE mailbox SET password = ? WHERE username = ?", (WEAK, IAIN))
    database.close()


def test_login_upgrades_a_hash(tmp_path: Path) -> None:
    with new_server(tmp_path, {"auth": {"upgrade": "argon2id"}}) as running:
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
