"""A directory with rows written by hand, for tests on any engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from restante.config.tree import Database
from restante.directory import SystemFiles
from restante.directory.admin import Administration
from restante.directory.engine import Engine, Statement, Value, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.schema import TABLES

Rows = Mapping[str, Iterable[tuple[Value, ...]]]
"""Rows by table, their columns in the order of ``TABLES``."""


async def fill(engine: Engine, rows: Rows) -> None:
    """Write the rows with plain statements, naming only the columns the rules know."""
    await engine.transaction([_insert(table, row) for table, some in rows.items() for row in some])


def _insert(table: str, row: tuple[Value, ...]) -> Statement:
    columns = ", ".join(f"`{column}`" for column in TABLES[table])
    marks = ", ".join("?" * len(row))
    return Statement(f"INSERT INTO `{table}` ({columns}) VALUES ({marks})", row)


@asynccontextmanager
async def engine_with(
    url: str, rows: Rows | None = None, directory: str = "/"
) -> AsyncIterator[Engine]:
    """An engine on ``url`` with the tables made and ``rows`` in them."""
    engine = open_engine(Database(url=url), directory, create=True)
    try:
        await Administration(engine).create_schema()
        await fill(engine, rows or {})
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def directory_with(
    url: str, rows: Rows, system: SystemFiles | None = None
) -> AsyncIterator[SqlDirectory]:
    """A directory on ``url`` with ``rows`` in its tables, and system files behind them."""
    async with engine_with(url, rows) as engine:
        yield SqlDirectory(engine, system)
