"""Decides a login in this process: without a running server, or before one runs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from restante.auth import NoSystemLogins, SystemLogins
from restante.auth.login import PasswordAuthenticator
from restante.auth.system import HostLogins
from restante.checkpassword import TEMPORARY, Ending
from restante.checkpassword.answers import SERVICE, decided
from restante.checkpassword.wire import Answer, Question
from restante.config import Settings
from restante.config.load import load
from restante.config.tree import Log
from restante.directory.engine import Engine, open_engine
from restante.directory.lookups import SqlDirectory
from restante.directory.shadow import shadow_groups
from restante.directory.system import HostPasswords, system_files
from restante.errors import OperatorError
from restante.guessing.guard import guard_of
from restante.logsetup import setup_logging
from restante.tally.owner import as_owner


def decide(directory: str, control: str, question: Question) -> Answer:
    """What the settings, the database and the files of the system say; raises Ending."""
    try:
        settings = load(directory, os.environ, control)
        log = setup_logging(_log_of(settings), settings.directory)
    except OperatorError as error:
        raise Ending(TEMPORARY, str(error)) from None
    try:
        # Now: its driver may lie where only root may read.
        engine = open_engine(settings.database, settings.directory, log_sql=settings.log.sql)
        # The server's files are its user's; the shadow file is a group's.
        with as_owner(settings.path(settings.queue.root), shadow_groups()):
            return asyncio.run(_decide(settings, engine, question))
    finally:
        log.close()


def _log_of(settings: Settings) -> Log:
    """A log file is the server's: where it is not there yet, it is not for root to make."""
    path = os.path.join(settings.directory, settings.log.target)
    if settings.log.target == "syslog" or os.access(path, os.W_OK):
        return settings.log
    return replace(settings.log, target="stderr")


async def _decide(settings: Settings, engine: Engine, question: Question) -> Answer:
    directory = SqlDirectory(engine, system_files(settings))
    guard = guard_of(settings)
    system = _system_logins(settings)
    authenticator = PasswordAuthenticator(directory, settings.auth, guard, system=system)
    try:
        session = f"{SERVICE}-{os.getpid()}"
        return await decided(question, session, authenticator, directory)
    finally:
        await authenticator.close()
        await system.close()
        await guard.close()
        await directory.close()


def _system_logins(settings: Settings) -> SystemLogins:
    """Logins of the system's users, in a process that may read the shadow file."""
    if not settings.routing.system_files:
        return NoSystemLogins()
    return HostLogins(HostPasswords(settings.mail.minimum_uid), settings.auth)
