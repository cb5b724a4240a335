"""What ``check`` looks at where system files are asked."""

from __future__ import annotations

import os

from restante.cli.check.findings import MAX_NAMED, Findings
from restante.cli.check.homes import accounts
from restante.cli.check.lists import owners_elsewhere
from restante.cli.check.reach import Reach
from restante.cli.context import ask, directory_of
from restante.config.tree import Settings
from restante.directory import Account
from restante.directory.engine import Engine
from restante.directory.shadow import SHADOW, shadow_groups
from restante.errors import RestanteError
from restante.routing.users import ALIAS_USER, find_alias_account
from restante.service.user import starters_rights, starting_uid

_ANY_EXTENSION = "postmaster"


def examine_system_files(settings: Settings, findings: Findings, reach: Reach) -> None:
    """Homes must be fit to have mail, and that of who has the addresses of nobody else be there."""
    if not settings.routing.system_files:
        return
    if not _workers_read_shadow(settings):
        findings.advice.append(
            f"routing.system_files: no user of the system can log in, as {SHADOW} cannot be read "
            "by the server's user, nor by a group other than root's, which a server that root "
            "starts makes use of"
        )
    try:
        findings.problems += ask(settings, lambda engine: _unfit_homes(settings, engine, reach))
        findings.advice += ask(settings, lambda engine: owners_elsewhere(settings, engine, reach))
        account = ask(settings, lambda engine: _alias_account(settings, engine))
    except RestanteError as error:
        findings.problems.append(f"routing.system_files: {error}")
        return
    if account is None:
        findings.advice.append(
            f"routing.system_files: neither mailbox nor the passwd file has the user {ALIAS_USER}: "
            "addresses that are nobody's own have no .qmail files"
        )


def _workers_read_shadow(settings: Settings) -> bool:
    """Whether the server can: workers are not root."""
    if starting_uid(settings) == 0:
        return bool(shadow_groups())
    with starters_rights(settings):
        return os.access(SHADOW, os.R_OK, effective_ids=True)


async def _unfit_homes(settings: Settings, engine: Engine, reach: Reach) -> list[str]:
    """What holds up all mail for an account; raises what the database does."""
    directory = directory_of(settings, engine)
    found: list[str] = []
    for account in await accounts(engine, reach):
        try:
            await directory.dot_qmail(account, "")
        except RestanteError as error:
            found.append(f"the mailbox {account.name}: {error}; its mail waits")
        if len(found) == MAX_NAMED:
            break
    return found


async def _alias_account(settings: Settings, engine: Engine) -> Account | None:
    """The user, if there is one; raises what a look into its home raises."""
    directory = directory_of(settings, engine)
    account = await find_alias_account(directory, system_files=True)
    if account is not None:
        await directory.dot_qmail(account, _ANY_EXTENSION)
    return account
