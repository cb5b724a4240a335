"""The sendmail program: takes a message on standard input and leaves it for the server.

Started anew for every message, by cron, PHP, mail readers and scripts, so that what it imports
is what it costs: nothing here or below may import dataclasses, email, asyncio or typer on the
way of a message.
"""

from __future__ import annotations

import os
import sys

NO_INSTANCE = os.EX_OSFILE
"""This host lacks what it takes to leave a message. A status with which a program in a .qmail file
is tried again (``mda.ending``), and which PHP, unlike EX_TEMPFAIL, does not take for success."""
NOT_NOW = os.EX_OSERR
"""Nothing was kept, and another attempt may go well. EX_TEMPFAIL would say to callers of
sendmail that the message was queued."""


class Refusal(Exception):
    """The program ends here: its exit status, one of sysexits, and what it says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def main() -> None:
    """Run the command line and end the process with a status of sysexits.h."""
    from restante.sendmail.program import run

    try:
        status = run(sys.argv, os.environ)
    except Refusal as refusal:
        _say(str(refusal))
        status = refusal.status
    except KeyboardInterrupt:
        status = 130
    except Exception as error:  # noqa: BLE001 - a bug is said in a sentence too
        _say(f"a bug: {type(error).__name__}: {error}")
        status = os.EX_OSERR  # not EX_SOFTWARE: nobody has decided that it cannot be sent
    sys.exit(status)


def _say(text: str) -> None:
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    print(f"sendmail: {plain}", file=sys.stderr)
