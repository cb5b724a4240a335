"""Whether the running server serves by restante.toml as it is now."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from restante.cli.check.findings import Findings
from restante.config.tree import Settings
from restante.service.marks import digest_of, marks_of
from restante.service.ownership import RUN
from restante.tally.owner import as_owner

_LATEST = 2**32
"""That can be written as a date."""


def examine_marks(settings: Settings, findings: Findings) -> None:
    """Else it comes to light at the next start, which may be that of the machine."""
    digest, marks = digest_of(settings.directory), None
    with suppress(OSError), as_owner(os.path.join(settings.directory, RUN)):
        marks = marks_of(settings.directory)
    if marks is None:
        return  # no server runs, or this user may not know
    if marks.refused_at is not None:
        findings.advice.append(
            f"the reload of {_moment(marks.refused_at)} was refused, and reload_refused in the log "
            f"says why: the server serves by the settings of {_moment(marks.read_at)}"
        )
    elif marks.digest != digest:
        findings.advice.append(
            "restante.toml has changed since the server read it, at "
            f"{_moment(marks.read_at)}: systemctl reload restante, or SIGHUP, has it read again"
        )


def _moment(seconds: float) -> str:
    """As the log writes it. Whoever made the mark can have given it any time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(0, min(seconds, _LATEST))))
