"""All targets, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.guided.target import Target
from tests.guided.targets import addresses, auth, headers, pop3, settings, smtp, smtp_client

ROOMS = (smtp, smtp_client, pop3, addresses, auth, headers, settings)
TARGETS: Mapping[str, Target] = {target.name: target for room in ROOMS for target in room.TARGETS}
