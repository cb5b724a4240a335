"""Servers that want the password encrypted are logged in to, though nobody else needs that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.owner import only_root
from tests.support.private_python import private_python


def test_what_encrypts_passwords_is_imported_when_it_is_asked_for() -> None:
    """In a process of its own, for here everything is imported already."""
    assert said_by_rsa_server([sys.executable]) == ["False", r"[b'pass word\x00']"]


def said_by_rsa_server(python: list[str], path: str = "", *arguments: str) -> list[str]:
    """What it prints; ``path`` is PYTHONPATH."""
    return subprocess.run(
        [*python, "-m", "tests.support.rsa_server", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    ).stdout.splitlines()


@only_root
def test_a_registrar_can_though_only_root_may_read_how(tmp_path: Path) -> None:
    """It is the first that needs it, and no longer root by then."""
    python, path = private_python(tmp_path, private=("cryptography",))
    assert said_by_rsa_server(python, path, "registrar") == [r"[b'pass word\x00']"]
