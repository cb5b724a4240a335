"""The restante command.

Commands live in modules of their own and import what they need when they run, so
that ``restante --help`` and the shell's completion answer at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with one of the codes of ``ExitCode``."""
    from restante.cli.app import run

    sys.exit(run(sys.argv[1:]))
