"""The sendmail program, as cron and PHP call it: until it has ended, and the message is on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.accounts import address_of
from bench.arena import Arena, Bench
from bench.processes import Component
from bench.programs import program
from bench.rounds import Entrant, Turns
from bench.systems.system import System

MESSAGES = 20
"""In a round, one after another."""
MESSAGE = b"To: " + address_of(1).encode() + b"\nSubject: backup\n\nAll went well.\n"


def run(arena: Arena) -> None:
    """Restante's, and Postfix's."""
    systems = [each for each in arena.mail_hosts() if each.name != "exim"]
    entrants = [_entrant(arena, *each) for each in map(_program, systems)]
    arena.measure(
        "sendmail/one",
        "the sendmail program, one message",
        entrants,
        Turns(MESSAGES, arena.options.rounds, warm_up=2, seconds_for=1),
        unit="s",
        note="CPU of generator: the program itself",
    )


def _program(system: System) -> tuple[System, Sequence[str], Mapping[str, str]]:
    """How the system's own is called."""
    directory = system.log.parent
    if system.name.startswith("postfix"):
        return system, [program("sendmail"), "-C", str(directory / "conf")], {}
    own = Path(sys.executable).with_name("restante-sendmail")
    return system, [str(own)], {"RESTANTE_DIR": str(directory)}


def _entrant(
    arena: Arena, system: System, command: Sequence[str], environ: Mapping[str, str]
) -> Entrant:
    calls = [*command, "-i", "-f", "sender@example.net", "-t"]
    return arena.entrant(system, partial(_send, arena.generator, calls, environ))


def _send(
    component: Component, command: Sequence[str], environ: Mapping[str, str], messages: int
) -> float:
    """Seconds for so many; raises CalledProcessError."""
    began = time.monotonic()
    for _ in range(messages):
        subprocess.run(
            [*component.prefix, *command],
            input=MESSAGE,
            env=os.environ | environ,
            check=True,
        )
    return time.monotonic() - began


BENCHES = (Bench("sendmail", "the sendmail program", run),)
