"""What an operator did to the queue, in the server's own log: mail does not vanish from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from restante import eventlog, maillog
from restante.cli.output import count, remark
from restante.logsetup import SYSLOG_SOCKET, LogUnusable, setup_logging

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.queue.operate import Affected, Verb

Note = Callable[["Verb", "Affected"], None]
"""Takes note of what was done to one message."""


@contextlib.contextmanager
def journal(settings: Settings) -> Iterator[Note]:
    """While it lasts, changes can be logged. Without a log the work goes on all the same."""
    before = eventlog.log.destination
    try:
        log = setup_logging(replace(settings.log, target=_target(settings)), settings.directory)
    except LogUnusable as error:
        yield _unlogged(str(error))
        return
    try:
        yield _note
    finally:
        eventlog.log.destination = before
        if log.lost:
            remark(f"{count(log.lost, 'line')} of what was done could not be logged")
        log.close()


def _target(settings: Settings) -> str:
    """Where the server's log goes, or the next best place; raises LogUnusable."""
    target = settings.log.target
    if target == "stderr":
        # Whoever started the server keeps that; what a command says there is lost.
        if not os.path.exists(SYSLOG_SOCKET):
            raise LogUnusable(f"log.target is stderr, and there is no syslog at {SYSLOG_SOCKET}")
        return "syslog"
    if target != "syslog" and not os.path.exists(path := settings.path(target)):
        # One that root makes may not be the server's to write to.
        raise LogUnusable(f"log.target: there is no {path} now")
    return target


def _note(verb: Verb, part: Affected) -> None:
    for first in range(0, len(part.recipients), maillog.RECIPIENTS_SHOWN):
        some = part.recipients[first : first + maillog.RECIPIENTS_SHOWN]
        maillog.operated(part.queue_id, verb.value, some, os.getuid())


def _unlogged(why: str) -> Note:
    """Says once that there is no log."""
    told = False

    def note(_verb: Verb, _part: Affected) -> None:
        nonlocal told
        if not told:
            remark(f"what is done now is not logged: {why}")
        told = True

    return note
