"""Which command lines start the server without the parser, and what they stand for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from restante.cli.invocation import Invocation
from restante.cli.serving import plain_invocation

ENVIRON = {"RESTANTE_DIR": "/srv/env", "RESTANTE_CONTROL": "/etc/control"}


@pytest.mark.parametrize(
    ("line", "environ", "asked"),
    [
        ("--dir /srv/a serve", {}, Invocation("/srv/a", "")),
        ("-C /srv/a serve", {}, None),
        ("--dir /srv/a --control /c serve", {}, Invocation("/srv/a", "/c")),
        ("--control /c --dir /srv/a serve", {}, Invocation("/srv/a", "/c")),
        ("serve", ENVIRON, Invocation("/srv/env", "/etc/control")),
        ("--dir /srv/a serve", ENVIRON, Invocation("/srv/a", "/etc/control")),
        ("serve --help", ENVIRON, None),
        ("--dir serve", ENVIRON, None),
        ("--dir --control serve", ENVIRON, None),
        ("--dir /srv/a --dir /srv/b serve", ENVIRON, None),
        ("--version serve", ENVIRON, None),
        ("--dir /srv/a check", ENVIRON, None),
        ("", ENVIRON, None),
    ],
)
def test_plain_lines_are_understood(
    line: str, environ: dict[str, str], asked: Invocation | None
) -> None:
    assert plain_invocation(line.split(), environ) == asked


def test_an_empty_value_is_for_the_parser() -> None:
    assert plain_invocation(["--dir", "", "serve"], ENVIRON) is None


def test_without_an_instance_the_parser_has_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restante.cli.invocation.DEFAULT_INSTANCE", "/nowhere")
    assert plain_invocation(["serve"], {}) is None


def test_the_server_has_no_parser_in_memory() -> None:
    code = (
        "import sys, restante.service.supervisor, restante.service.worker\n"
        "from restante.cli.serving import plain_invocation\n"
        "plain_invocation(['serve'], {})\n"
        "print(*{'typer', 'click', 'rich', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
