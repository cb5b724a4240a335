"""Servers that want the password encrypted are logged in to, though nobody else needs that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cryptography

import restante


def test_what_encrypts_passwords_is_imported_when_it_is_asked_for() -> None:
    """In a process of its own, for here everything is imported already."""
    assert said_by_rsa_server() == ["False", r"[b'pass word\x00']"]


def said_by_rsa_server(*options: str, path: str = "", arguments: tuple[str, ...] = ()) -> list[str]:
    """What it prints; ``options`` are Python's, which looks in ``path`` first."""
    command = [sys.executable, *options, "-m", "tests.support.rsa_server", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=30
    ).stdout.splitlines()


if os.geteuid() == 0:

    def test_a_registrar_can_though_only_root_may_read_how(tmp_path: Path) -> None:
        """It is the first that needs it, and no longer root by then."""
        everybodys, roots = tmp_path / "everybodys", tmp_path / "roots"
        everybodys.mkdir(0o755)
        roots.mkdir(0o700)
        for each in Path(cryptography.__file__).parent.parent.iterdir():
            (roots if each.name == "cryptography" else everybodys).joinpath(each.name).symlink_to(
                each
            )
        source = Path(restante.__file__).parent.parent
        path = os.pathsep.join(map(str, (source, everybodys, roots)))
        # -S: no other places, which have cryptography too.
        said = said_by_rsa_server("-S", path=path, arguments=("registrar",))
        assert said == [r"[b'pass word\x00']"]
