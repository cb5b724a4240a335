"""Every dialog, over sockets with a running server, and the mail that it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.load import load
from tests.support.instance import Instance, new_instance
from tests.support.live_dialog import World, hold, make_maildir, parse

HERE = Path(__file__).parent
SMTP = sorted((HERE / "smtp").glob("*.txt"))
SUBMISSION = sorted((HERE / "submission").glob("*.txt"))
POP3 = sorted((HERE / "pop3").glob("*.txt"))
OWNER, GROUP = (os.getuid(), os.getgid()) if os.getuid() else (65534, 65534)
SETTINGS = {
    "RESTANTE_SMTP__DATABYTES": "20000",
    "RESTANTE_SMTP__MAX_HEADER": "10000",
    "RESTANTE_SMTP__MAX_RECIPIENTS": "3",
    "RESTANTE_ROUTING__LOCALS": '["iain.cx"]',
    "RESTANTE_ROUTING__ENVNOATHOSTS": '{"iain.cx": "babasse.com"}',
    "RESTANTE_AUTH__REFUSAL_DELAY": "0.05",
    "RESTANTE_SUBMISSION__LISTEN": '["127.0.0.1:0"]',
    # Nobody listens there: what is for elsewhere waits.
    "RESTANTE_ROUTING__SMTPROUTES": json.dumps(
        {"elsewhere.test": "[127.0.0.1]:1", "intranet": "[127.0.0.1]:1", "direct": ""}
    ),
}
INSTANCES = {
    "plain": {},
    "unverified": {"RESTANTE_RECEIVER__VERIFY_RECIPIENTS": "false"},
    "relaying": {"RESTANTE_RECEIVER__RELAY_NETWORKS": '["127.0.0.0/8"]'},
    "limited": {"RESTANTE_SUBMISSION__RECIPIENTS_PER_HOUR": "2"},
}


class Worlds:
    """The instances that dialogs name, each started when it is first wanted."""

    def __init__(self, directory: Path, running: contextlib.ExitStack) -> None:
        self._directory = directory
        self._running = running
        self._known: dict[str, World] = {}

    def __getitem__(self, name: str) -> World:
        if name not in self._known:
            environ = SETTINGS | INSTANCES[name]
            instance = self._running.enter_context(
                new_instance(self._directory / name, environ=environ, domains=())
            )
            self._known[name] = populated(instance)
            instance.start()
        return self._known[name]


def populated(instance: Instance) -> World:
    """The instance with the rows of world.sql, and Maildirs for its mailboxes."""
    mail = instance.directory / "mail"
    rows = (HERE / "world.sql").read_text("utf-8").replace(":mail", str(mail))
    rows = rows.replace(":uid", str(OWNER)).replace(":gid", str(GROUP))
    settings = load(str(instance.directory), {})
    file = settings.path(settings.database.url.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.executescript(rows)
        homes = database.execute("SELECT username, home FROM mailbox").fetchall()
    maildirs = {username: Path(home) / "Maildir" for username, home in homes}
    for maildir in maildirs.values():
        make_maildir(maildir, OWNER, GROUP)
    return World(instance, maildirs)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    with contextlib.ExitStack() as running:
        yield Worlds(tmp_path_factory.mktemp("dialogs"), running)


@pytest.mark.parametrize("path", SMTP, ids=lambda path: path.stem)
def test_smtp(worlds: Worlds, path: Path) -> None:
    dialog = parse(path)
    world = worlds[dialog.instance]
    hold(dialog, world, world.instance.smtp_port)


@pytest.mark.parametrize("path", SUBMISSION, ids=lambda path: path.stem)
def test_submission(worlds: Worlds, path: Path) -> None:
    dialog = parse(path)
    world = worlds[dialog.instance]
    hold(dialog, world, world.instance.port("submission"))


@pytest.mark.parametrize("path", POP3, ids=lambda path: path.stem)
def test_pop3(worlds: Worlds, path: Path) -> None:
    dialog = parse(path)
    world = worlds[dialog.instance]
    hold(dialog, world, world.instance.pop3_port)


def test_there_are_dialogs() -> None:
    assert len(SMTP) >= 40
    assert len(SUBMISSION) >= 6
    assert len(POP3) >= 18
