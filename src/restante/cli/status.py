"""Exit codes, and the sentence that goes with a failure."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

from restante.errors import ConfigurationError, OperatorError, RestanteError, TemporaryError


class ExitCode(IntEnum):
    """What the exit status means; the numbers are those of sysexits.h where it has one."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 69
    BUG = 70
    UNHEARD = 74
    TEMPORARY = 75
    CONFIGURATION = 78
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One sentence for the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "Done.",
    ExitCode.REFUSED: (
        "It cannot be done as asked, and nothing was changed; the message says why. "
        "`check`: something is wrong."
    ),
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.UNAVAILABLE: (
        "`serve`, `demo`: the server cannot start, as when a port is taken. `status`: one of its "
        "listeners does not answer."
    ),
    ExitCode.BUG: "An error that nobody foresaw.",
    ExitCode.UNHEARD: (
        "What was asked for is done, but standard output did not take all there was to say: a full "
        "disk, or a reader that has gone."
    ),
    ExitCode.TEMPORARY: (
        "The database cannot be asked or changed now; the same command may work later."
    ),
    ExitCode.CONFIGURATION: "restante.toml or the environment is wrong; every problem is named.",
    ExitCode.INTERRUPTED: (
        "Ended by Ctrl-C. At a prompt nothing was changed; `queue` commands say what was done, and "
        "end so where their terminal is closed or SIGTERM comes, too."
    ),
}


_NOT_TAKEN = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of output, where no file is named: whatever else is written names its own."""


class ServerUnavailable(RestanteError):
    """The server could not be started."""


def guarded(work: Callable[[], int | None]) -> int:
    """Do a command's work; the exit code. Errors are said on standard error."""
    code = _carried_out(work)
    try:
        sys.stdout.flush()
    except OSError as error:
        unheard = _unheard(error)
        return code or unheard
    return code


def _carried_out(work: Callable[[], int | None]) -> int:
    try:
        return work() or ExitCode.OK
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # what typer makes of it
            return _unheard(ended.__context__)
        return ended.code if isinstance(ended.code, int) else ExitCode.REFUSED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a bug is said in a sentence too
        if isinstance(error, OSError) and error.errno in _NOT_TAKEN and error.filename is None:
            return _unheard(error)
        complain(error)
        return code_of(error)


def _unheard(error: OSError) -> int:
    """What is still to be written must not fail once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # else the reader has seen enough
        complain(OperatorError(f"standard output cannot be written to: {error.strerror}"))
    return ExitCode.UNHEARD


def code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that ends the command."""
    if isinstance(error, ConfigurationError):
        return ExitCode.CONFIGURATION
    if isinstance(error, ServerUnavailable):
        return ExitCode.UNAVAILABLE
    if isinstance(error, TemporaryError):
        return ExitCode.REFUSED if _is_rejected(error) else ExitCode.TEMPORARY
    return ExitCode.REFUSED if isinstance(error, RestanteError) else ExitCode.BUG


def _is_rejected(error: TemporaryError) -> bool:
    """Whether the database will say the same next time: it has no such table, or no such right."""
    from restante.directory.engine import Overtaken, Rejected  # only a failure pays for it

    return isinstance(error, Rejected) and not isinstance(error, Overtaken)


def complain(error: BaseException) -> None:
    """Say on standard error what is wrong, one line a problem and no trace."""
    from restante.cli.output import one_line  # only a failure pays for it

    if isinstance(error, RestanteError):
        lines = str(error).splitlines() or [type(error).__name__]
    else:
        lines = [_describe_bug(error)]
    with suppress(OSError):  # the exit code says it too
        for line in lines:
            print(f"restante: {one_line(line)}", file=sys.stderr)


def _describe_bug(error: BaseException) -> str:
    """Where it was raised is what a report of the bug needs most."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"a bug: {type(error).__name__}: {text} ({place.filename}:{place.lineno})"
