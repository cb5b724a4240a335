"""Sockets whose paths may be longer than their addresses (unix(7): 107 octets)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def place_of(directory: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the directory, and what stands for it in addresses; raises OSError."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield place, f"/proc/self/fd/{place}"
    finally:
        os.close(place)


@contextlib.contextmanager
def address_of(path: str) -> Iterator[str]:
    """An address for the path, however long it is; raises OSError."""
    directory, name = os.path.split(path)
    with place_of(directory) as (_, short):
        yield f"{short}/{name}"
