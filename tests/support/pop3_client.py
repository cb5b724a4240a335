"""A POP3 client for servers that come and go."""

from __future__ import annotations

import poplib

from tests.support.instance import PATIENCE


class Session(poplib.POP3):
    """A connection that is closed also where the greeting does not come."""

    def __init__(self, host: str, port: int) -> None:
        try:
            super().__init__(host, port, timeout=PATIENCE)
        except (poplib.error_proto, OSError):
            if hasattr(self, "file"):
                self.close()
            raise
