"""A connection to MariaDB that waits takes little memory, and its answers may be large."""

from __future__ import annotations

import pytest

from restante.config.tree import Database
from restante.directory.driver import BUFFER
from restante.directory.engine import open_engine
from restante.directory.mysql import MySQLEngine
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.mariadb

NUMBERS = (
    "WITH RECURSIVE numbers (seq) AS "
    "(SELECT 1 UNION ALL SELECT seq + 1 FROM numbers WHERE seq < 1000)"
)


def _buffers(engine: MySQLEngine) -> list[int]:
    receivers = [getattr(lease.connection, "_proto", None) for lease in engine._pool._idle]
    return [len(getattr(receiver, "buffer", b"")) for receiver in receivers]


async def test_answers_of_all_sizes_come_whole(mariadb_server: MariaDB) -> None:
    database = mariadb_server.new_database()
    engine = open_engine(Database(url=mariadb_server.url(database, tcp=True), pool_size=1), "/")
    assert isinstance(engine, MySQLEngine)
    try:
        assert await engine.fetch("SELECT 1") == [(1,)]
        assert _buffers(engine) == [BUFFER], "the driver keeps it elsewhere: see make_lean"
        for length in (BUFFER - 100, BUFFER, BUFFER + 1, 20 * BUFFER, 1):
            rows = await engine.fetch("SELECT REPEAT('x', ?), ?", (length, "end"))
            assert rows == [("x" * length, "end")]
        many = await engine.fetch(f"{NUMBERS} SELECT seq, REPEAT('y', 500) FROM numbers")
        assert many == [(number, "y" * 500) for number in range(1, 1001)]
    finally:
        await engine.close()
