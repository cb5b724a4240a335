"""Rows that are there and lead nowhere, or to mailboxes that nobody can deliver to."""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from restante.address import Address, fold
from restante.cli.check.findings import MAX_NAMED, Findings
from restante.cli.context import directory_of
from restante.directory import MAX_ID, BadFile, BadRow, Directory
from restante.directory.answers import folded
from restante.directory.engine import Engine, Row, Unfit, Value
from restante.directory.pages import first_rows, pages
from restante.directory.rows import account_of, line_of, text_of
from restante.labels import forms, in_own_form
from restante.routing.decision import NoSuchUser, ToForward
from restante.routing.instructions import BadInstruction, instruction_line, parse_instructions
from restante.routing.ownership import Owner
from restante.routing.router import Router
from restante.routing.users import ALIAS_USER, NO_ALIAS_ACCOUNT, candidates, find_alias_account
from restante.service.user import serving_uid, starting_uid

if TYPE_CHECKING:
    from restante.config.tree import Settings

MAX_READ = 20_000
"""Rows that are read where each is looked into: those of a large database would take minutes."""
AT_A_TIME = 100
"""Addresses that are looked up together."""

_User = tuple[str, str]
"""A user and an extension."""

_WRONG_HOME = "`home` IS NULL OR `home` NOT LIKE '/%'"
_WRONG_NUMBER = "`uid` IS NULL OR `gid` IS NULL OR `uid` < 0 OR `gid` < 0 OR `uid` > ? OR `gid` > ?"
_WRONG_OWNER = {True: "`uid` < ? OR `gid` < ?", False: "`uid` <> ?"}
"""Whether root starts the server, which then delivers to everybody."""
_WITHOUT_OWNER = "`username` IS NULL OR `username` = ''"
_EMPTY_NOT_NULL = (
    ("virtual", "virtual_username", "catch-alls"),
    ("alias", "alias", "for all extensions without rows of their own"),
)
"""Table, column, and what an empty one says there."""
_INSTRUCTIONS = "SELECT `username`, `alias`, `alias_username`, `alias_host` FROM `alias` LIMIT ?"
# Planners make joins of EXISTS, and read all of the other table for each page.
_WITHOUT_ACCOUNT = (
    "`username` <> '' AND "
    "(SELECT 1 FROM `mailbox` m WHERE m.`username` = `virtual`.`username` LIMIT 1) IS NULL AND "
    "(SELECT 1 FROM `alias` a WHERE a.`username` = 'alias' AND a.`alias` = `virtual`.`username` "
    "LIMIT 1) IS NULL"
)
_SEVERAL_OWNERS = (
    "SELECT MIN(`virtual_username`), MIN(`virtual_host`) FROM `virtual` WHERE {} "
    "GROUP BY `virtual_host`, `virtual_username` HAVING MIN(`username`) <> MAX(`username`)"
)
"""Addresses that may have them, in a page: some databases take more names to be the same."""
_WITHOUT_ADDRESSES = "(SELECT 1 FROM `virtual` v WHERE v.`virtual_host` = {} LIMIT 1) IS NULL"
"""With the host as ``virtual`` would have it."""
_HOSTS = "SELECT MIN(`virtual_host`) FROM `virtual` WHERE {} GROUP BY `virtual_host`"
"""The domains in a page, each once."""
_DOMAINS = (("rcpthosts", "host"), ("virtual", "virtual_host"))
_HOST_COLLATION = (
    "SELECT character_set_name, collation_name FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = 'virtual' AND column_name = 'virtual_host'"
)
_PROGRAM = (
    "`alias_username` LIKE '|%' AND (`alias_host` IS NULL OR `alias_host` = '') AND "
    "(SELECT 1 FROM `mailbox` m WHERE m.`username` = `alias`.`username` AND m.`uid` = ? LIMIT 1) "
    "IS NOT NULL"
)


async def examine_rows(engine: Engine, settings: Settings, findings: Findings) -> None:
    """Add what is wrong with the rows; raises CannotKnow."""
    await _examine_accounts(engine, settings, findings)
    await _examine_owners(engine, findings)
    await _examine_nulls(engine, findings)
    await _examine_addresses(engine, settings, findings)
    await _examine_shared(engine, settings, findings)
    await _examine_domains(engine, settings, findings)
    await _examine_hosts(engine, settings, findings)
    await _examine_forms(engine, findings)
    await _examine_instructions(engine, settings, findings)
    await _examine_programs(engine, settings, findings)


