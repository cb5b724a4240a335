"""What ``check`` says of a qmail control directory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from restante.cli.check.findings import Findings
from restante.cli.check.servers import is_here
from restante.config.leftovers import leftovers
from restante.config.live import live_files
from restante.config.tree import Control, Settings
from restante.errors import OperatorError


def examine_control(settings: Settings, findings: Findings) -> None:
    """What is not obeyed of it: lines of files that are read, and files that are not."""
    control = settings.control
    if control is None:
        return
    findings.advice += control.warnings
    findings.advice += leftovers(control.directory)
    findings.advice += _not_heeded(settings, control)
    findings.advice += _not_let_in(settings, control)


def _not_heeded(settings: Settings, control: Control) -> Iterator[str]:
    """Files that the supervisor can read and the workers, who would heed changes, cannot."""
    from restante.service.user import server_user, starting_uid

    if starting_uid(settings) != 0:
        return  # both are the same user
    try:
        user = server_user(settings)
    except OperatorError:
        return  # a problem that is told elsewhere
    if user is None:
        return
    with user.rights():
        hidden = [path for path in live_files(control) if not _can_be_read(path)]
    for path in hidden:
        yield f"{path}: {user.name} cannot read it, so that changes count at SIGHUP only"


def _not_let_in(settings: Settings, control: Control) -> Iterator[str]:
    """Clients of qmail-pop3d, which has no TLS, unless somebody has decided about them."""
    if ("auth", "plaintext") in control.told:
        return
    if any(not is_here(place.host) for place in settings.pop3.listen):
        yield (
            "auth.plaintext: clients that log in without TLS, as they do to qmail-pop3d, are "
            "refused; have them changed, and say always until they are, and loopback from then on"
        )


def _can_be_read(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True
