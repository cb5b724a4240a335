"""What it means for the message how a command ended, and what is told of it to whom."""

from __future__ import annotations

import signal

from restante.mda import Ran
from restante.mda.answers import shown_command
from restante.mda.program import Ended
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure

LAST = 99
"""Delivered, and the instructions after this one do not count (qmail-command(8))."""
PERMANENT = frozenset({64, 65, 70, 76, 77, 78, 100, 112})
"""Exit codes that mean a bounce (qmail-command(8)); all others but 0 and 99 mean later."""
TOLD_LINES = 15
"""Lines of output that a bounce repeats."""
TOLD_WIDTH = 200
"""Characters of such a line."""
LOGGED = 1000
"""Characters of output that a line of the log repeats."""

REFUSED = "The program that takes the mail for this address refused the message"
PUT_OFF = Reply(451, "3.0", "The program that takes the mail for this address failed for now")


def judge(command: str, ended: Ended) -> Ran:
    """The outcome of a command that has run."""
    detail = f"{shown_command(command)}: {_manner(ended)}{_logged(ended.output)}"
    if ended.cut_short or ended.status < 0:
        return Ran(TemporaryFailure(PUT_OFF, detail))
    if ended.status in (0, LAST):
        return Ran(Delivered(detail), is_last=ended.status == LAST)
    if ended.status in PERMANENT:
        return Ran(PermanentFailure(Reply(554, "0.0", _told(ended.output)), detail))
    return Ran(TemporaryFailure(PUT_OFF, detail))


def _manner(ended: Ended) -> str:
    """How it ended, for the log."""
    how = f"exit {ended.status}" if ended.status >= 0 else f"killed by {_name(-ended.status)}"
    return f"{ended.cut_short}: {how}" if ended.cut_short else how


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _logged(output: bytes) -> str:
    """Output as part of one line of the log."""
    text = " / ".join(_lines(output))
    return f", it wrote: {text[:LOGGED]}" if text else ""


def _told(output: bytes) -> str:
    """What a sender reads: the program's own words, if it has any."""
    lines = [line[:TOLD_WIDTH] for line in _lines(output)[:TOLD_LINES]]
    return "\n".join([f"{REFUSED}, and said:", *lines]) if lines else REFUSED


def _lines(output: bytes) -> list[str]:
    """The lines that say something, without what a terminal or a log might obey."""
    text = output.decode("utf-8", "replace")
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    return [line.strip() for line in lines if line.strip()]