async def _some(
    engine: Engine, table: str, columns: str, condition: str, *parameters: Value
) -> list[Row]:
    """The columns of a few rows that meet the condition."""
    return await first_rows(engine, table, columns, condition, parameters, most=MAX_NAMED)


async def _examine_accounts(engine: Engine, settings: Settings, findings: Findings) -> None:
    for row in await _some(engine, "mailbox", "`username`", _WRONG_HOME):
        findings.problems.append(
            f"the mailbox {text_of(row[0])}: its home is no absolute path; its mail waits"
        )
    own = starting_uid(settings)
    least = (max(settings.mail.minimum_uid, 1), settings.mail.minimum_gid)
    wanted = least if own == 0 else (own,)
    rule = (
        f"the least are mail.minimum_uid, {least[0]}, and mail.minimum_gid, {least[1]}"
        if own == 0
        else f"a server that runs as uid {own} cannot write there"
    )
    columns = "`username`, `uid`, `gid`"
    numbers = await _some(engine, "mailbox", columns, _WRONG_NUMBER, MAX_ID, MAX_ID)
    wrong = [_wrong_number(row) for row in numbers]
    for row in await _some(engine, "mailbox", columns, _WRONG_OWNER[own == 0], *wanted):
        name, uid, gid = map(text_of, row)
        there = f"the mailbox {name} has uid {uid} and gid {gid}, and {rule}"
        wrong.append(_wrong_number(row) or there)
    findings.problems += dict.fromkeys(f"{each}; its mail waits" for each in wrong if each)


def _wrong_number(row: Row) -> str:
    """What keeps uid and gid (behind a username) from being numbers; empty if they are some."""
    try:
        account_of((*row, "/"))
    except BadRow as error:
        return str(error)
    return ""


async def _examine_owners(engine: Engine, findings: Findings) -> None:
    columns = "`virtual_username`, `virtual_host`"
    for row in await _some(engine, "virtual", columns, _WITHOUT_OWNER):
        local, domain = map(text_of, row)
        findings.problems.append(
            f"virtual has a row for {local}@{domain} without a username; its mail waits"
        )


async def _examine_nulls(engine: Engine, findings: Findings) -> None:
    for table, column, meaning in _EMPTY_NOT_NULL:
        where = f"`{column}` IS NULL"
        # No page has any; where a column may not be NULL, nothing is read.
        if await engine.fetch(f"SELECT 1 FROM `{table}` WHERE {where} LIMIT 1"):
            findings.problems.append(
                f"{table} has rows with NULL in {column}, which count for nothing; if they are "
                f"{meaning}: UPDATE `{table}` SET `{column}` = '' WHERE {where}"
            )


async def _examine_addresses(engine: Engine, settings: Settings, findings: Findings) -> None:
    router = Router(settings.routing, settings.hostname)
    directory = directory_of(settings, engine)
    columns = "`username`, `virtual_username`, `virtual_host`"
    rows = await first_rows(engine, "virtual", columns, _WITHOUT_ACCOUNT, most=MAX_READ)
    probes: dict[Address, list[tuple[str, ...]]] = {}
    for row in rows:
        owner, local, domain = map(text_of, row)
        # Any address that has no row of its own shows where a catch-all leads.
        probe = Address(local or f"any-{secrets.token_hex(8)}", fold(domain))
        probes.setdefault(probe, []).append((owner, local, domain))
    async for probe in _without_mailbox(probes, router, directory):
        for owner, local, domain in probes[probe]:
            findings.advice.append(
                f"virtual gives {local}@{domain} to {owner!r}, which has neither an account in "
                "mailbox nor rows in alias: its mail is refused"
            )


