"""Whether the programs of this host can send mail, and whether what they send to root arrives."""

from __future__ import annotations

import contextlib
import os
import stat

from restante.address import Address, fold
from restante.cli.check.findings import Findings
from restante.cli.context import decision_about
from restante.cli.output import count
from restante.config.tree import Settings
from restante.drop import DEFAULT_INSTANCE, DropPaths
from restante.errors import RestanteError
from restante.pickup.place import site_of


def examine_programs(settings: Settings, findings: Findings) -> None:
    """Add what is wrong; most of it matters only where this is the host's own instance."""
    _examine_bad_files(settings, findings)
    if os.path.realpath(DEFAULT_INSTANCE) != os.path.realpath(settings.directory):
        return
    if settings.sendmail.users == "everyone":
        _examine_rights(settings, findings)
    _examine_root(settings, findings)


def _examine_bad_files(settings: Settings, findings: Findings) -> None:
    bad = DropPaths.of(settings.directory).bad
    with contextlib.suppress(OSError):
        files = len(os.listdir(bad))
        if files:
            findings.advice.append(
                f"{count(files, 'file')} in {bad} that no message could be made of: the log says "
                "what is wrong, as drop_refused; they are yours to look at and to remove"
            )


def _examine_rights(settings: Settings, findings: Findings) -> None:
    directory = os.path.realpath(settings.directory)
    with contextlib.suppress(FileNotFoundError):  # the first server makes it
        if not os.stat(directory).st_mode & stat.S_IXOTH:
            findings.advice.append(
                f"programs of other users cannot send mail, for they may not enter {directory}: "
                f"chmod o+x {directory}, or set sendmail.users to owner"
            )


def _examine_root(settings: Settings, findings: Findings) -> None:
    """Cron writes to root, and nobody notices when that goes nowhere."""
    from restante.routing.decision import NoSuchUser, Remote

    root = Address("root", fold(site_of(settings).defaulthost))
    with contextlib.suppress(RestanteError):  # named as a problem of the database already
        match decision_about(settings, root):
            case Remote():
                findings.advice.append(
                    f"what programs send to root goes to {root}, which is for another host: set "
                    "sendmail.defaulthost to a domain of this one"
                )
            case NoSuchUser():
                findings.advice.append(
                    f"what programs send to root goes to {root}, whom nobody knows: "
                    f"restante alias add {root} ADDRESS"
                )
