"""The tables: how they are made, and what is wrong with those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from restante.directory.engine import Engine, Statement
from restante.directory.rows import text_of

TABLES: Mapping[str, tuple[str, ...]] = {
    "rcpthosts": ("host",),
    "mailbox": ("username", "uid", "gid", "home", "password", "password_type"),
    "virtual": ("username", "virtual_username", "virtual_host"),
    "alias": ("username", "alias", "alias_username", "alias_host"),
}
"""The columns that Restante reads; a site's tables may have others."""

INDEXES: Mapping[str, Sequence[tuple[str, ...]]] = {
    "rcpthosts": [("host",)],
    "mailbox": [("username",)],
    "virtual": [("virtual_host", "virtual_username"), ("username",)],
    "alias": [("username", "alias")],
}
"""The columns that look-ups go by."""

# No key on the names in virtual and alias is unique: several owners and repeated rows are
# legal there. Rows written by hand name only the columns of TABLES, so all others default.
# SQLite finds a whole row of mailbox, and all that is asked of virtual, in one descent; an index
# that leads to a rowid is two. (Not so for alias, whose rows count in the order of their rowids.)
# Files that have these tables already keep them as they are.
_SQLITE = """
CREATE TABLE IF NOT EXISTS `rcpthosts` (
    `host` TEXT NOT NULL COLLATE NOCASE PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS `mailbox` (
    `username` TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
    `uid` INTEGER NOT NULL,
    `gid` INTEGER NOT NULL,
    `home` TEXT NOT NULL,
    `password` TEXT,
    `password_type` TEXT DEFAULT 'MySQL-Password'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS `virtual` (
    `username` TEXT NOT NULL COLLATE NOCASE,
    `virtual_username` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `virtual_host` TEXT NOT NULL COLLATE NOCASE
);
CREATE TABLE IF NOT EXISTS `alias` (
    `username` TEXT NOT NULL COLLATE NOCASE,
    `alias` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `alias_username` TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    `alias_host` TEXT NOT NULL DEFAULT '' COLLATE NOCASE
);
CREATE INDEX IF NOT EXISTS `virtual_address`
    ON `virtual` (`virtual_host`, `virtual_username`, `username`);
CREATE INDEX IF NOT EXISTS `virtual_owner` ON `virtual` (`username`);
CREATE INDEX IF NOT EXISTS `alias_user` ON `alias` (`username`, `alias`);
"""

# 320 characters hold any address (RFC 5321 §4.5.3.1: 64 + 1 + 255); with four octets each,
# two of them or one and a host stay within the 3,072 octets of an InnoDB key. The ids are
# there because replication (Galera) wants a primary key in every table.
_MYSQL = """
CREATE TABLE IF NOT EXISTS `rcpthosts` (
    `host` VARCHAR(255) NOT NULL PRIMARY KEY
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE IF NOT EXISTS `mailbox` (
    `username` VARCHAR(320) NOT NULL PRIMARY KEY,
    `uid` INT UNSIGNED NOT NULL,
    `gid` INT UNSIGNED NOT NULL,
    `home` VARCHAR(1024) NOT NULL,
    `password` VARCHAR(512),
    `password_type` VARCHAR(32) DEFAULT 'MySQL-Password'
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE IF NOT EXISTS `virtual` (
    `id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `username` VARCHAR(320) NOT NULL,
    `virtual_username` VARCHAR(320) NOT NULL DEFAULT '',
    `virtual_host` VARCHAR(255) NOT NULL,
    KEY `virtual_address` (`virtual_host`, `virtual_username`),
    KEY `virtual_owner` (`username`)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE IF NOT EXISTS `alias` (
    `id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `username` VARCHAR(320) NOT NULL,
    `alias` VARCHAR(320) NOT NULL DEFAULT '',
    `alias_username` VARCHAR(1024) NOT NULL DEFAULT '',
    `alias_host` VARCHAR(255) NOT NULL DEFAULT '',
    KEY `alias_user` (`username`, `alias`)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
"""

DEFINITIONS: Mapping[str, str] = {"sqlite": _SQLITE, "mysql": _MYSQL}
"""What makes the tables, by dialect."""

_OPTIONS = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"


