"""What ``check`` says of the servers in database.url, of which the first that is well is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from restante.cli.findings import Findings
from restante.directory.engine import MySQLLocation, StatementLog, parse_url
from restante.errors import CannotKnow

if TYPE_CHECKING:
    from restante.config.tree import Settings


def examine_servers(settings: Settings, findings: Findings) -> None:
    """Name those that cannot be asked, where others can: nobody would notice them missing."""
    location = parse_url(settings.database.url, settings.directory)
    if isinstance(location, MySQLLocation) and len(location.servers) > 1:
        asyncio.run(_ask_each(location, settings, findings))


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
