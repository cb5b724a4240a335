"""Columns in which names are not compared as look-ups need it."""

# ruff: noqa: S608 - a statement for the operator is a part of a text

from __future__ import annotations

from typing import NamedTuple

from restante.cli.check.findings import Findings
from restante.directory.engine import Engine
from restante.directory.pages import first_rows
from restante.directory.rows import text_of
from restante.directory.schema import INDEXES, TABLES

# Look-ups ask for names in small letters, and leave it to the column's collation to find others:
# LOWER() around a column would keep its index from being used.
_NAMES = tuple(
    (table, column)
    for table, indexes in INDEXES.items()
    for column in dict.fromkeys(column for columns in indexes for column in columns)
)
"""Tables and columns that hold names which are asked for."""

_COLUMNS = (
    "SELECT table_name, column_name, data_type, character_set_name, collation_name "
    "FROM information_schema.columns WHERE table_schema = DATABASE()"
)
_SQL_MODE = "SELECT @@sql_mode"
_PADDING = "PAD_CHAR_TO_FULL_LENGTH"
_OCTETS = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})


class _Column(NamedTuple):
    """A column as information_schema has it."""

    table: str
    name: str
    kind: str
    charset: str
    collation: str
    """Empty for a column of octets."""

    @property
    def tells_case(self) -> bool:
        """Whether capitals are other letters than small ones: _bin, _cs, and octets."""
        return self.kind in _OCTETS or bool(self.collation and "_ci" not in self.collation)

    @property
    def is_padded(self) -> bool:
        """Whether the look-ups read it, and some sql_mode fills it up with blanks."""
        return self.kind == "char" and self.name.lower() in TABLES.get(self.table, ())


async def examine_columns(engine: Engine, findings: Findings) -> None:
    """Add what look-ups do not find because of its column; raises CannotKnow."""
    if engine.dialect.name == "sqlite":
        await _examine_sqlite(engine, findings)
        return
    columns = [_Column(*map(text_of, row)) for row in await engine.fetch(_COLUMNS)]
    for column in columns:
        is_asked_for = (column.table, column.name.lower()) in _NAMES
        if is_asked_for and (column.collation or column.tells_case):
            await _examine_capitals(engine, column, findings)
    if _PADDING in text_of((await engine.fetch(_SQL_MODE))[0][0]):
        findings.problems += [_padded(column) for column in columns if column.is_padded]
    else:
        await _examine_blanks(engine, findings)


async def _examine_sqlite(engine: Engine, findings: Findings) -> None:
    for table, name in _NAMES:
        column = f"`{name}`"
        is_octets = f"typeof({column}) = 'blob'"
        if example := await _example(engine, table, column, is_octets):
            findings.problems.append(
                f"{table}.{name} has rows such as {example!r} that were written as octets (BLOB), "
                "and no look-up finds them: mail is refused for them; make them text, "
                f"UPDATE `{table}` SET `{name}` = CAST({column} AS TEXT) WHERE {is_octets}"
            )
            continue
        if not await _sqlite_tells_case(engine, table, column):
            continue
        if example := await _example(engine, table, column, f"{column} GLOB '*[A-Z]*'"):
            problem = _not_found(table, name, example, f"LOWER({column})")
            findings.problems.append(f"{problem}, or make the column COLLATE NOCASE")
    await _examine_blanks(engine, findings)


async def _examine_blanks(engine: Engine, findings: Findings) -> None:
    """MySQL takes names with a blank behind them for those without, and qmail believed it."""
    for table, name in _NAMES:
        column = f"`{name}`"
        has_blank = f"LENGTH({column}) <> LENGTH(TRIM({column}))"
        if example := await _example(engine, table, column, has_blank):
            findings.advice.append(
                f"{table}.{name} has rows such as {example!r}, whose blank is a letter like any "
                "other: no mail and no login without it finds them; take it away, "
                f"UPDATE `{table}` SET {column} = TRIM({column}) WHERE {has_blank}"
            )


async def _sqlite_tells_case(engine: Engine, table: str, column: str) -> bool:
    """Whether the column does, as any row with a letter shows: nothing else knows of collations."""
    is_either = f"{column} = LOWER({column}) AND {column} = UPPER({column})"
    with_letters = f"{column} GLOB '*[A-Za-z]*'"  # GLOB has no collation
    rows = await first_rows(engine, table, is_either, with_letters, most=1)
    return bool(rows) and not rows[0][0]


async def _examine_capitals(engine: Engine, column: _Column, findings: Findings) -> None:
    quoted = f"`{column.name}`"
    text = engine.dialect.text(quoted)
    condition = f"{text} REGEXP '[A-Z]'"
    if not column.tells_case:  # but for some letters: I in Turkish, ch with a capital H in Czech
        small = f"CONVERT(LOWER({text}) USING {column.charset}) COLLATE {column.collation}"
        condition += f" AND {quoted} <> {small}"
    example = await _example(engine, column.table, quoted, condition)
    if not example:
        return
    if column.kind in _OCTETS:
        lowered, otherwise = f"LOWER({text})", "make the column VARCHAR"
    elif not column.tells_case:
        lowered, otherwise = f"LOWER({text})", _other_collation(column.table, "utf8mb4")
    else:
        lowered, otherwise = f"LOWER({quoted})", _other_collation(column.table, column.charset)
    problem = _not_found(column.table, column.name, example, lowered)
    findings.problems.append(f"{problem}, or {otherwise}")


def _other_collation(table: str, charset: str) -> str:
    return f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET {charset} COLLATE {charset}_general_ci"


async def _example(engine: Engine, table: str, column: str, condition: str) -> str:
    """What a row of the table for which the condition holds has in the column; empty if none."""
    rows = await first_rows(engine, table, column, condition, most=1)
    return text_of(rows[0][0]) if rows else ""


def _not_found(table: str, column: str, example: str, lowered: str) -> str:
    return (
        f"{table}.{column} tells capitals from small letters, and look-ups ask in small letters: "
        f"rows such as {example!r} are not found, and mail is refused for it; write them in small "
        f"letters, UPDATE `{table}` SET `{column}` = {lowered}"
    )


def _padded(column: _Column) -> str:
    return (
        f"{column.table}.{column.name} is CHAR, and the server's sql_mode has {_PADDING}: what it "
        "holds comes with blanks behind it, and is taken for something else; make the column "
        "VARCHAR, or take the mode away"
    )