async def _examine_shared(engine: Engine, settings: Settings, findings: Findings) -> None:
    directory = directory_of(settings, engine)
    told: list[str] = []
    async for page in pages(engine, "virtual"):
        rows = await engine.fetch(_SEVERAL_OWNERS.format(page.text), page.values)
        for row in rows:
            local, domain = map(text_of, row)
            owners = await _owners_of(directory, local, domain)
            if len(set(map(fold, owners))) > 1:
                told.append(
                    f"virtual gives {local}@{domain} to {', '.join(owners)}: only the first has "
                    "its mail; several recipients are rows of alias"
                )
        if len(told) >= MAX_NAMED:
            break
    findings.advice += told[:MAX_NAMED]


async def _owners_of(directory: Directory, local: str, domain: str) -> tuple[str, ...]:
    try:
        return await directory.owners(local, domain)
    except BadRow:
        return ()  # told of already


async def _examine_domains(engine: Engine, settings: Settings, findings: Findings) -> None:
    if settings.routing.virtualdomains:
        return
    local = {form for domain in settings.routing.locals for form in forms(fold(domain))}
    directory = directory_of(settings, engine)
    condition = _WITHOUT_ADDRESSES.format(await _host_to_compare(engine))
    told: list[str] = []
    for row in await first_rows(engine, "rcpthosts", "`host`", condition, most=MAX_READ):
        domain = text_of(row[0])
        others = forms(fold(domain))[1:]
        has_addresses = [await directory.knows_domain(form) for form in others]
        if fold(domain) not in local and not any(has_addresses):
            told.append(
                f"the domain {domain} has no addresses: mail for it is accepted from everybody, "
                "and waits to be sent to another host"
            )
        if len(told) == MAX_NAMED:
            break
    findings.advice += told


async def _examine_hosts(engine: Engine, settings: Settings, findings: Findings) -> None:
    """Domains that are taken from nobody, and have addresses all the same."""
    router = Router(settings.routing, settings.hostname)
    directory = directory_of(settings, engine)
    named = ("", *settings.routing.locals, settings.routing.envnoathost or settings.hostname)
    own = {form for domain in named for form in forms(fold(domain))}
    refused: dict[str, None] = {}
    async for page in pages(engine, "virtual"):
        rows = await engine.fetch(_HOSTS.format(page.text), page.values)
        hosts = iter(dict.fromkeys(fold(text_of(row[0])) for row in rows))
        while some := list(islice(hosts, AT_A_TIME)):
            known = own | await _accepted(engine, some)
            for host in some:
                if host not in known and not await router.accepts(host, directory):
                    refused[host] = None
        if len(refused) >= MAX_NAMED:
            break
    findings.advice += [
        f"virtual has addresses in {host}, which rcpthosts has not: strangers are refused, and "
        "what users here send to it is delivered; docs/tables.md says how to give up a domain"
        for host in islice(refused, MAX_NAMED)
    ]


async def _accepted(engine: Engine, hosts: Sequence[str]) -> set[str]:
    """Those of them that rcpthosts has in this form, folded."""
    marks = ", ".join("?" * len(hosts))
    try:
        rows = await engine.fetch(
            f"SELECT `host` FROM `rcpthosts` WHERE `host` IN ({marks})", hosts
        )
    except Unfit:  # one of them: each is asked for by itself then
        return set()
    return {fold(text_of(row[0])) for row in rows}


async def _examine_forms(engine: Engine, findings: Findings) -> None:
    """Mail for a domain comes to its U-labels or its A-labels, and look-ups ask for these."""
    for table, column in _DOMAINS:
        text = engine.dialect.text(f"`{column}`")
        beyond = "{} GLOB '*[^ -~]*'" if engine.dialect.name == "sqlite" else "{} REGEXP '[^ -~]'"
        rows = await first_rows(engine, table, text, beyond.format(text), most=MAX_READ)
        found = dict.fromkeys(fold(text_of(row[0])) for row in rows)
        findings.problems += [
            f"{table}.{column} has {domain!r}, which is found for no mail to {own}: write it so"
            for domain in found
            if (own := in_own_form(domain)) != domain
        ][:MAX_NAMED]


async def _host_to_compare(engine: Engine) -> str:
    """rcpthosts.host in the collation of virtual.virtual_host: MySQL compares no others."""
    host = "`rcpthosts`.`host`"
    if engine.dialect.name == "mysql":
        for charset, collation in await engine.fetch(_HOST_COLLATION):
            if charset is not None:  # a column of octets has none, and is compared with anything
                return f"CONVERT({host} USING {text_of(charset)}) COLLATE {text_of(collation)}"
    return host


