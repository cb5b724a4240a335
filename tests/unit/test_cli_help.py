"""What --help says of commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from restante.cli.app import app
from tests.support.shell import Shell

GROUPS = ((), ("domain",), ("mailbox",), ("alias",), ("queue",), ("submission",), ("guesses",))


def summaries(group: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The names of the commands in a group, and the first sentence of what each is about."""
    command: Any = typer.main.get_command(app)
    for name in group:
        command = command.commands[name]
    for name, each in command.commands.items():
        yield name, " ".join(each.help.split("\n\n")[0].split()).partition(". ")[0]


@pytest.mark.parametrize("columns", ["30", "80", "200"])
@pytest.mark.parametrize("group", GROUPS)
def test_no_summary_is_cut(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    told = shell.bare(*group, "--help")

    assert (told.code, told.err) == (0, "")
    listed = " ".join(told.out.partition("Commands:")[2].split())
    for name, summary in summaries(group):
        assert f"{name} {summary}" in listed


def test_every_command_is_in_some_group_that_is_looked_at() -> None:
    root: Any = typer.main.get_command(app)
    assert {()} | {
        (name,) for name, each in root.commands.items() if hasattr(each, "commands")
    } == {*GROUPS}
