"""Control directories for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def control_directory(parent: Path, files: Mapping[str, str | bytes]) -> Path:
    """A directory ``control`` with these files; sqlserver is for its owner alone."""
    directory = parent / "control"
    directory.mkdir()
    for name, content in files.items():
        octets = content.encode() if isinstance(content, str) else content
        (directory / name).write_bytes(octets)
    if "sqlserver" in files:
        (directory / "sqlserver").chmod(0o600)
    return directory