async def instructions(engine: Engine) -> dict[_User, list[str]]:
    """The lines of ``alias``, or of MAX_READ of its rows; raises CannotKnow."""
    lines: dict[_User, list[str]] = {}
    for row in await engine.fetch(_INSTRUCTIONS, (MAX_READ,)):
        lines.setdefault(folded(row), []).append(line_of(row[2], row[3]))
    return lines


async def _examine_instructions(engine: Engine, settings: Settings, findings: Findings) -> None:
    lines = await instructions(engine)
    unusable: list[str] = []
    without_account: list[str] = []
    targets: dict[Address, _User] = {}
    for (user, extension), some in lines.items():
        try:
            actions = parse_instructions(some, most=settings.routing.max_alias_targets)
        except BadInstruction as error:
            unusable.append(f"{_of(user, extension)}: {error}; its mail waits")
            continue
        for action in actions:
            if isinstance(action, ToForward):
                targets.setdefault(action.address, (user, extension))
            elif user == ALIAS_USER:
                without_account.append(
                    f"{_of(user, extension)}: {instruction_line(action)!r}: {NO_ALIAS_ACCOUNT}; "
                    "its mail waits"
                )
    router, directory = Router(settings.routing, settings.hostname), directory_of(settings, engine)
    if without_account and not await _has_alias_account(directory, settings):
        unusable += without_account
    findings.problems += unusable[:MAX_NAMED]
    findings.advice += await _examine_overshadowed(engine, lines)
    async for address in _without_mailbox(targets, router, directory):
        findings.advice.append(
            f"{_of(*targets[address])}: {address}, which nobody has: what is sent on to it bounces"
        )


async def _examine_overshadowed(engine: Engine, users: Iterable[_User]) -> list[str]:
    """Addresses that the alias user has rows for, and an account the mail."""
    names = (name for user, name in users if user == ALIAS_USER)
    pairs = ((account, name) for name in names for account in _accounts_of(name))
    told: list[str] = []
    while some := list(islice(pairs, AT_A_TIME)):
        marks = ", ".join("?" * len(some))
        rows = await engine.fetch(
            f"SELECT `username` FROM `mailbox` WHERE `username` IN ({marks})",
            [account for account, _ in some],
        )
        there = {fold(text_of(row[0])) for row in rows}
        told += [
            f"{_of(ALIAS_USER, name)}: it counts for nothing, since the account {account} has the "
            f"mail of {name}"
            for account, name in some
            if account in there
        ]
        if len(told) >= MAX_NAMED:
            break
    return told[:MAX_NAMED]


def _accounts_of(name: str) -> Iterator[str]:
    return (account for account, _ in candidates(Owner(name, name, from_virtual=True)))


async def _has_alias_account(directory: Directory, settings: Settings) -> bool:
    try:
        account = await find_alias_account(directory, system_files=settings.routing.system_files)
    except BadRow:
        return True  # one that is told of by itself
    except BadFile:
        return False
    return account is not None


def _of(user: str, extension: str) -> str:
    return f"alias has for {user!r}, extension {extension!r}"


async def _without_mailbox(
    targets: Iterable[Address], router: Router, directory: Directory
) -> AsyncIterator[Address]:
    """Addresses of domains here that no row knows, a few of them."""
    left, named = iter(targets), 0
    while some := list(islice(left, AT_A_TIME)):
        for address, decision in zip(some, await router.route_many(some, directory), strict=True):
            if isinstance(decision, NoSuchUser):
                yield address
                named += 1
            if named == MAX_NAMED:
                return


async def _examine_programs(engine: Engine, settings: Settings, findings: Findings) -> None:
    if settings.programs.run_as_server_user:
        return
    columns = "`username`, `alias_username`"
    for row in await _some(engine, "alias", columns, _PROGRAM, serving_uid(settings)):
        name, command = map(text_of, row)
        findings.problems.append(
            f"alias has {command!r} for {name}, whose uid is the server's own, and "
            "programs.run_as_server_user is not set; its mail waits"
        )
