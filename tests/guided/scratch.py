"""A place for the files of targets that read files: in memory, for there are millions."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

_MEMORY = "/dev/shm"


def passing() -> tempfile.TemporaryDirectory[str]:
    """A directory that is gone with whoever has made it; where TMPDIR says, if that is set."""
    place = None if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK) else _MEMORY
    return tempfile.TemporaryDirectory(prefix="restante-guided-", dir=place)


_directory = cache(passing)


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
