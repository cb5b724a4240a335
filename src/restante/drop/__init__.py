"""The drop directory: where programs on this host leave mail for the server, running or not.

    DIR/drop/           passable for everyone
    DIR/drop/site       what a program has to know of the instance; readable for everyone
    DIR/drop/wake       a FIFO: an octet in it makes the server look at once
    DIR/drop/incoming/  everybody may leave files here, nobody can list or remove another's
    DIR/drop/claimed/   the server's own: what it is taking into its queue, by queue
    DIR/drop/bad/       the server's own: what it could not make sense of

This module is the contract of both sides, and imports nothing that is slow to load.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

DEFAULT_INSTANCE = "/etc/restante"
"""The instance, or a symbolic link to it, where nothing names one."""
CONTROL_INSTANCE = "/var/lib/restante"
"""The instance of a host that has a control directory and no restante.toml."""

_NAME = re.compile(r"m[0-9a-f]{32}")
_UNFINISHED = re.compile(r"t[0-9a-f]{32}")


class DropPaths(NamedTuple):
    """Where the parts of a drop directory lie."""

    root: str

    @classmethod
    def of(cls, instance: str) -> DropPaths:
        """Those of the instance in a directory."""
        return cls(os.path.join(instance, "drop"))

    @property
    def site(self) -> str:
        """See the page above; so do the others."""
        return os.path.join(self.root, "site")

    @property
    def wake(self) -> str:
        return os.path.join(self.root, "wake")

    @property
    def incoming(self) -> str:
        return os.path.join(self.root, "incoming")

    @property
    def claimed(self) -> str:
        return os.path.join(self.root, "claimed")

    @property
    def bad(self) -> str:
        return os.path.join(self.root, "bad")


def new_names() -> tuple[str, str]:
    """The names of one file, unfinished and finished, that nobody can guess.

    That matters where the server is not root: its users' files must then be readable for
    everyone, and it is the name that keeps others from reading them.
    """
    unique = os.urandom(16).hex()
    return f"t{unique}", f"m{unique}"


def is_finished(name: str) -> bool:
    """Whether a file of this name in ``incoming`` is a message, whole and durable."""
    return _NAME.fullmatch(name) is not None


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is being written, or was when its writer ended."""
    return _UNFINISHED.fullmatch(name) is not None
