"""Users of the system that only some processes see: mount namespaces with other passwd files.

For root alone, who may mount.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restante.auth.libcrypt import crypt

_ENTER = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 && exec "$@"'
SINCE = 20_000
"""The day when passwords were changed (2024-10-04)."""


@dataclass
class SystemUsers:
    """The host's users, and those that a test adds; homes lie in ``directory``."""

    directory: Path

    def __post_init__(self) -> None:
        for name, mode in (("passwd", 0o644), ("shadow", 0o640)):
            copy = self.directory / name
            copy.write_text(Path("/etc", name).read_text())
            copy.chmod(mode)
        os.chown(self.directory / "shadow", 0, os.stat("/etc/shadow").st_gid)

    def add(self, name: str, uid: int, stored: str, dates: str = "0:99999:7::") -> Path:
        """A user with a hash and the last five fields of shadow(5); the home."""
        home = self.directory / f"home-{name}"
        home.mkdir(mode=0o711)
        os.chown(home, uid, uid)
        with (self.directory / "passwd").open("a") as file:
            file.write(f"{name}:x:{uid}:{uid}::{home}:/bin/bash\n")
        with (self.directory / "shadow").open("a") as file:
            file.write(f"{name}:{stored}:{SINCE}:{dates}:\n")
        return home

    def seen_by(self, command: Sequence[str]) -> list[str]:
        """The command in a namespace where these users exist."""
        files = [str(self.directory / name) for name in ("passwd", "shadow")]
        return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *files, *command]


def hashed(password: str, setting: str = "$6$") -> str:
    """A hash of crypt(3), as passwd(1) writes it."""
    made = crypt(password.encode(), f"{setting}{secrets.token_hex(8)}$".encode())
    assert made is not None
    return made.decode()
