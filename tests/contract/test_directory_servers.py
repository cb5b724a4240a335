"""Of several servers one that loses what it is asked is left alone, and the others are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from restante.config.tree import Database
from restante.directory import servers
from restante.directory.engine import Engine, Overtaken, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.errors import CannotKnow
from tests.support.directory import Rows, engine_with
from tests.support.events import capture_logs
from tests.support.losing import LosingServer, losing_server
from tests.support.mariadb import MariaDB
from tests.support.rival import rival

pytestmark = pytest.mark.mariadb

SITE: Rows = {"mailbox": [("iain", 1000, 1000, "/h", "x", None)]}
SLOW = "SELECT *, SLEEP(0.05) FROM mailbox"
CLOSED = 1
"""A port at which nobody listens."""
NOTHING = Statement("UPDATE mailbox SET gid = gid WHERE username = 'nobody'")


@pytest.fixture(autouse=True)
def _one_that_failed_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "REST", 3600.0)


@asynccontextmanager
async def _engine(
    server: MariaDB, database: str, losing: LosingServer, *others: int
) -> AsyncIterator[Engine]:
    """For the one that loses what it is asked and those on other ports, in this order."""
    url = _several(server, database, losing.port, *others)
    engine = open_engine(Database(url=url, query_timeout=5.0 if losing.closes else 1.0), "/")
    yield engine
    await engine.close()


def _several(server: MariaDB, database: str, *ports: int) -> str:
    """The URL for the servers on these ports."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return server.url(database, tcp=True).replace(f"127.0.0.1:{server.port}", hosts)


@asynccontextmanager
async def _engine_on(url: str) -> AsyncIterator[Engine]:
    engine = open_engine(Database(url=url, pool_size=8), "/")
    yield engine
    await engine.close()


def _limited(server: MariaDB, database: str, *ports: int) -> str:
    """The URL for a user who gets two connections, to the servers on these ports."""
    user = f"limited_{database}"
    server.sql(
        f"CREATE USER {user}@127.0.0.1 IDENTIFIED BY 'u' WITH MAX_USER_CONNECTIONS 2; "
        f"GRANT SELECT ON {database}.* TO {user}@127.0.0.1"
    )
    return f"mysql://{user}:u@{','.join(f'127.0.0.1:{port}' for port in ports)}/{database}"


