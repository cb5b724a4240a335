"""A file system on which no further file can be made. For root alone, who may mount."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

FILES = 32


@contextlib.contextmanager
def few_inodes(directory: Path) -> Iterator[Path]:
    """A tmpfs with room for a few files, mounted at the directory."""
    directory.mkdir()
    options = f"size=1m,nr_inodes={FILES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def use_up(directory: Path) -> list[Path]:
    """Make files until there is no room for any; remove one, and there is."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        for number in range(FILES):
            path = directory / f"filler-{number}"
            path.touch()
            made.append(path)
    assert len(made) < FILES
    return made
