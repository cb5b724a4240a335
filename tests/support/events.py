"""What the log was told."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from restante.eventlog import INFO, Destination, log


@contextmanager
def capture_logs(least: int = INFO) -> Iterator[list[MutableMapping[str, Any]]]:
    """Events from a level on until the end of the block, in place of wherever they went before."""
    events: list[MutableMapping[str, Any]] = []

    def keep(level: str, event: str, fields: dict[str, Any]) -> None:
        events.append({"event": event, "log_level": level, **fields})

    before = log.destination
    log.destination = Destination(keep, least)
    try:
        yield events
    finally:
        log.destination = before
