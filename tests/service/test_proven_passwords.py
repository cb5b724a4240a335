"""A password that one worker has hashed is hashed by none for a while, unless its row changes."""

from __future__ import annotations

import base64
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from restante.auth.schemes import hash_password
from tests.support.instance import Instance
from tests.support.serving import IAIN, Sections, Wire, new_server, workers

WORKERS = 3
SETTINGS: Sections = {
    "server": {"workers": WORKERS},
    "submission": {"listen": ["127.0.0.1:0"]},
    "auth": {"refusal_delay": 0},
}
ROOM = 32 * 1024 * 1024
"""Octets that workers may still take: half of what it takes to hash a password."""
GOOD, WRONG, UNKNOWABLE = "235", "535", "454"


def log_in(instance: Instance, password: str = "secret") -> list[str]:
    """The answers of all workers: whoever has fewer connections takes the next one."""
    words = base64.b64encode(f"\0{IAIN}\0{password}".encode()).decode()
    answers = []
    with ExitStack() as beside:
        for _ in range(WORKERS):
            wire = beside.enter_context(Wire(instance.port("submission")))
            assert wire.reply().startswith("220 ")
            wire.ask("EHLO client.example")
            answers.append(wire.ask(f"AUTH PLAIN {words}")[:3])
    return answers


def forbid_hashing(instance: Instance) -> None:
    """From now on no worker has the memory for it."""
    for pid in workers(instance, WORKERS):
        owner = os.stat(f"/proc/{pid}")
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        # Limits of a process are its own user's, and not even root's in some containers.
        command = ["prlimit", f"--pid={pid}", f"--as={limit}"]
        subprocess.run(command, check=True, user=owner.st_uid, group=owner.st_gid)


def store(instance: Instance, password: str) -> None:
    """As somebody does by hand."""
    with sqlite3.connect(instance.directory / "restante.db") as database:
        row = (hash_password(password), IAIN)
        database.execute("UPDATE mailbox SET password = ? WHERE username = ?", row)
    database.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    with new_server(tmp_path, SETTINGS) as running:
        store(running, "secret")
        yield running


def test_no_worker_hashes_what_another_has(server: Instance) -> None:
    with Wire(server.port("submission")) as wire:
        wire.reply()
        words = base64.b64encode(f"\0{IAIN}\0secret".encode()).decode()
        assert wire.ask("EHLO client.example")
        assert wire.ask(f"AUTH PLAIN {words}").startswith(GOOD)
    forbid_hashing(server)
    assert log_in(server) == [GOOD] * WORKERS
    assert log_in(server, "wrong") == [UNKNOWABLE] * WORKERS, "these would have to be hashed"
    assert log_in(server) == [GOOD] * WORKERS


def test_a_row_that_was_changed_is_heeded_at_once(server: Instance) -> None:
    assert log_in(server) == [GOOD] * WORKERS
    store(server, "other")
    assert log_in(server) == [WRONG] * WORKERS
    assert log_in(server, "other") == [GOOD] * WORKERS


def test_where_it_is_not_wanted_all_are_hashed(tmp_path: Path) -> None:
    sections = {**SETTINGS, "auth": {**SETTINGS["auth"], "remember": 0}}
    with new_server(tmp_path, sections) as running:
        store(running, "secret")
        assert log_in(running) == [GOOD] * WORKERS
        forbid_hashing(running)
        assert log_in(running) == [UNKNOWABLE] * WORKERS
