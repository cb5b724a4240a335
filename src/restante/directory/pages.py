"""Whole tables, read for an operator: in pages, each by a statement that soon ends.

One statement for a million rows may take longer than ``database.query_timeout``. On SQLite it keeps
writers waiting as well, and who writes next keeps all the others from reading.
"""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from restante.directory.conditions import Condition, all_of
from restante.directory.engine import Engine, Row, Value
from restante.directory.schema import INDEXES

PAGE = 2000
"""Rows in a page: some milliseconds, and a second where each of them comes from a disk."""


async def pages(engine: Engine, table: str, *leading: Value) -> AsyncIterator[Condition]:
    """The table from one end to the other of the key that look-ups go by; raises CannotKnow.

    Or the part of it in which the key begins with some values. Each row is in one page, however
    many others the database takes to have the same key, and those with NULL in it, which no look-up
    finds, are in none.
    """
    columns = [f"`{table}`.`{column}`" for column in INDEXES[table][0]]
    fixed, moving = columns[: len(leading)], columns[len(leading) :]
    begins = [f"{column} = ?" for column in fixed]
    is_there = [f"{column} IS NOT NULL" for column in moving]  # nothing is larger than NULL
    whole = Condition(" AND ".join((*begins, *is_there)), leading)
    rest = whole
    while last := await _last_of_page(engine, table, moving, rest):
        yield all_of((rest, _compared(engine, moving, "<=", last[0])))
        rest = all_of((whole, _compared(engine, moving, ">", last[0])))
    yield rest


async def _last_of_page(
    engine: Engine, table: str, key: Sequence[str], rest: Condition
) -> list[Row]:
    """The key at which a page ends; none where the rest is no more than a page."""
    if not key:
        return []
    names = ", ".join(key)
    return await engine.fetch(
        f"SELECT {names} FROM `{table}` WHERE {rest.text} ORDER BY {names} LIMIT 1 OFFSET ?",
        (*rest.values, PAGE - 1),
    )


async def first_rows(
    engine: Engine,
    table: str,
    columns: str,
    condition: str,
    parameters: Sequence[Value] = (),
    *,
    most: int,
) -> list[Row]:
    """Some columns of the rows that meet a condition, the first of them; raises CannotKnow."""
    found: list[Row] = []
    async for page in pages(engine, table):
        found += await engine.fetch(
            f"SELECT {columns} FROM `{table}` WHERE {page.text} AND ({condition}) LIMIT ?",
            (*page.values, *parameters, most - len(found)),
        )
        if len(found) == most:
            break
    return found


def _compared(
    engine: Engine, columns: Sequence[str], how: str, values: Sequence[Value]
) -> Condition:
    """The condition that the key is ``>`` or ``<=`` these values, as an index can answer it."""
    if engine.dialect.compares_rows:
        marks = ", ".join("?" * len(columns))
        return Condition(f"({', '.join(columns)}) {how} ({marks})", tuple(values))
    column, value = columns[0], values[0]
    if len(columns) == 1:
        return Condition(f"{column} {how} ?", (value,))
    others = _compared(engine, columns[1:], how, values[1:])
    return Condition(
        f"({column} {how[0]} ? OR {column} = ? AND {others.text})",
        (value, value, *others.values),
    )
