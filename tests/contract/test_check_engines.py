"""What ``check`` says of tables that have no transactions."""

from __future__ import annotations

import pytest

from restante.cli.check.findings import Findings
from restante.cli.check.servers import examine_engines
from restante.directory.engine import Engine, Statement
from restante.directory.schema import TABLES
from tests.support.directory import engine_with


async def advice_of(engine: Engine) -> list[str]:
    findings = Findings()
    await examine_engines(engine, findings)
    assert findings.problems == []
    return findings.advice


async def test_our_own_tables_have_transactions(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        assert await advice_of(engine) == []


@pytest.mark.mariadb
async def test_tables_without_transactions_are_named_with_the_remedy(mariadb_url: str) -> None:
    async with engine_with(mariadb_url) as engine:
        await engine.transaction([Statement("CREATE TABLE notes (n INT) ENGINE = MyISAM")])
        # Its keys are shorter than those of our own tables in four octets a letter.
        change = "CONVERT TO CHARACTER SET latin1, ENGINE = MyISAM"
        await engine.transaction([Statement(f"ALTER TABLE `{table}` {change}") for table in TABLES])
        advice = await advice_of(engine)
        named = {line.removeprefix("the table ").split(" is ")[0] for line in advice}
        assert named == set(TABLES)
        await engine.transaction([Statement(line.rpartition("; ")[2]) for line in advice])
        assert await advice_of(engine) == []
