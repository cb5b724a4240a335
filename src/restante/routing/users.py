"""Decisions 3 and 4: where the owner of an address lives, and what is to be done with the message.

The passwd file (decision 3) and ``.qmail`` files (decision 4) are asked after SQL;
they belong at the end of ``find_user`` and of ``_rows``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from restante.address import Address, dash_prefixes
from restante.directory import Account, Lookups
from restante.routing.decision import (
    Destination,
    Instruction,
    Instructions,
    Mailbox,
    NoSuchUser,
    ToForward,
    ToMaildir,
)
from restante.routing.instructions import parse_instructions, resolve_path
from restante.routing.ownership import Owner
from restante.routing.trace import Notes

ALIAS_USER = "alias"
"""The user who has the addresses that no account has."""


@dataclass(frozen=True, slots=True)
class User:
    """A user and the extension that the address leaves."""

    name: str
    extension: str
    account: Account | None
    """None for the alias user."""


@dataclass(frozen=True, slots=True)
class ActionRules:
    """What decision 4 takes from the settings."""

    default: tuple[Instruction, ...]
    """``routing.defaultdelivery``, parsed."""
    delimiter: str
    """``routing.subaddress_delimiter``."""


async def find_user(owner: Owner, lookups: Lookups, notes: Notes) -> User:
    """Decision 3: the longest candidate that has an account, else the alias user."""
    notes.note("3", "which user is %s?", owner.name)
    if owner.account:
        notes.note("3", "the account found in step 2a")
        return User(owner.account.name, "", owner.account)
    for name, extension in candidates(owner):
        if account := await lookups.account(name):
            notes.note("3", "user %s, extension %r, home %s", account.name, extension, account.home)
            return User(account.name, extension, account)
    notes.note("3", "no account: user %s, extension %r", ALIAS_USER, owner.name)
    return User(ALIAS_USER, owner.name, None)


def candidates(owner: Owner) -> Iterator[tuple[str, str]]:
    """The user names that the owner's name may mean, with the extension that each leaves."""
    local, at, domain = owner.name.rpartition("@")
    if not (owner.from_virtual and local):
        yield from dash_prefixes(owner.name)
        return
    for name, extension in dash_prefixes(local):
        yield f"{name}{at}{domain}", extension


async def find_actions(
    address: Address, owner: Owner, user: User, lookups: Lookups, notes: Notes, rules: ActionRules
) -> Mailbox | Instructions | NoSuchUser:
    """Decision 4; raises BadInstruction and what the look-ups raise."""
    notes.note("4", "what is to be done with the message?")
    search = _Actions(address, owner, user, lookups, notes)
    if lines := await search.tag_rows():
        local, at, domain = owner.delivered_to.rpartition("@")
        return await search.obey(lines, f"{local}{rules.delimiter}{owner.tag}{at}{domain}")
    if lines := await search.rows():
        return await search.obey(lines, owner.delivered_to)
    return search.default(rules.default)


@dataclass(frozen=True, slots=True)
class _Actions:
    address: Address
    owner: Owner
    user: User
    lookups: Lookups
    notes: Notes

    async def tag_rows(self) -> tuple[str, ...]:
        """Rows for the subaddress. The alias user has none: its extensions are other addresses."""
        if not (self.owner.tag and self.user.account):
            return ()
        parts = (self.user.extension, self.owner.tag)
        extension = "-".join(part for part in parts if part)
        return await self._ask(extension)

    async def rows(self) -> tuple[str, ...]:
        """Rows for the extension, else for the user's catch-all."""
        if lines := await self._ask(self.user.extension):
            return lines
        return await self._ask("") if self.user.extension else ()

    async def _ask(self, extension: str) -> tuple[str, ...]:
        lines = await self.lookups.instructions(self.user.name, extension)
        if lines:
            self.notes.note(
                "4", "alias has %d instructions for %s, %r", len(lines), self.user.name, extension
            )
        return lines

    async def obey(self, lines: tuple[str, ...], delivered_to: str) -> Instructions:
        actions = parse_instructions(lines)
        account = self.user.account
        if account is None and not all(isinstance(action, ToForward) for action in actions):
            account = await self.lookups.account(ALIAS_USER)
        destination = Destination(self.user.name, self.user.extension)
        return Instructions(account, delivered_to, actions, destination)

    def default(self, actions: tuple[Instruction, ...]) -> Mailbox | Instructions | NoSuchUser:
        account, extension = self.user.account, self.user.extension
        if account is None or extension:
            self.notes.note("4", "nothing is set for the extension %r", extension)
            why = f"user {self.user.name} has no instructions for extension {extension!r}"
            return NoSuchUser(self.address, why)
        self.notes.note("4", "no instructions: setting routing.defaultdelivery")
        match actions:
            case (ToMaildir(path),):
                maildir = resolve_path(account.home, path)
                return Mailbox(account, self.owner.delivered_to, maildir)
        destination = Destination(self.user.name)
        return Instructions(
            account, self.owner.delivered_to, actions, destination, "routing.defaultdelivery"
        )
