"""Child processes of the supervisor: how they begin, and that they have ended."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable

from restante import maillog
from restante.errors import OperatorError

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""Signals that the supervisor keeps blocked, and takes one at a time."""
_NOT_THEIRS = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to the whole group: the supervisor decides, and tells by SIGTERM."""


def fork(what: str, body: Callable[[], int]) -> int:
    """Start a child that does ``body`` and exits with its status; its process id.

    It hears SIGTERM, and never SIGINT or SIGHUP.

    What is alive now is looked at by no collector any more, of neither process: to look at an
    object is to write to its page, which is shared until then. Garbage is collected before.

    Raises OperatorError, whose text calls the child ``what``.
    """
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    try:
        pid = os.fork()
    except OSError as error:
        raise OperatorError(f"no {what} can be started: {error.strerror}") from error
    else:
        if pid == 0:
            _live(what, body)
    return pid


def _live(what: str, body: Callable[[], int]) -> None:
    """Never returns: the child's only way out is its exit status."""
    status = 1
    try:
        for number in _NOT_THEIRS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        status = body()
    except BaseException as error:  # noqa: BLE001 - the last line before the process ends
        maillog.unplanned(what, error)
    finally:
        os._exit(status)


def poll(pid: int) -> int | None:
    """The exit status of a child, negative for a signal, or None while it runs.

    To be asked no more once it has ended.
    """
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if reaped else None


def reap(pids: Iterable[int]) -> list[tuple[int, int]]:
    """Process ids and exit statuses of those that have ended."""
    statuses = [(pid, poll(pid)) for pid in list(pids)]
    return [(pid, status) for pid, status in statuses if status is not None]
