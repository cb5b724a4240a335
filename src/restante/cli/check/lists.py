"""Mailing lists whose owner stands where nobody looks for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable

from restante.cli.check.findings import MAX_NAMED
from restante.cli.check.homes import MAX_HOMES
from restante.cli.check.reach import Reach
from restante.cli.check.rows import instructions
from restante.cli.context import directory_of
from restante.config.tree import Settings
from restante.directory import Account, DotQmail, Lookups
from restante.directory.engine import Engine
from restante.errors import RestanteError
from restante.routing.decision import ToForward, ToProgram
from restante.routing.instructions import BadInstruction, parse_instructions

_OWNER = "owner"


async def owners_elsewhere(settings: Settings, engine: Engine, reach: Reach) -> list[str]:
    """Lists of rows whose owner is a file, and the reverse; raises CannotKnow.

    Each mail to a list asks in one place only, and both addresses work.
    """
    lines = await instructions(engine)
    files = _Files(directory_of(settings, engine), reach)
    told: list[str] = []
    for user, extension in lines:
        told += [each async for each in _owner_elsewhere(user, extension, lines, files)]
        if len(told) >= MAX_NAMED or files.left <= 0:
            break
    return told[:MAX_NAMED]


async def _owner_elsewhere(
    user: str, extension: str, lines: dict[tuple[str, str], list[str]], files: _Files
) -> AsyncIterator[str]:
    of = f"alias has for {user!r}, extension {extension!r}"
    name, _, suffix = extension.rpartition("-")
    if suffix == _OWNER and lines.keys().isdisjoint({(user, name), (user, "")}):
        file = await files.serving(user, name)
        if file and _send_on(file.lines) and not await files.has_rows(user, name, ""):
            yield f"{of}: it is no owner of the list in {file.path}: write a file for it too"
    owner = f"{extension}-{_OWNER}".removeprefix("-")
    if (user, owner) not in lines and _send_on(lines[user, extension]):
        file = await files.serving(user, owner)
        if file and not file.default and not await files.has_rows(user, owner):
            yield f"{of}: {file.path} is no owner of this list: write rows for {owner!r} too"


def _send_on(lines: Iterable[str]) -> bool:
    """Whether an owner would matter; what cannot be obeyed is told of elsewhere."""
    try:
        actions = parse_instructions(lines)
    except BadInstruction:
        return False
    return any(isinstance(action, ToForward | ToProgram) for action in actions)


class _Files:
    """.qmail files of accounts whose homes this user may look into, a number of them."""

    def __init__(self, lookups: Lookups, reach: Reach) -> None:
        self._lookups = lookups
        self._reach = reach
        self._accounts: dict[str, Account | None] = {}
        self.left = MAX_HOMES
        """So many are looked for yet."""

    async def serving(self, user: str, extension: str) -> DotQmail | None:
        """The file that serves an extension, as far as it can be said."""
        with contextlib.suppress(RestanteError):
            account = await self._account(user)
            if account is not None:
                self.left -= 1
                return await self._lookups.dot_qmail(account, extension)
        return None

    async def has_rows(self, user: str, *extensions: str) -> bool:
        """Of a large table not all were read."""
        for extension in extensions:
            if await self._lookups.instructions(user, extension):
                return True
        return False

    async def _account(self, user: str) -> Account | None:
        if user not in self._accounts:
            self._accounts[user] = None
            found = await self._lookups.account(user) or await self._lookups.system_user(user)
            if found and os.geteuid() in (0, found.uid) and self._reach.includes(found.home):
                self._accounts[user] = found
        return self._accounts[user]
