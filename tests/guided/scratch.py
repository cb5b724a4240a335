"""A place for the files of targets that read files: in memory, for there are millions."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

_MEMORY = "/dev/shm"


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="restante-guided-", dir=place)


def scratch(name: str) -> Path:
    """The directory of this name, the same one each time; it is gone with the process."""
    path = Path(_directory().name, name)
    path.mkdir(exist_ok=True)
    return path


def emptied(name: str) -> Path:
    """The same, with no file in it."""
    path = scratch(name)
    for file in path.iterdir():
        file.unlink()
    return path
