"""What ``check`` has found."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_NAMED = 10
"""Rows of one kind that are named, so that a check of a large database stays short."""


@dataclass(slots=True)
class Findings:
    """Problems keep the server from working; advice does not."""

    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
