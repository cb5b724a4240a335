"""Decisions 2 to 4 as tables in text (tests/decisions), on every engine, with real .qmail files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import Address, fold
from restante.config.tree import Database
from restante.directory import BadFile
from restante.directory.engine import open_engine
from restante.directory.lookups import SqlDirectory
from restante.errors import CannotKnow
from restante.labels import forms
from restante.routing.decision import Misconfigured, Remote, Unknown
from restante.routing.router import Router
from tests.support.decisions import Row, World, build, read_rows, table_names
from tests.support.directory import Rows, directory_with
from tests.support.memory_directory import MemoryDirectory, Tables
from tests.support.ports import free_port
from tests.support.serving import LOOPBACK

TABLES = table_names()
ROWS = [
    pytest.param(name, row, id=f"{name}:{row.address}")
    for name in TABLES
    for row in read_rows(name)
]


def _router(world: World) -> Router:
    return Router(world.settings, "mail.host")


def _sql(tables: Tables) -> Rows:
    return {
        "rcpthosts": [(host,) for host in tables.rcpthosts],
        "mailbox": [(a.name, a.uid, a.gid, a.home, None, None) for a in tables.mailbox],
        "virtual": tables.virtual,
        "alias": tables.alias,
    }


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    """Every table's world, built once: nothing here changes one.

    Not below pytest's own directory, which the owner of a home may not enter.
    """
    with tempfile.TemporaryDirectory(prefix="restante-") as directory:
        made = {}
        Path(directory).chmod(0o755)
        for name in TABLES:
            root = Path(directory) / name
            root.mkdir(mode=0o755)
            made[name] = build(name, root)
        yield made


@pytest.mark.parametrize(("name", "row"), ROWS)
async def test_row(worlds: dict[str, World], name: str, row: Row) -> None:
    world = worlds[name]
    directory = MemoryDirectory(world.tables, world.system())
    told = world.told(await _router(world).route(Address.parse(row.address), directory))
    assert row.holds(told), told


@pytest.mark.parametrize(("name", "row"), ROWS)
async def test_a_question_without_an_answer_is_never_no_such_user(
    worlds: dict[str, World], name: str, row: Row
) -> None:
    world, address = worlds[name], Address.parse(row.address)
    whole = MemoryDirectory(world.tables, world.system())
    await _router(world).route(address, whole)
    assert whole.asked
    for number, question in enumerate(whole.asked):
        for failure, expected in ((CannotKnow("away"), Unknown), (BadFile("x"), Misconfigured)):
            failing = MemoryDirectory(world.tables, world.system())
            failing.fail_at, failing.failure = number, failure
            assert isinstance(await _router(world).route(address, failing), expected), question


@pytest.mark.parametrize(("name", "row"), ROWS)
async def test_a_domain_without_rows_is_elsewhere_as_the_settings_say(
    worlds: dict[str, World], name: str, row: Row
) -> None:
    world, router, address = worlds[name], _router(worlds[name]), Address.parse(row.address)
    domain = router.qualified(address).domain
    virtual = [each for each in world.tables.virtual if fold(each[2]) not in forms(domain)]
    bare = MemoryDirectory(replace(world.tables, virtual=virtual), world.system())
    found = await router.route(address, bare)
    assert router.remote_without_rows(address) == (found if isinstance(found, Remote) else None)


@pytest.mark.parametrize("name", TABLES)
async def test_table_on_sql(worlds: dict[str, World], name: str, database_url: str) -> None:
    """All addresses of a table, one by one and in one bulk look-up."""
    world, router = worlds[name], _router(worlds[name])
    addresses = [Address.parse(row.address) for row in world.rows]
    async with directory_with(database_url, _sql(world.tables), world.system()) as directory:
        single = [await router.route(address, directory) for address in addresses]
        bulk = await router.route_many(addresses, directory)
    told = [(row.address, world.told(found)) for row, found in zip(world.rows, single, strict=True)]
    wrong = [line for row, line in zip(world.rows, told, strict=True) if not row.holds(line[1])]
    assert wrong == []
    assert bulk == tuple(single)


@pytest.mark.parametrize("name", TABLES)
async def test_without_a_database_nothing_is_known(worlds: dict[str, World], name: str) -> None:
    """However much the passwd file and .qmail files would have to say."""
    world, router = worlds[name], _router(worlds[name])
    addresses = [Address.parse(row.address) for row in world.rows]
    url = f"mysql://restante@{LOOPBACK}:{free_port()}/restante"
    directory = SqlDirectory(open_engine(Database(url=url), "/"), world.system())
    try:
        single = [await router.route(address, directory) for address in addresses]
        bulk = await router.route_many(addresses, directory)
    finally:
        await directory.close()
    assert {type(decision) for decision in (*single, *bulk)} == {Unknown}


@pytest.mark.parametrize("name", TABLES)
async def test_system_files_are_asked_after_sql_and_only_if_settings_say_so(
    worlds: dict[str, World], name: str
) -> None:
    world = worlds[name]
    for row in world.rows:
        directory = MemoryDirectory(world.tables, world.system())
        await _router(world).route(Address.parse(row.address), directory)
        asked = [key[0] for key in directory.asked]
        if not world.settings.system_files:
            assert not {"passwd", ".qmail"} & set(asked), row
        if ".qmail" in asked:
            assert "alias" not in asked[asked.index(".qmail") :], row


def test_there_are_hundreds_of_rows() -> None:
    assert len(ROWS) >= 300