async def definitions(engine: Engine) -> list[Statement]:
    """The statements that make what is missing; raises CannotKnow.

    On MySQL they get the collation of those that are there, so that names can be compared.
    """
    text = DEFINITIONS[engine.dialect.name]
    there: set[str] = set()
    if engine.dialect.name == "mysql":
        found = [tuple(map(text_of, row)) for row in await engine.fetch(_COLLATIONS)]
        if len(found) == 1 and all(name.isidentifier() for name in found[0]):
            text = text.replace(_OPTIONS, "CHARACTER SET {} COLLATE {}".format(*found[0]))
        # The server warns of every table that is there already, and the driver prints that.
        there = {text_of(row[0]) for row in await engine.fetch(_COLUMNS["mysql"])}
    made = tuple(f"CREATE TABLE IF NOT EXISTS `{table}`" for table in there)
    texts = (each.strip() for each in text.split(";"))
    return [Statement(each) for each in texts if each and not each.startswith(made)]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is wrong with the tables."""

    problems: tuple[str, ...]
    """Nothing works before these are mended."""
    advice: tuple[str, ...]
    """Everything works, but slowly."""


_COLUMNS: Mapping[str, str] = {
    "sqlite": (
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c "
        "WHERE m.type IN ('table', 'view')"
    ),
    "mysql": (
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE()"
    ),
}
_INDEXED: Mapping[str, str] = {
    "sqlite": (
        "SELECT m.name, l.name, i.name FROM sqlite_master m JOIN pragma_index_list(m.name) l "
        "JOIN pragma_index_info(l.name) i WHERE m.type = 'table' "
        "ORDER BY m.name, l.name, i.seqno"
    ),
    "mysql": (
        "SELECT table_name, index_name, column_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index"
    ),
}
_COLLATIONS = (
    "SELECT DISTINCT character_set_name, collation_name FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND (table_name, column_name) IN "
    "(('virtual', 'username'), ('mailbox', 'username'), ('alias', 'username'), ('alias', 'alias'))"
)


async def inspect(engine: Engine) -> Inspection:
    """Compare the tables with what the look-ups need; raises CannotKnow."""
    problems = [*await _missing_columns(engine)]
    if not problems:
        problems += await _mixed_collations(engine)
    advice = [] if problems else await _missing_indexes(engine)
    return Inspection(tuple(problems), tuple(advice))


async def _missing_columns(engine: Engine) -> list[str]:
    there: dict[str, set[str]] = {}
    for table, column in await engine.fetch(_COLUMNS[engine.dialect.name]):
        there.setdefault(text_of(table), set()).add(text_of(column).lower())
    problems = []
    for table, columns in TABLES.items():
        if table not in there:
            problems.append(
                f"the database has no table {table}: restante init NEW_DIR --database URL "
                "makes it, given the URL of this database"
            )
            continue
        problems += [
            f"the table {table} has no column {column}: add it"
            for column in columns
            if column not in there[table]
        ]
    return problems


async def _mixed_collations(engine: Engine) -> list[str]:
    """User names are compared across tables, which MySQL refuses where collations differ."""
    if engine.dialect.name != "mysql":
        return []
    found = sorted(text_of(row[1]) for row in await engine.fetch(_COLLATIONS))
    if len(found) <= 1:
        return []
    problem = (
        "virtual.username, mailbox.username, alias.username and alias.alias cannot be compared, "
        f"since their collations differ ({', '.join(found)}): give them the same one"
    )
    return [problem]


async def _missing_indexes(engine: Engine) -> list[str]:
    indexes: dict[tuple[str, str], list[str]] = {}
    for table, index, column in await engine.fetch(_INDEXED[engine.dialect.name]):
        key = (text_of(table), text_of(index))
        indexes.setdefault(key, []).append(text_of(column).lower())
    return [
        f"the table {table} has no index on ({', '.join(wanted)}): look-ups read all of it; "
        f"CREATE INDEX `{table}_{wanted[0]}` ON `{table}` ({', '.join(map(_quoted, wanted))})"
        for table, all_wanted in INDEXES.items()
        for wanted in all_wanted
        if not any(
            name == table and tuple(columns[: len(wanted)]) == wanted
            for (name, _), columns in indexes.items()
        )
    ]


def _quoted(column: str) -> str:
    return f"`{column}`"
