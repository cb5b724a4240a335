"""The checkpassword program: decides a login that it is told on descriptor 3, then runs a program.

Started anew for every login, by qmail-popup and its kind or by Dovecot, so that what it imports is
what it costs: nothing here or below may import dataclasses, asyncio or typer while a server
runs, which is asked through a socket. Without one the database is asked here (``direct``).
"""

from __future__ import annotations

import os
import sys

REFUSED = 1
"""The login is not good."""
MISUSED = 2
"""Nobody has called the program as it is to be called."""
NO_SUCH_USER = 3
"""Dovecot alone asks whether there is a user, without a password."""
TEMPORARY = 111
"""It cannot be known now."""


class Ending(Exception):
    """The program ends here: its exit status, and what it says, if anything."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


def main() -> None:
    """Run the command line; returns only by ending the process, or by becoming another program."""
    try:
        from restante.checkpassword.program import run  # may fail as all else may

        run(sys.argv, os.environ)
    except Ending as ending:
        status = ending.status
        if str(ending):
            _say(str(ending))
    except KeyboardInterrupt:
        status = TEMPORARY
    except Exception as error:  # noqa: BLE001 - a bug says nothing about the password
        _say(f"a bug: {type(error).__name__}: {error}")
        status = TEMPORARY
    sys.exit(status)


def _say(text: str) -> None:
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    print(f"checkpassword: {plain}", file=sys.stderr)
