"""All targets, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.guided.target import Target
from tests.guided.targets import (
    addresses,
    auth,
    dns,
    headers,
    helpers,
    mailboxes,
    metrics,
    pop3,
    programs,
    queues,
    settings,
    smtp,
    smtp_client,
    tls,
)

ROOMS = (
    smtp,
    pop3,
    smtp_client,
    tls,
    addresses,
    auth,
    helpers,
    headers,
    programs,
    mailboxes,
    queues,
    dns,
    metrics,
    settings,
)
"""What strangers reach comes first."""
TARGETS: Mapping[str, Target] = {target.name: target for room in ROOMS for target in room.TARGETS}
