"""Which instance a command is about."""

from __future__ import annotations

import os
from dataclasses import dataclass

from restante.config.load import load
from restante.config.tree import Settings
from restante.drop import CONTROL_INSTANCE, DEFAULT_INSTANCE
from restante.errors import OperatorError


class NoInstance(OperatorError):
    """No instance is named, and this host has none of its own."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What stands before the command's name."""

    directory: str
    """The instance directory; empty if none is named."""
    control: str
    """A qmail control directory; the same."""

    @property
    def place(self) -> str:
        """The directory of the instance that is named, or of this host's own; empty if none is."""
        if self.directory:
            return self.directory
        if os.path.isdir(DEFAULT_INSTANCE):
            return DEFAULT_INSTANCE
        return CONTROL_INSTANCE if self.control else ""

    def settings(self) -> Settings:
        """Those of the instance; raises OperatorError."""
        place = self.place
        if not place:
            raise NoInstance(
                "name the instance: restante --dir DIR ..., or set RESTANTE_DIR, or make a link "
                f"{DEFAULT_INSTANCE} to it"
            )
        return load(place, os.environ, self.control and os.path.abspath(self.control))


def is_utf8(argument: str) -> bool:
    """Whether an argument was UTF-8: of other octets Python makes what cannot be encoded."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
