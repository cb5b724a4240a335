"""What ``check`` says of a qmail control directory."""

from __future__ import annotations

from restante.cli.findings import Findings
from restante.config.leftovers import leftovers
from restante.config.tree import Settings


def examine_control(settings: Settings, findings: Findings) -> None:
    """What is not obeyed of it: lines of files that are read, and files that are not."""
    control = settings.control
    if control is None:
        return
    findings.advice += control.warnings
    findings.advice += leftovers(control.directory)
