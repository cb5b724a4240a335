"""What a Galera cluster refuses is temporary: no majority, a commit that came second, lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import pytest

from restante.config.tree import Database
from restante.directory.engine import Engine, Statement, open_engine
from restante.directory.lookups import SqlDirectory
from restante.errors import CannotKnow
from tests.support.directory import Rows, engine_with
from tests.support.events import capture_logs
from tests.support.galera import DATABASE, GaleraNode, galera, mail_url
from tests.support.instance import PATIENCE, until
from tests.support.machines import Machines, machines
from tests.support.owner import only_root
from tests.support.rival import rival

pytestmark = pytest.mark.mariadb

T = TypeVar("T")

SITE: Rows = {
    "rcpthosts": [("x.org",)],
    "mailbox": [("iain", 1000, 1000, "/h", "x", None)],
}
NEW = "INSERT INTO mailbox (username, uid, gid, home) VALUES ('new', 1000, 1000, '/new')"
SLEEPERS = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'DO SLEEP%'"


@pytest.fixture(scope="module")
def network() -> Iterator[Machines]:
    with machines(2) as made:
        yield made


@pytest.fixture(scope="module")
def founded(network: Machines) -> Iterator[list[GaleraNode]]:
    with galera(network.all) as running:
        running[0].machine.does(lambda: asyncio.run(fill(running[0]))).result(PATIENCE)
        yield running


@pytest.fixture
def nodes(network: Machines, founded: list[GaleraNode]) -> list[GaleraNode]:
    """A whole cluster, whatever a former test has cut off."""
    for machine in network.all:
        network.mend(machine)
    for node in founded:
        until(node.is_synced, "they are together")
        until(lambda node=node: node.status("wsrep_cluster_weight") == "2", "both count alike")
    return founded


@contextmanager
def impatient(node: GaleraNode) -> Iterator[None]:
    """What it lacks it waits for a second, and not its usual half minute."""
    option = "repl.causal_read_timeout"
    node.set_provider_option(option, 1, seconds=True)
    try:
        yield
    finally:
        node.set_provider_option(option, 30, seconds=True)


def asks(node: GaleraNode, question: Callable[[Engine], Awaitable[T]]) -> Future[T]:
    """What a Restante on the node's machine would learn."""

    async def ask() -> T:
        engine = open_engine(Database(url=node.mail_url), "/")
        try:
            return await question(engine)
        finally:
            await engine.close()

    return node.machine.does(lambda: asyncio.run(ask()))


async def fill(node: GaleraNode) -> None:
    async with engine_with(node.mail_url, SITE):
        pass


def aborts(node: GaleraNode) -> int:
    """How many transactions were undone there because another node's came first."""
    return int(node.status("wsrep_local_bf_aborts"))


async def look_up(engine: Engine) -> list[bool | str]:
    """Whether each of these exists, or why nobody knows."""
    directory = SqlDirectory(engine)
    answers: list[bool | str] = []
    for name in ("iain", "new", "nobody"):
        try:
            answers.append(await directory.account(name) is not None)
        except CannotKnow as error:
            answers.append(str(error))
    return answers


async def look_up_as_nodes_come_and_go(network: Machines, nodes: list[GaleraNode]) -> list[str]:
    """What all the time is found; and which servers were asked, one after the other."""
    near, far = nodes
    engine = open_engine(Database(url=mail_url(near.machine.front, far.machine.front)), "/")
    everything: list[bool | str] = [True, False, False]
    with capture_logs() as events:
        network.cut_off(near.machine)
        await asyncio.to_thread(until, lambda: not near.is_primary(), "it has no majority")
        assert await look_up(engine) == everything
        network.mend(near.machine)
        await asyncio.to_thread(until, near.is_synced, "they are together again")
        deadline = time.monotonic() + PATIENCE
        while len(events) < 2 and time.monotonic() < deadline:
            assert await look_up(engine) == everything
            await asyncio.sleep(0.1)
    await engine.close()
    assert {event["event"] for event in events} == {"database_server"}
    return [event["server"] for event in events]


@only_root
def test_another_node_is_asked_while_the_first_one_has_no_majority(
    network: Machines, nodes: list[GaleraNode]
) -> None:
    near, far = nodes
    far.set_provider_option("pc.weight", 2)
    try:
        until(lambda: near.status("wsrep_cluster_weight") == "3", "it alone is a majority")
        asked = network.at_the_hub(
            lambda: asyncio.run(look_up_as_nodes_come_and_go(network, nodes))
        )
        addresses = [f"{node.machine.front}:3306" for node in (far, near)]
        assert asked.result(3 * PATIENCE) == addresses
    finally:
        far.set_provider_option("pc.weight", 1)


@only_root
def test_a_commit_that_another_node_overtook_is_tried_again(nodes: list[GaleraNode]) -> None:
    first, second = nodes
    undone = aborts(first)

    async def change(engine: Engine) -> list[int]:
        home = Statement("UPDATE `mailbox` SET `home` = '/ours' WHERE `username` = 'iain'")
        return await engine.transaction([home, Statement("DO SLEEP(1)")])

    changing = asks(first, change)
    until(lambda: first.sql(SLEEPERS).strip() == "1", "it is in the midst of its transaction")
    second.sql("UPDATE mailbox SET gid = 7 WHERE username = 'iain'", DATABASE)
    assert changing.result(PATIENCE) == [1, 0]
    assert aborts(first) > undone, "it was undone once"
    query = "SELECT gid, home FROM mailbox WHERE username = 'iain'"
    assert first.sql(query, DATABASE) == "7\t/ours\n"
    until(lambda: second.sql(query, DATABASE) == "7\t/ours\n", "it is everywhere")


@only_root
def test_without_a_majority_nothing_is_known(network: Machines, nodes: list[GaleraNode]) -> None:
    network.cut_off(nodes[1].machine)
    for node in nodes:
        until(lambda node=node: not node.is_primary(), "it is alone, and one of two")
        for answer in asks(node, look_up).result(PATIENCE):
            assert isinstance(answer, str)
            assert "(1047)" in answer
    network.mend(nodes[1].machine)
    for node in nodes:
        until(node.is_synced, "they are together again")
        assert asks(node, look_up).result(PATIENCE) == [True, False, False]


@only_root
def test_a_node_that_lags_knows_nothing_where_it_is_to_wait(nodes: list[GaleraNode]) -> None:
    """wsrep_sync_wait: what was committed elsewhere is seen, or nothing is known."""
    first, second = nodes
    second.sql("SET GLOBAL wsrep_sync_wait = 1")
    try:
        with impatient(second), rival(second, DATABASE) as other:
            other.does("FLUSH TABLES WITH READ LOCK")
            first.sql(NEW, DATABASE)
            for answer in asks(second, look_up).result(PATIENCE):
                assert isinstance(answer, str)
                assert "(1205)" in answer
            other.does("UNLOCK TABLES")
        assert asks(second, look_up).result(PATIENCE) == [True, True, False]
    finally:
        second.sql("SET GLOBAL wsrep_sync_wait = 0")
        first.sql("DELETE FROM mailbox WHERE username = 'new'", DATABASE)
