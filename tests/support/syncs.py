"""What is made durable, and what was there at that moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def note_syncs(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[tuple[str, object]]:
    """Every fsync(2) from now on, which does no more than that: a path below ``root``, with the
    octets of a file, the names in a directory."""
    noted: list[tuple[str, object]] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        held = sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
        noted.append((str(path.relative_to(root)), held))

    monkeypatch.setattr(os, "fsync", note)
    return noted
