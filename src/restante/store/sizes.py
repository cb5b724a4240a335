"""Sizes of messages whose names have none, remembered so that each is read once.

The file ``restante.sizes`` in the Maildir holds a line ``SIZE UID`` for each. Losing
it costs time only; whatever is malformed in it is ignored.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping

from restante.store import files

CACHE = "restante.sizes"
MAX_CACHE = 64 * 1024 * 1024
"""Octets in the file; a larger one is not ours."""
MAX_SIZE = 2**40
"""Octets in a message; a larger number is nonsense."""

_LINE = re.compile(r"^([0-9]{1,13}) ([\x21-\x7e]{1,70})$", re.MULTILINE)


def load(maildir: bytes) -> dict[str, int]:
    """The remembered wire sizes by UID; empty if there are none or they cannot be read."""
    try:
        content = files.read_bounded(os.path.join(maildir, os.fsencode(CACHE)), MAX_CACHE)
    except OSError:
        return {}
    lines = _LINE.finditer((content or b"").decode("latin-1"))  # other threads run between two
    return {line[2]: size for line in lines if (size := int(line[1])) <= MAX_SIZE}


def save(maildir: bytes, sizes: Mapping[str, int]) -> None:
    """Replace the remembered sizes, or leave them as they were if that fails.

    The caller holds the lock of the Maildir. Durability is not needed.
    """
    path = os.path.join(maildir, os.fsencode(CACHE))
    fresh = path + b".new"
    content = "".join([f"{size} {uid}\n" for uid, size in sizes.items()]).encode()
    with contextlib.suppress(OSError):
        try:
            _write_new(fresh, content)
            os.replace(fresh, path)
        except OSError:
            os.unlink(fresh)


def _write_new(path: bytes, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
