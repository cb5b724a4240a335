"""``restante queue`` and ``check`` where one queue cannot be used: the others can."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from restante.cli.status import ExitCode
from restante.queue import QueueUnusable
from restante.queue.operate import QueueOperator, Verb
from restante.queue.schema import VERSION
from restante.queue.selection import EVERYTHING
from tests.support.shell import Shell
from tests.support.waiting import Waiting, lines, some_mail

NEWER = "queue/0/queue.db was written by a newer version of Restante\n"


@pytest.fixture
def waiting(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """Of three messages, two are in a queue that a newer version wrote."""
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail.log")
    (hosted.directory / "mail.log").touch()
    mail = some_mail(hosted)
    set_version(hosted, VERSION + 1)
    return mail


def set_version(shell: Shell, version: int) -> None:
    """Of the queue that comes first."""
    with closing(sqlite3.connect(shell.directory / "queue" / "0" / "queue.db")) as database:
        database.execute(f"PRAGMA user_version = {version}")


def test_the_others_are_listed(waiting: Waiting) -> None:
    listed = waiting.shell("queue", "list")
    assert [fields[0] for fields in lines(listed.out)] == [waiting.dead]
    assert listed.code == ExitCode.REFUSED
    assert listed.err.endswith(NEWER)
    assert listed.err.count("\n") == 1
    shown = waiting.shell("queue", "list", "--json")
    assert [each["id"] for each in json.loads(shown.out)] == [waiting.dead]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("summary", "1 message for 1 recipient"),
        ("summary --by lane", "dead.example"),
        ("mailq", "in 1 Request."),
    ],
)
def test_the_others_are_added_up(waiting: Waiting, command: str, told: str) -> None:
    result = waiting.shell("queue", *command.split())
    assert told in result.out
    assert result.code == ExitCode.REFUSED
    assert result.err.endswith(NEWER)


def test_a_message_in_another_is_shown(waiting: Waiting) -> None:
    assert waiting.shell("queue", "show", waiting.dead).code == 0
    assert waiting.shell("queue", "show", waiting.dead, "--body").code == 0
    for option in ((), ("--body",)):
        assert waiting.shell("queue", "show", waiting.busy, *option).err.endswith(NEWER)


def test_what_is_in_others_is_held_and_told(waiting: Waiting) -> None:
    held = waiting.shell("queue", "hold", "--all")
    assert [fields[0] for fields in lines(held.out)] == [waiting.dead]
    assert held.code == ExitCode.REFUSED
    assert "1 message (1 recipient) held.\n" in held.err
    assert held.err.endswith(NEWER)
    assert waiting.shell("queue", "release", waiting.dead).code == 0
    assert waiting.shell("queue", "hold", waiting.busy).err.endswith(NEWER)
    set_version(waiting.shell, VERSION)
    assert set().union(*waiting.states().values()) == {"waiting"}


def test_what_is_in_others_is_removed(waiting: Waiting) -> None:
    removed = waiting.shell("queue", "remove", "--all", "--dry-run")
    assert [fields[0] for fields in lines(removed.out)] == [waiting.dead]
    removed = waiting.shell("queue", "remove", "--all")
    assert [fields[0] for fields in lines(removed.out)] == [waiting.dead]
    assert removed.err.endswith(NEWER)


def test_nothing_is_removed_that_was_not_asked_about(waiting: Waiting) -> None:
    """A queue that can be used by the time that somebody has agreed is left alone."""
    operator = QueueOperator(str(waiting.shell.directory / "queue"))
    with pytest.raises(QueueUnusable):
        list(operator.matching(Verb.REMOVE, EVERYTHING))
    set_version(waiting.shell, VERSION)
    with pytest.raises(QueueUnusable):
        list(operator.apply(Verb.REMOVE, EVERYTHING))
    assert waiting.states().keys() == {waiting.busy, waiting.bounce}


def test_check_tells_of_the_others(waiting: Waiting) -> None:
    waiting.shell("queue", "hold", waiting.dead)
    told = json.loads(waiting.shell("check", "--json").out)
    assert [each + "\n" for each in told["problems"]] == [
        f"the queue {waiting.shell.directory}/{NEWER}"
    ]
    assert "is held by an operator" in told["advice"][-1]
