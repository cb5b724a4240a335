"""What has to hold in the database when a row is changed."""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from restante.address import Address
from restante.directory.engine import Statement, Value


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of a WHERE clause."""

    text: str
    values: tuple[Value, ...]


def all_of(conditions: Sequence[Condition]) -> Condition:
    """That all of them hold."""
    return Condition(
        " AND ".join(one.text for one in conditions) or "1 = 1",
        tuple(value for one in conditions for value in one.values),
    )


def equals(**columns: Value) -> Condition:
    """That these columns are, for the database, as these values."""
    return all_of([Condition(f"`{column}` = ?", (value,)) for column, value in columns.items()])


def negated(condition: Condition) -> Condition:
    """That it does not hold."""
    return Condition(f"NOT ({condition.text})", condition.values)


def present(table: str, *conditions: Condition, **columns: str) -> Condition:
    """That there is a row with these columns, of which the conditions hold."""
    where = all_of((equals(**columns), *conditions))
    return Condition(f"EXISTS (SELECT 1 FROM `{table}` WHERE {where.text})", where.values)


def absent(table: str, *conditions: Condition, **columns: str) -> Condition:
    """That there is none."""
    there = present(table, *conditions, **columns)
    return Condition(f"NOT {there.text}", there.values)


def is_extended(column: str, address: Address) -> Condition:
    """That a name is, but for case and accents, the address with an extension."""
    ends = (f"{address.local}-", f"@{address.domain}")
    escaped = (re.sub("[!%_]", r"!\g<0>", end) for end in ends)
    return Condition(f"`{column}` LIKE ? ESCAPE '!'", ("%".join(escaped),))


def insert(
    table: str,
    columns: Mapping[str, Value],
    conditions: Sequence[Condition] = (),
    *,
    secret: str = "",
    must_change: bool = True,
) -> Statement:
    """Add a row if the conditions hold when it is added."""
    names = ", ".join(f"`{column}`" for column in columns)
    marks = ", ".join("?" * len(columns))
    where = all_of(conditions)
    return Statement(
        f"INSERT INTO `{table}` ({names}) "
        f"SELECT {marks} FROM (SELECT 1) AS `one` WHERE {where.text}",
        (*columns.values(), *where.values),
        secrets=frozenset(place for place, column in enumerate(columns) if column == secret),
        must_change=must_change,
    )