@dataclass
class _Full:
    """A server that takes no connections, of anybody."""

    port: int = 0
    refused: int = 0

    def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One that is refused (MySQL's protocol, ERR_Packet)."""
        self.refused += 1
        body = b"\xff" + (1040).to_bytes(2, "little") + b"Too many connections"
        writer.write(len(body).to_bytes(3, "little") + b"\0" + body)
        writer.close()


@asynccontextmanager
async def _full_server() -> AsyncIterator[_Full]:
    full = _Full()
    async with await asyncio.start_server(full.serve, "127.0.0.1", 0) as server:
        full.port = server.sockets[0].getsockname()[1]
        yield full


@pytest.fixture
async def database(mariadb_server: MariaDB) -> str:
    name = mariadb_server.new_database()
    async with engine_with(mariadb_server.url(name, tcp=True), SITE):
        return name


@pytest.fixture(params=["closes", "hangs"])
async def losing(
    mariadb_server: MariaDB, request: pytest.FixtureRequest
) -> AsyncIterator[LosingServer]:
    closes = request.param == "closes"
    async with losing_server(mariadb_server.port, closes=closes) as running:
        yield running


async def test_another_server_answers_what_the_first_one_loses(
    mariadb_server: MariaDB, database: str, losing: LosingServer
) -> None:
    async with _engine(mariadb_server, database, losing, mariadb_server.port) as engine:
        directory = SqlDirectory(engine)
        with capture_logs() as events:
            for _ in range(5):
                assert await directory.account("iain") is not None
                assert await directory.account("nobody") is None
    assert losing.lost == 1, "then it is left alone"
    assert [event["event"] for event in events] == ["database_server"]


async def test_where_all_lose_it_nothing_is_known(
    mariadb_server: MariaDB, database: str, losing: LosingServer
) -> None:
    async with losing_server(mariadb_server.port, closes=losing.closes) as other:
        async with _engine(mariadb_server, database, losing, other.port) as engine:
            with pytest.raises(CannotKnow, match=r"in time|gone away|Lost connection"):
                await SqlDirectory(engine).account("nobody")
        assert (losing.lost, other.lost) == (1, 1)


async def test_a_lost_change_is_not_made_elsewhere_but_the_next_one_is(
    mariadb_server: MariaDB, database: str, losing: LosingServer
) -> None:
    """The server may have carried it out; nobody but who wanted it can say what is to be done.
    Whether one hangs that is silent is found out by a look-up."""
    async with _engine(mariadb_server, database, losing, mariadb_server.port) as engine:
        with pytest.raises(CannotKnow):
            await engine.transaction([NOTHING])
        if not losing.closes:
            assert len(await engine.fetch(SLOW)) == 1
        assert await engine.transaction([NOTHING]) == [0]
    assert losing.lost == (1 if losing.closes else 2)


async def test_a_server_is_not_left_for_a_change_that_waits_for_a_lock(
    mariadb_server: MariaDB, database: str
) -> None:
    async with losing_server(mariadb_server.port, closes=True) as losing:
        url = _several(mariadb_server, database, mariadb_server.port, losing.port)
        engine = open_engine(Database(url=url, connect_timeout=0.5, query_timeout=0.5), "/")
        with rival(mariadb_server, database) as other:
            other.does("BEGIN; UPDATE mailbox SET gid = 7")
            with pytest.raises(Overtaken, match="in time"):
                await engine.transaction([Statement("UPDATE mailbox SET gid = 8")])
        assert len(await engine.fetch(SLOW)) == 1
        await engine.close()
    assert losing.lost == 0


async def test_a_single_server_is_asked_again_by_the_next_question(
    mariadb_server: MariaDB, database: str, losing: LosingServer
) -> None:
    async with _engine(mariadb_server, database, losing) as engine:
        for asked in (1, 2):
            with pytest.raises(CannotKnow):
                await SqlDirectory(engine).account("iain")
            assert losing.lost == asked


async def test_the_only_server_that_is_well_may_have_no_connection_to_spare(
    mariadb_server: MariaDB, database: str
) -> None:
    """It is waited for, and asked again, and not the one that is down."""
    ports = (CLOSED, mariadb_server.port)
    url = _limited(mariadb_server, database, *ports)
    async with _engine_on(url) as another:
        async with _engine_on(url) as engine:
            await engine.fetch(SLOW)
            rows = await asyncio.gather(*(engine.fetch(SLOW) for _ in range(5)))
            assert list(map(len, rows)) == [1] * 5
            with pytest.raises(CannotKnow, match="max_user_connections"):
                await another.fetch(SLOW)
        assert len(await another.fetch(SLOW)) == 1


async def test_another_server_is_asked_while_one_takes_no_connections(
    mariadb_server: MariaDB, database: str
) -> None:
    async with _full_server() as full:
        url = _limited(mariadb_server, database, full.port, mariadb_server.port)
        async with _engine_on(url) as engine:
            for _ in range(5):
                assert len(await engine.fetch(SLOW)) == 1
    assert full.refused == 1, "then it is left alone"


async def test_a_connection_that_will_be_given_back_is_better_than_another_server(
    mariadb_server: MariaDB, database: str
) -> None:
    """The two would be left for one another with each question."""
    async with _full_server() as other:
        url = _limited(mariadb_server, database, mariadb_server.port, other.port)
        async with _engine_on(url) as engine:
            rows = await asyncio.gather(*(engine.fetch(SLOW) for _ in range(5)))
    assert list(map(len, rows)) == [1] * 5
    assert other.refused == 0


async def test_the_only_server_that_is_up_may_be_slow_with_one_answer(
    mariadb_server: MariaDB, database: str
) -> None:
    """It is asked on, and not the one that is down."""
    url = _several(mariadb_server, database, CLOSED, mariadb_server.port)
    engine = open_engine(Database(url=url, query_timeout=1.0), "/")
    await engine.fetch(SLOW)
    with pytest.raises(CannotKnow, match="in time"):
        await engine.fetch("SELECT *, SLEEP(2) FROM mailbox")
    assert len(await engine.fetch(SLOW)) == 1
    await engine.close()


async def test_a_server_is_not_left_for_questions_that_wait_for_one_another(
    mariadb_server: MariaDB, database: str
) -> None:
    """Who gets a connection so late that there is no time for an answer does not ask."""
    async with losing_server(mariadb_server.port, closes=True) as losing:
        url = _several(mariadb_server, database, mariadb_server.port, losing.port)
        settings = Database(url=url, pool_size=1, connect_timeout=1.0, query_timeout=2.0)
        engine = open_engine(settings, "/")
        with capture_logs() as events:
            asking = [engine.fetch("SELECT CONNECTION_ID(), SLEEP(0.4)") for _ in range(12)]
            found = await asyncio.gather(*asking, return_exceptions=True)
        await engine.close()
    failures = [each for each in found if isinstance(each, BaseException)]
    assert {type(each) for each in failures} == {CannotKnow}
    assert not [each for each in failures if "all 1 connections are taken" not in str(each)]
    assert len({str(each) for each in found if isinstance(each, list)}) == 1, "none was cut off"
    assert events == []
    assert losing.lost == 0


async def test_who_waits_for_those_that_a_server_loses_is_answered_by_another(
    mariadb_server: MariaDB, database: str
) -> None:
    async with losing_server(mariadb_server.port, closes=False) as losing:
        url = _several(mariadb_server, database, losing.port, mariadb_server.port)
        settings = Database(url=url, pool_size=1, connect_timeout=0.7, query_timeout=1.0)
        engine = open_engine(settings, "/")
        rows = await asyncio.gather(*(engine.fetch("SELECT * FROM mailbox") for _ in range(5)))
        await engine.close()
    assert list(map(len, rows)) == [1] * 5
    assert losing.lost == 1
