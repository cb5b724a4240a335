"""A Python of which only root may read some packages, as where it lies in root's home."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import cryptography

import restante

_INSTALLED = Path(cryptography.__file__).parent.parent


def private_python(directory: Path, *, private: Collection[str]) -> tuple[list[str], str]:
    """The interpreter, and PYTHONPATH for it, made in an empty ``directory``.

    Whatever is imported is found there, the packages named ``private`` by root alone.
    """
    everybodys, roots = directory / "everybodys", directory / "roots"
    everybodys.mkdir(0o755)
    roots.mkdir(0o700)
    for package in (*_INSTALLED.iterdir(), Path(restante.__file__).parent):
        place = roots if package.name in private else everybodys
        (place / package.name).symlink_to(package)
    # -S: no other places, where everybody finds the same.
    return [sys.executable, "-S"], os.pathsep.join(map(str, (everybodys, roots)))
