"""Hashes that nobody can log in with, and what stands in the way of better ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from restante.auth.schemes import UnknownScheme, scram_source
from restante.cli.check.findings import MAX_NAMED
from restante.directory.engine import Engine, Statement
from restante.directory.pages import first_rows
from restante.directory.rows import text_of
from restante.errors import CannotKnow

if TYPE_CHECKING:
    from restante.cli.check.findings import Findings
    from restante.config.tree import Auth

MAX_READ = 20_000
"""Hashes that are read: those of a large database would take minutes."""
UPGRADED_SIZE = 107
"""Characters of a hash as ``auth.upgrade`` writes it."""

_HASHES = ("`username`, `password`, `password_type`", "`password` IS NOT NULL AND `password` <> ''")
"""Columns, and which rows have any."""
_COLUMN_SIZE = (
    "SELECT character_maximum_length FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = 'mailbox' AND column_name = 'password'"
)
_NO_CHANGE = "UPDATE `mailbox` SET `password` = `password` WHERE 1 = 0"


async def examine_passwords(engine: Engine, auth: Auth, findings: Findings) -> None:
    """Add what is wrong with the hashes; raises CannotKnow."""
    found = await first_rows(engine, "mailbox", *_HASHES, most=MAX_READ)
    rows = [tuple(map(text_of, row)) for row in found]
    findings.problems += _named(_unknown(rows))
    if "SCRAM-SHA-256" in auth.mechanisms:
        findings.problems += _named(_without_scram(rows))
    if auth.upgrade:
        await _examine_upgrade(engine, findings)


def _unknown(rows: list[tuple[str, ...]]) -> Iterator[str]:
    for name, stored, kind in rows:
        try:
            scram_source(stored, kind)
        except UnknownScheme as error:
            yield f"the mailbox {name}: {error}; its logins fail"


def _without_scram(rows: list[tuple[str, ...]]) -> Iterator[str]:
    for name, stored, kind in rows:
        try:
            source = scram_source(stored, kind)
        except UnknownScheme:
            continue  # named already
        if source is None:
            yield (
                f"the mailbox {name}: its hash is of no use for SCRAM-SHA-256, which "
                "auth.mechanisms announces: clients that choose it cannot log in"
            )


def _named(problems: Iterator[str]) -> list[str]:
    """The first of them, and how many more there are."""
    found = list(problems)
    more = [f"{len(found) - MAX_NAMED} more mailboxes like these"] if found[MAX_NAMED:] else []
    return found[:MAX_NAMED] + more


async def _examine_upgrade(engine: Engine, findings: Findings) -> None:
    if engine.dialect.name == "mysql":
        for row in await engine.fetch(_COLUMN_SIZE):
            if row[0] is not None and int(text_of(row[0])) < UPGRADED_SIZE:
                findings.problems.append(
                    f"auth.upgrade: mailbox.password has {text_of(row[0])} characters, too few for "
                    "argon2id; ALTER TABLE mailbox MODIFY password VARCHAR(512)"
                )
    try:
        await engine.transaction([Statement(_NO_CHANGE)])
    except CannotKnow as error:
        findings.problems.append(f"auth.upgrade: hashes cannot be replaced: {error}")
