"""Routing decides the same over SQL as over plain tables, asked in bulk or question by question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import Address
from restante.config.tree import Routing
from restante.routing.decision import Mailbox
from restante.routing.router import Router
from tests.support.directory import Rows, directory_with
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.unit.test_routing_decisions import RULES

WORLDS = list({id(rule[0]): rule[0] for rule in RULES}.values())


def _rows(tables: Tables) -> Rows:
    return {
        "rcpthosts": [(host,) for host in tables.rcpthosts],
        "mailbox": [(a.name, a.uid, a.gid, a.home, None, None) for a in tables.mailbox],
        "virtual": tables.virtual,
        "alias": tables.alias,
    }


@pytest.mark.parametrize("world", range(len(WORLDS)))
async def test_sql_decides_as_memory_does(database_url: str, world: int) -> None:
    tables = WORLDS[world]
    memory = MemoryDirectory(tables)
    async with directory_with(database_url, _rows(tables)) as directory:
        for other, settings, text, _ in RULES:
            if other is not tables:
                continue
            router, address = Router(settings, "mail.host"), Address.parse(text)
            expected = await router.route(address, memory)
            assert await router.route(address, directory) == expected, text
            assert await router.route_many((address,), directory) == (expected,), text


async def test_a_mailbox_of_virtual_is_decided_at_once() -> None:
    tables = Tables(
        rcpthosts=["x.org"],
        mailbox=[account("ann@x.org"), account("bob"), account("a\u2028b")],
        virtual=[
            ("ann@x.org", "ann", "x.org"),
            ("bob", "bob", "x.org"),
            ("a\u2028b", "odd", "x.org"),
            ("ann@x.org", "", "x.org"),
        ],
        alias=[],
    )
    names = ("ann", "bob", "odd", "any", "ann+tag")
    addresses = [Address(name, "x.org") for name in names]
    lookups = await MemoryDirectory(tables).prefetch([(name, "x.org") for name in names])
    plain = Router(Routing(), "mail.host")
    assert [plain.at_once(address, lookups) for address in addresses] == [
        Mailbox(account("ann@x.org"), "ann@x.org", "/home/ann@x.org/Maildir"),
        Mailbox(account("bob"), "bob@x.org", "/home/bob/Maildir"),
        *[None] * 3,
    ]
    for settings in (
        Routing(locals=("x.org",)),
        Routing(system_files=True),
        Routing(defaultdelivery="./Maildir/\n&copy@far.org"),
        Routing(defaultdelivery="./Mailbox"),
    ):
        assert Router(settings, "mail.host").at_once(addresses[0], lookups) is None


USERS = st.sampled_from(["a", "a-b", "a+t", "b", "alias", "a@x.org", "a-b@x.org"])
LOCALS = st.sampled_from(["", "a", "a-b", "a+t", "b", "t"])
HOSTS = st.sampled_from(["x.org", "y.org"])
TABLES = st.builds(
    Tables,
    rcpthosts=st.lists(HOSTS, max_size=1),
    mailbox=st.lists(st.builds(account, USERS), max_size=3, unique_by=lambda row: row.name),
    virtual=st.lists(st.tuples(USERS, LOCALS, HOSTS), max_size=5),
    alias=st.lists(st.tuples(USERS, LOCALS, LOCALS, st.sampled_from(["", "x.org"])), max_size=5),
)
SETTINGS = st.builds(
    Routing,
    locals=st.lists(HOSTS, max_size=2).map(tuple),
    envnoathost=HOSTS,
    virtualdomains=st.dictionaries(HOSTS, st.sampled_from(["", "a"]), max_size=1),
)


@given(TABLES, SETTINGS, st.lists(st.builds(Address, LOCALS.filter(bool), HOSTS), min_size=1))
async def test_bulk_decides_as_single_questions_do(
    tables: Tables, settings: Routing, addresses: list[Address]
) -> None:
    """Invariant: a prefetch changes how often the directory is asked, never the decision."""
    router, directory = Router(settings, "mail.host"), MemoryDirectory(tables)
    single = tuple([await router.route(address, directory) for address in addresses])
    assert await router.route_many(addresses, directory) == single
