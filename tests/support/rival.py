"""Somebody else at a database: a connection in which statements are begun, and not yet ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.mariadb import MariaDB


class Rival:
    """Another connection to a database, as somebody at the command line has it."""

    def __init__(self, server: MariaDB, database: str) -> None:
        self._client = subprocess.Popen(
            [*server.client, "--unbuffered", database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def does(self, statements: str) -> None:
        """Return when all of them are done."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.write(f"{statements}; SELECT 'done';\n".encode())
        self._client.stdin.flush()
        while self._client.stdout.readline() != b"done\n":
            assert self._client.poll() is None, "the client ended"

    def leaves(self) -> None:
        """What it has not committed is undone."""
        self._client.communicate()


@contextmanager
def rival(server: MariaDB, database: str) -> Iterator[Rival]:
    """One, until the block ends."""
    other = Rival(server, database)
    try:
        yield other
    finally:
        other.leaves()
