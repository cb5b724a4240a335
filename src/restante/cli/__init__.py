"""The restante command.

Commands live in modules of their own and import what they need when they run, so
that ``restante --help`` and the shell's completion answer at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys

_SERVING = frozenset({"serve", "demo"})
_INTERRUPTED = 130
"""``ExitCode.INTERRUPTED``."""


def main() -> None:
    """Run the command line and end the process with one of the codes of ``ExitCode``."""
    try:
        _hold_reloads(sys.argv[1:])
        prepare_streams()
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # before anything was done: what is read first takes its time
        code = _INTERRUPTED
    sys.exit(code)


def _hold_reloads(arguments: list[str]) -> None:
    """SIGHUP waits until the server is up, which then reads its settings again.

    By default it would end a server that is just starting. Another command that has such a word in
    its line hears it when it has ended.
    """
    if not _SERVING.isdisjoint(arguments):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def prepare_streams() -> None:
    """A stream that the caller has closed is /dev/null; output takes letters that it cannot have.

    Addresses have any, and not every locale's encoding does: those are escaped.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    from restante.cli import serving

    asked = serving.plain_invocation(arguments, os.environ)
    if asked is not None:
        from restante.cli.status import guarded

        return guarded(lambda: serving.serve(asked.settings()))
    from restante.cli.app import run

    return run(arguments)
