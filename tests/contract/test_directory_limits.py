"""A server that takes no further connection of this user: questions share those that they have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from restante.config.tree import Database
from restante.directory import pool
from restante.directory.engine import Engine, Statement, open_engine
from restante.errors import CannotKnow
from tests.support.directory import Rows, engine_with
from tests.support.events import capture_logs
from tests.support.mariadb import MariaDB

pytestmark = pytest.mark.mariadb

SITE: Rows = {"mailbox": [("iain", 1000, 1000, "/h", "x", None)]}
CHANGE = Statement("UPDATE `mailbox` SET `gid` = `gid` + 1")


@pytest.fixture
async def database(mariadb_server: MariaDB) -> str:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name), SITE):
        return name


def _limited(server: MariaDB, database: str, connections: int) -> str:
    """The URL for a user who may have so many."""
    user = f"limited_{database}"  # a server counts by names, also those of users that it dropped
    url = server.url_of(user, f"SELECT, UPDATE ON {database}.*", database)
    server.sql(f"ALTER USER {user}@localhost WITH MAX_USER_CONNECTIONS {connections}")
    return url


@asynccontextmanager
async def _engine_on(url: str, timeouts: float = 4.0) -> AsyncIterator[Engine]:
    settings = Database(url=url, pool_size=8, connect_timeout=timeouts, query_timeout=timeouts)
    engine = open_engine(settings, "/")
    yield engine
    await engine.close()


def _slow(seconds: float) -> str:
    return f"SELECT *, SLEEP({seconds}) FROM `mailbox`"


async def test_look_ups_share_the_connections_that_the_server_allows(
    mariadb_server: MariaDB, database: str
) -> None:
    url = _limited(mariadb_server, database, 2)
    with capture_logs() as events:
        async with _engine_on(url) as another:
            async with _engine_on(url) as engine:
                answers = await asyncio.gather(*(engine.fetch(_slow(0.05)) for _ in range(20)))
                assert all(len(rows) == 1 for rows in answers)
                with pytest.raises(CannotKnow, match="max_user_connections"):
                    await another.fetch("SELECT 1")  # it has none of its own
            await another.fetch("SELECT 1")
    assert [event["event"] for event in events] == ["database_away", "database_back"]


async def test_there_is_time_to_wait_for_others_where_an_answer_may_take_all_of_it(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _engine_on(_limited(mariadb_server, database, 2), timeouts=20.0) as engine:
        answers = await asyncio.gather(*(engine.fetch(_slow(0.05)) for _ in range(20)))
        assert all(len(rows) == 1 for rows in answers)


async def test_a_connection_that_is_given_back_while_another_is_refused(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _engine_on(_limited(mariadb_server, database, 1)) as engine:
        for _ in range(100):
            answers = await asyncio.gather(*(engine.fetch(_slow(0.0005)) for _ in range(3)))
            assert all(len(rows) == 1 for rows in answers)


async def test_who_asks_one_question_after_another_leaves_others_their_turn(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _engine_on(_limited(mariadb_server, database, 1)) as engine:
        asked = 0

        async def ask_on() -> None:
            nonlocal asked
            while True:
                await engine.fetch(_slow(0.02))
                asked += 1

        asking = asyncio.create_task(ask_on())
        await asyncio.sleep(0.1)
        for _ in range(5):
            before = asked
            await asyncio.wait_for(engine.fetch(_slow(0.02)), 5.0)
            assert asked - before <= 2
        asking.cancel()


async def test_a_turn_of_who_has_gone_is_the_next_ones(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _engine_on(_limited(mariadb_server, database, 1)) as engine:
        for turn in range(60):
            tasks = [asyncio.create_task(engine.fetch(_slow(0.001))) for _ in range(4)]
            await asyncio.sleep(0.0001 * turn)
            for task in tasks[turn % 2 :: 2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            left = found[(turn + 1) % 2 :: 2]
            assert not [each for each in left if isinstance(each, BaseException)]


async def test_a_change_waits_for_a_connection_as_look_ups_do(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _engine_on(_limited(mariadb_server, database, 2)) as engine:
        with capture_logs() as events:
            looking = [asyncio.create_task(engine.fetch(_slow(0.2))) for _ in range(2)]
            await asyncio.sleep(0.1)
            assert await engine.transaction([CHANGE]) == [1]
            await asyncio.gather(*looking)
    assert [event["event"] for event in events] == []


async def test_a_change_has_its_connection_in_the_place_of_an_idle_one(
    mariadb_server: MariaDB, database: str
) -> None:
    """Whenever the server hears of the end of that."""
    async with _engine_on(_limited(mariadb_server, database, 1)) as engine:
        for _ in range(100):
            await engine.fetch("SELECT 1")
            assert await engine.transaction([CHANGE]) == [1]


async def test_what_a_worker_does_not_use_is_for_others(
    mariadb_server: MariaDB, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_IDLE", 0.5)
    url = _limited(mariadb_server, database, 2)
    async with _engine_on(url) as engine, _engine_on(url) as another:
        await asyncio.gather(*(engine.fetch(_slow(0.05)) for _ in range(5)))
        with pytest.raises(CannotKnow):
            await another.fetch("SELECT 1")
        await asyncio.sleep(2.0)
        await asyncio.gather(*(another.fetch(_slow(0.05)) for _ in range(5)))


async def test_who_waits_in_vain_hears_of_the_limit(mariadb_server: MariaDB, database: str) -> None:
    url = _limited(mariadb_server, database, 1)
    async with _engine_on(url, timeouts=0.5) as engine:
        asking = [engine.fetch(_slow(0.4)) for _ in range(4)]
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert any("max_user_connections" in str(each) for each in found)


async def test_who_waits_for_a_place_in_vain_hears_of_the_server_s_limit(
    mariadb_server: MariaDB, database: str
) -> None:
    """More ask than a pool would have connections, if the server took them."""
    url = _limited(mariadb_server, database, 1)
    async with _engine_on(url, timeouts=0.5) as engine:
        asking = [engine.fetch(_slow(0.4)) for _ in range(12)]
        found = await asyncio.gather(*asking, return_exceptions=True)
    said = [str(each) for each in found if isinstance(each, Exception)]
    assert said
    assert not [each for each in said if "max_user_connections" not in each]
