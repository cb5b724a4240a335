"""Rows of the tables as an administrator's command finds and changes them.

The database finds rows by its collation; which of them are meant is decided here, by ``fold``.
"""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import takewhile

from restante.address import fold
from restante.directory import schema
from restante.directory.conditions import Condition, absent, all_of, equals, negated
from restante.directory.engine import Engine, NothingChanged, Row, Statement, Unfit, Value
from restante.directory.pages import pages
from restante.directory.rows import text_of
from restante.errors import OperatorError


class Tables:
    """Reads and changes rows through an engine; raises OperatorError and CannotKnow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def rows(self, table: str, **wanted: str) -> list[Row]:
        """All columns of the rows whose columns are, folded, as ``wanted``: by an index, a few."""
        return await self.select(table, equals(**wanted), **wanted)

    async def fitting(self, table: str, column: str, names: Iterable[str]) -> list[str]:
        """Those of the names that a column can hold: no row has the others."""
        return [name for name in names if name.isascii() or await self._fits(table, column, name)]

    async def walk(self, table: str, **wanted: str) -> AsyncIterator[Row]:
        """As ``rows``, where they may be many, or must be looked for in all of the table."""
        leading = takewhile(wanted.__contains__, schema.INDEXES[table][0])
        async for page in pages(self._engine, table, *(wanted[column] for column in leading)):
            for row in await self.select(table, all_of((page, equals(**wanted))), **wanted):
                yield row

    async def select(self, table: str, condition: Condition, **wanted: str) -> list[Row]:
        """All columns of the rows that meet a condition, and are, folded, as ``wanted``."""
        rows = await self._fetch(table, schema.TABLES[table], condition)
        return [row for row in rows if _has(table, row, wanted)]

    async def pages(self, table: str, columns: Sequence[str]) -> AsyncIterator[list[Row]]:
        """Some columns of all rows; those with equal keys come together."""
        async for page in pages(self._engine, table):
            yield await self._fetch(table, columns, page)

    async def absent(self, table: str, **columns: str) -> Condition:
        """That no row has these columns; one that only the database takes for such is another."""
        rows = await self._fetch(table, schema.TABLES[table], equals(**columns))
        others = {row for row in rows if not _has(table, row, columns)}
        return absent(table, *(negated(self.exactly(table, row)) for row in others), **columns)

    def exactly(self, table: str, row: Sequence[Value]) -> Condition:
        """Rows that begin with these values, to the letter."""
        parts, values = [], []
        for column, value in zip(schema.TABLES[table], row, strict=False):
            if value is None:
                parts.append(f"`{column}` IS NULL")
            else:
                parts.append(f"`{column}` = ? AND {self._engine.dialect.exactly(f'`{column}`')}")
                values += [value, value]
        return Condition(" AND ".join(parts), tuple(values))

    def update(
        self, table: str, row: Sequence[Value], columns: Mapping[str, Value], *, secret: str = ""
    ) -> Statement:
        """Set some columns of the rows that begin as this one does."""
        where = self.exactly(table, row)
        changed = ", ".join(f"`{column}` = ?" for column in columns)
        return Statement(
            f"UPDATE `{table}` SET {changed} WHERE {where.text}",
            (*columns.values(), *where.values),
            secrets=frozenset(place for place, column in enumerate(columns) if column == secret),
            must_change=True,
        )

    def delete(
        self,
        table: str,
        row: Sequence[Value],
        conditions: Sequence[Condition] = (),
        *,
        may_stay: bool = False,
    ) -> Statement:
        """Remove the rows that begin as this one does, where the conditions hold by then."""
        where = all_of((self.exactly(table, row), *conditions))
        text = f"DELETE FROM `{table}` WHERE {where.text}"
        return Statement(text, where.values, must_change=not may_stay)

    async def change(self, what: str, *statements: Statement) -> None:
        """Have all of them done, or none; raises OperatorError about ``what`` is to be changed."""
        try:
            await self._engine.transaction(statements)
        except NothingChanged:
            raise OperatorError(
                f"{what}: nothing was changed, since the database was changed meanwhile or takes "
                "the name for another one (accents, trailing blanks): look at its rows"
            ) from None

    async def _fits(self, table: str, column: str, name: str) -> bool:
        """Whether the database compares it with the column.

        A table that cannot be asked is no name that it cannot hold: then no other is compared.
        """
        text = f"SELECT 1 FROM `{table}` WHERE `{column}` = ? LIMIT 1"
        try:
            await self._engine.fetch(text, (name,))
        except Unfit:
            await self._engine.fetch(text, ("x",))
            return False
        return True

    async def _fetch(self, table: str, columns: Sequence[str], where: Condition) -> list[Row]:
        selected = ", ".join(self._engine.dialect.text(f"`{column}`") for column in columns)
        return await self._engine.fetch(
            f"SELECT {selected} FROM `{table}` WHERE {where.text}", where.values
        )


def _has(table: str, row: Row, wanted: Mapping[str, str]) -> bool:
    """Whether a whole row has these columns, in whatever case."""
    of_row = dict(zip(schema.TABLES[table], row, strict=True))
    return all(fold(text_of(of_row[column])) == fold(value) for column, value in wanted.items())
