"""Contents of messages whose bodies lie in files."""

from __future__ import annotations

import os

from restante.envelope import Content, HeaderFacts


def spooled_content(trace: bytes, path: str, lines: int, facts: HeaderFacts) -> Content:
    """A content whose body is the file at ``path``; raises OSError if it is not there."""
    return Content(trace, path, os.stat(path).st_size, lines, facts)
