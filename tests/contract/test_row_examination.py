"""What ``check`` says of rows, on every engine."""

from __future__ import annotations

import pytest

from restante.cli.findings import Findings
from restante.cli.row_examination import examine_rows
from restante.config.tree import Settings
from restante.directory.engine import Engine, Statement
from tests.support.directory import Rows, engine_with

SITE: Rows = {
    "rcpthosts": [("example.com",), ("empty.example",), ("café.example",)],
    "mailbox": [("iain", 1000, 1000, "/home/iain", "x", "Crypt-Password")],
    "virtual": [("iain", "info", "Example.COM"), ("iain", "info", "café.example")],
}


async def examined(engine: Engine) -> Findings:
    findings = Findings()
    await examine_rows(engine, Settings("/"), findings)
    return findings


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "change",
    [
        "rcpthosts CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "rcpthosts CONVERT TO CHARACTER SET latin1",
        "virtual CONVERT TO CHARACTER SET latin1",
        "rcpthosts MODIFY host VARBINARY(99)",
        "virtual MODIFY virtual_host VARBINARY(99)",
    ],
)
async def test_domains_without_addresses_whatever_the_columns_are(
    mariadb_url: str, change: str
) -> None:
    """The look-ups never compare these two columns, so they may well differ."""
    async with engine_with(mariadb_url, SITE) as engine:
        await engine.transaction([Statement(f"ALTER TABLE {change}")])
        advice = (await examined(engine)).advice
    named = {line.split(" has no")[0] for line in advice}
    assert "the domain empty.example" in named
    assert "the domain café.example" not in named
