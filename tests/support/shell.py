"""The restante command in this process, on an instance of its own."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from restante.cli.app import run


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def advice(found: Any) -> list[str]:
    """What ``check`` advises, but for what a power cut would do on the disks of this machine."""
    return [line for line in found["advice"] if "power cut" not in line]


class Shell:
    """Runs commands on one instance."""

    def __init__(
        self,
        directory: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.directory = directory
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: str = "") -> Result:
        """As ``restante --dir DIR ARGUMENTS``."""
        return self.bare("--dir", str(self.directory), *arguments, stdin=stdin)

    def bare(self, *arguments: str, stdin: str = "") -> Result:
        """As ``restante ARGUMENTS``."""
        self._capsys.readouterr()
        given = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        self._monkeypatch.setattr(sys, "stdin", given)
        code = run(arguments)
        given.close()
        out, err = self._capsys.readouterr()
        return Result(int(code), out, err)

    def json(self, *arguments: str) -> Any:
        """What a command that must not fail prints as JSON."""
        result = self(*arguments, "--json")
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    def add_mailbox(self, address: str, password: str = "secret") -> Result:
        """With its password on standard input."""
        return self("mailbox", "add", address, "--password-stdin", stdin=password + "\n")

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database has."""
        connection = sqlite3.connect(self.directory / "restante.db")
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def change(self, statement: str) -> None:
        """As somebody with plain SQL."""
        connection = sqlite3.connect(self.directory / "restante.db")
        with connection:
            connection.execute(statement)
        connection.close()


def put_message(shell: Shell, address: str, text: str) -> Path:
    """Mail in a mailbox, without a server."""
    home = Path(shell.json("mailbox", "show", address)["home"])
    new = home / "Maildir" / "new"
    new.mkdir(parents=True, exist_ok=True)
    (new / f"{len(list(new.iterdir()))}.host").write_text(text)
    return home
