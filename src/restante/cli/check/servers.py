"""What ``check`` says of database.url: of its file, or its servers.

Of several servers the first that is well is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restante.cli.check.findings import Findings
from restante.directory.engine import (
    Engine,
    MySQLLocation,
    SQLiteLocation,
    StatementLog,
    parse_url,
)
from restante.directory.rows import text_of
from restante.directory.schema import TABLES
from restante.errors import CannotKnow, OperatorError
from restante.network import is_loopback

if TYPE_CHECKING:
    from restante.config.tree import Settings

_OLDEST_TRIED = {"MySQL": (8, 0), "MariaDB": (10, 11)}
"""As README and docs/tables.md have it."""
_NOT_TRANSACTIONAL = (
    "SELECT t.table_name, t.engine FROM information_schema.tables t "
    "JOIN information_schema.engines e ON e.engine = t.engine "
    "WHERE t.table_schema = DATABASE() AND e.transactions <> 'YES'"
)


def examine_file(settings: Settings, findings: Findings) -> None:
    """Name a database with SQLite that others than its owner can use, as one that was put back."""
    from restante.service.user import serving_uid, starting_uid

    location = parse_url(settings.database.url, settings.directory)
    if not isinstance(location, SQLiteLocation):
        return
    found = os.stat(location.path)
    if found.st_mode & stat.S_IROTH and _everybody_reaches(location.path):
        findings.problems.append(
            f"database.url: {location.path} holds password hashes and everybody can read it; "
            f"run: chmod o-rwx {location.path}"
        )
    own = False
    with contextlib.suppress(OperatorError):  # there is no such user: a problem told elsewhere
        own = starting_uid(settings) == 0 and found.st_uid == serving_uid(settings)
    if own:
        findings.advice.append(
            f"database.url: {location.path} belongs to the workers' user, so that whoever took one "
            f"over could make accounts; run: chown root: {location.path}"
        )


def _everybody_reaches(path: str) -> bool:
    """Whether no directory on the way is closed to others."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).parents)


def examine_servers(settings: Settings, findings: Findings) -> None:
    """Name those that cannot be asked, where others can: nobody would notice them missing.

    And those far away that are asked in clear text.
    """
    location = parse_url(settings.database.url, settings.directory)
    if not isinstance(location, MySQLLocation):
        return
    if location.encryption is None and (far := _far_hosts(location)):
        findings.advice.append(
            "database.url: mail addresses and password hashes go in clear text between here and "
            f"{', '.join(far)}; add ?ssl_mode=VERIFY_IDENTITY, and ssl_ca for an authority of your "
            "own, unless nobody else hears that network"
        )
    if len(location.servers) > 1:
        asyncio.run(_ask_each(location, settings, findings))


def _far_hosts(location: MySQLLocation) -> list[str]:
    """What is asked by the network."""
    return [
        server.host
        for server in location.servers
        if not server.unix_socket and not is_here(server.host)
    ]


def is_here(host: str) -> bool:
    """Whether a host is reached by loopback alone; or not at all, which is told elsewhere."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(is_loopback(str(address[0])) for *_, address in found)


async def examine_version(engine: Engine, findings: Findings) -> None:
    """Name a server that is older than all on which this was tried; raises CannotKnow."""
    if engine.dialect.name != "mysql":
        return
    ((told,),) = await engine.fetch("SELECT VERSION()")
    version = text_of(told)
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    oldest = _OLDEST_TRIED[product]
    number = re.match(r"(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < oldest:
        findings.advice.append(
            f"database.url: the server calls itself {version}, and nothing before {product} "
            f"{oldest[0]}.{oldest[1]} has been tried; see whether restante explain ADDRESS knows "
            "some of your addresses of each kind"
        )


async def examine_engines(engine: Engine, findings: Findings) -> None:
    """Name tables in which a change that fails may stay, half of it; raises CannotKnow."""
    if engine.dialect.name != "mysql":
        return
    for row in await engine.fetch(_NOT_TRANSACTIONAL):
        table, kind = map(text_of, row)
        if table in TABLES:
            findings.advice.append(
                f"the table {table} is {kind}, which has no transactions: of a command, or of a "
                "hash that is to be upgraded, a part may be written when the rest fails; "
                f"ALTER TABLE `{table}` ENGINE=InnoDB"
            )


async def _ask_each(location: MySQLLocation, settings: Settings, findings: Findings) -> None:
    each_alone = [replace(location, servers=(server,)) for server in location.servers]
    findings.advice += filter(
        None, await asyncio.gather(*(_failure(alone, settings) for alone in each_alone))
    )


async def _failure(location: MySQLLocation, settings: Settings) -> str:
    """Why the one server of the location cannot be asked; empty if it can."""
    from restante.directory.mysql import MySQLEngine

    engine = MySQLEngine(location, settings.database, log=StatementLog(enabled=False))
    try:
        await engine.fetch("SELECT 1 FROM `rcpthosts` LIMIT 1")
    except CannotKnow as error:
        return f"database.url: of its servers one cannot be asked, and the others are: {error}"
    finally:
        await engine.close()
    return ""
