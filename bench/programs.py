"""Programs that the bench runs: those of Debian's packages, and its own in C."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SOURCES = Path(__file__).parent / "generators"
_BUILT = Path(__file__).parents[1] / "build" / "bench"
_PACKAGES = {
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "postfix": "postfix postfix-mysql",
    "dovecot": "dovecot-core dovecot-pop3d dovecot-mysql",
    "mariadbd": "mariadb-server",
    "mariadb": "mariadb-client",
    "strace": "strace",
    "cc": "gcc libc6-dev libssl-dev",
}
_SPEAKING = ("load.c", "-lssl", "-lcrypto")
_WITH: Mapping[str, Sequence[str]] = {
    "pop3load": _SPEAKING,
    "smtpload": _SPEAKING,
    "smtpsink": ("-lssl", "-lcrypto"),
}
"""What else is compiled and linked with a generator, by its name."""


class MissingError(Exception):
    """Something that a bench needs is not there; the text says what to do."""


def program(name: str) -> str:
    """The path of an installed program; raises MissingError."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        packages = _PACKAGES.get(name, name)
        raise MissingError(f"{name} is missing: apt-get install --no-install-recommends {packages}")
    return path


def generator(name: str) -> str:
    """The path of generators/NAME.c, compiled anew if any has changed; raises MissingError."""
    built = _BUILT / name
    changed = max(source.stat().st_mtime for source in _SOURCES.glob("*.[ch]"))
    if not built.exists() or built.stat().st_mtime < changed:
        _BUILT.mkdir(parents=True, exist_ok=True)
        new = f"{built}.{os.getpid()}"
        command = [program("cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
        sources = (f"{name}.c", *_WITH.get(name, ()))
        subprocess.run([*command, "-o", new, *sources], check=True, cwd=_SOURCES)
        os.replace(new, built)  # whole, for whoever else runs it
    return str(built)
