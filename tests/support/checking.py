"""The checkpassword program as its callers call it: credentials on descriptor 3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM = (sys.executable, "-m", "restante.checkpassword")
TELL = "echo uid=$(id -u); echo gid=$(id -g); echo groups=$(id -G); echo home=$(pwd); env"
"""What the program that is run says of itself."""
CLEAN = {"PATH": os.environ["PATH"]}


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one login."""

    status: int
    told: Mapping[str, str]
    """What the program that was run said: rights, and its environment."""
    error: str


def check(
    instance: Path | str,
    login: str = "iain@example.com",
    password: str = "secret",
    *,
    raw: bytes | None = None,
    command: tuple[str, ...] = ("sh", "-c", TELL),
    environ: Mapping[str, str] | None = None,
) -> Checked:
    """Run the program; ``raw`` in place of login and password."""
    octets = f"{login}\0{password}\0timestamp\0".encode() if raw is None else raw
    arguments = [*PROGRAM, "--dir", str(instance), *command]
    done = run_with(arguments, octets, {**CLEAN, **(environ or {})})
    lines = (line.partition("=") for line in done.stdout.splitlines())
    told = {name: value for name, _, value in lines}
    return Checked(done.returncode, told, done.stderr)


def run_with(
    arguments: list[str], octets: bytes, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program with octets on descriptor 3."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(octets)
    try:
        return subprocess.run(
            ["bash", "-c", f'exec "$@" 3<&{reading}', "bash", *arguments],
            pass_fds=[reading],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(reading)
