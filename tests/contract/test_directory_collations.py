"""Whatever a collation takes for the same, routing goes by the letters: all decide alike."""

from __future__ import annotations

import pytest

from restante.address import Address
from restante.config.tree import Routing
from restante.directory.engine import Engine, Statement
from restante.directory.lookups import SqlDirectory
from restante.directory.rows import text_of
from restante.directory.schema import TABLES
from restante.errors import CannotKnow
from restante.routing.decision import Decision, NoSuchUser, Remote, Unknown
from restante.routing.router import Router
from tests.support.directory import Rows, engine_with
from tests.support.memory_directory import MemoryDirectory, Tables, account

pytestmark = pytest.mark.mariadb

COLLATIONS = (
    "utf8mb4_0900_ai_ci",  # what MySQL 8 gives tables by itself
    "utf8mb4_0900_as_ci",
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb3_general_ci",
    "latin1_swedish_ci",
    "latin1_german2_ci",
)
"""Of both servers; each is asked of the one that has it."""
NAMES = ("Iain", "müller", "straße", "o'neil", "søren")
ASKED = (
    *("iain", "IAIN", "iain ", "ía\u00adin", "\uff49ain", "müller", "mÜller", "muller", "mueller"),
    *("straße", "strasse", "straSSe", "stra\u1e9ee", "o'neil", "o\u2019neil", "søren", "soren"),
    *("ж", "\N{GRINNING FACE}", "a\\", "a\\' OR 1=1 -- ", "%", "_ain", "nobody"),
)
DOMAINS = ("x.org", "X.ORG", "müller.example", "xn--mller-kva.example", "muller.example")
HOSTS = ("x.org", "müller.example")
LOGINS = ("iain", "IAIN", "íain", "müller", "muller", "mÜller", "straße", "strasse", "iain ", "ж")


def _tables() -> Tables:
    return Tables(
        rcpthosts=list(HOSTS),
        mailbox=[account(name) for name in NAMES],
        virtual=[(name, name, host) for host in HOSTS for name in NAMES],
        alias=[("søren", "", "&iain@x.org", ""), ("alias", "müller-list", "&søren@x.org", "")],
    )


def _rows(tables: Tables) -> Rows:
    return {
        "rcpthosts": [(host,) for host in tables.rcpthosts],
        "mailbox": [(a.name, a.uid, a.gid, a.home, "x", None) for a in tables.mailbox],
        "virtual": tables.virtual,
        "alias": tables.alias,
    }


async def _collations(engine: Engine) -> list[str]:
    names = await engine.fetch("SELECT collation_name FROM information_schema.collations")
    there = {text_of(name) for (name,) in names}
    # MariaDB and MySQL below 8.0.30 call utf8mb3 by its older name.
    wanted = (name if name in there else name.replace("utf8mb3", "utf8") for name in COLLATIONS)
    return [name for name in wanted if name in there]


async def _give(engine: Engine, collation: str) -> None:
    charset = collation.partition("_")[0]
    await engine.transaction(
        [
            Statement(
                f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET {charset} COLLATE {collation}"
            )
            for table in TABLES
        ]
    )


async def _decided(router: Router, address: Address, directory: SqlDirectory) -> Decision | None:
    """None if it cannot be known, since no column can hold it."""
    (decision,) = await router.route_many((address,), directory)
    alone = await router.route(address, directory)
    if isinstance(decision, Unknown):
        assert isinstance(alone, Unknown)
        return None
    assert alone == decision
    return decision


async def test_every_collation_decides_as_memory_does(mariadb_url: str) -> None:
    tables = _tables()
    memory, router = MemoryDirectory(tables), Router(Routing(), "mail.host")
    async with engine_with(mariadb_url, _rows(tables)) as engine:
        collations = await _collations(engine)
        assert len(collations) >= 5
        for collation in collations:
            await _give(engine, collation)
            directory = SqlDirectory(engine)
            for address in (Address(local, domain) for domain in DOMAINS for local in ASKED):
                expected = await router.route(address, memory)
                decided = await _decided(router, address, directory)
                if decided is None:
                    assert isinstance(expected, NoSuchUser | Remote), (collation, address)
                    assert "utf8mb4" not in collation, (collation, address)
                else:
                    assert decided == expected, (collation, address)
            for login in LOGINS:
                known = await memory.account(login)
                try:
                    found = await directory.credentials(login)
                except CannotKnow:
                    assert known is None, (collation, login)
                    continue
                assert (found and found.account) == known, (collation, login)
