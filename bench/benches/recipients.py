"""One message for a thousand mailboxes: by a thousand RCPT commands, and by an alias."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench.accounts import DOMAIN, LIST, LISTED, NUMBERED, recipients
from bench.arena import Arena, Bench
from bench.rounds import Turns
from bench.sending import Sender
from bench.systems.system import System

OCTETS = 4096
MAILBOXES = recipients(LISTED)
"""Where the copies are looked for."""


def run(arena: Arena) -> None:
    """Both; the figure is the time until the last copy is in its mailbox."""
    by_name = (f"1 message to {LISTED:,} recipients", ["-N", "-r", str(LISTED), "-t", NUMBERED])
    by_alias = (f"1 message to an alias of {LISTED:,}", ["-t", f"{LIST}@{DOMAIN}"])
    systems = arena.mail_hosts()
    for key, (title, options) in {"1000": by_name, "alias-1000": by_alias}.items():
        arena.measure(
            f"recipients/{key}",
            title,
            [arena.entrant(each, *_round(arena, each, options)) for each in systems],
            Turns(LISTED, arena.options.rounds, warm_up=LISTED, seconds_for=LISTED),
            unit="s",
            note="CPU: for 1,000 copies; all were recipients before",
        )


def _round(
    arena: Arena, system: System, options: Sequence[str]
) -> tuple[Callable[[int], float], Callable[[], object]]:
    sender = Sender(system, arena.generator)
    return partial(_send, sender, options), partial(sender.prepare, MAILBOXES)


def _send(sender: Sender, options: Sequence[str], copies: int) -> float:
    """Seconds until all copies are in their mailboxes; raises LostError."""
    with sender.arrivals(MAILBOXES, copies) as last:
        began = time.monotonic()
        sender.source(["-m", "1", "-l", str(OCTETS), *options])
        seconds = max(time.monotonic(), last()) - began
    sender.check(MAILBOXES, copies, OCTETS)
    return seconds


BENCHES = (Bench("recipients", "1 message to 1,000 mailboxes, and to an alias of 1,000", run),)
