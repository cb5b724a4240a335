"""The command line: options of the program's own, then the program that is to be run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from restante.checkpassword import MISUSED, Ending
from restante.drop import CONTROL_INSTANCE, DEFAULT_INSTANCE

USAGE = "usage: restante-checkpassword [--dir DIR] [--control DIR] PROGRAM [ARGUMENT ...]"


class Options(NamedTuple):
    """What the command line says."""

    directory: str
    """The instance."""
    control: str
    """A qmail control directory; empty if none is named."""
    program: tuple[str, ...]
    """What is run when the login is good."""


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read a command line, its first word the program's own name; raises Ending."""
    named = {"--dir": environ.get("RESTANTE_DIR", ""), "--control": ""}
    rest = list(arguments[1:])
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option == "--" and not equals:
            break
        option = "--dir" if option == "-C" else option
        if option not in named or not (equals or rest):
            raise Ending(MISUSED, USAGE)
        named[option] = value if equals else rest.pop(0)
    if not rest:
        raise Ending(MISUSED, USAGE)
    control = named["--control"] and os.path.abspath(named["--control"])
    given = control or environ.get("RESTANTE_CONTROL")
    usual = CONTROL_INSTANCE if given and not os.path.isdir(DEFAULT_INSTANCE) else DEFAULT_INSTANCE
    return Options(os.path.abspath(named["--dir"] or usual), control, tuple(rest))
