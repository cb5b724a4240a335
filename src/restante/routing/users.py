"""Decision 3: where the owner of an address lives.

The passwd file is asked where no candidate has a row of ``mailbox``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from restante.address import dash_prefixes, fold
from restante.directory import Account, Lookups
from restante.routing.ownership import Owner
from restante.routing.trace import Notes

ALIAS_USER = "alias"
"""The user who has the addresses that no account has."""
NO_ALIAS_ACCOUNT = "mailbox has no user alias to deliver it as"
"""Why an instruction of that user's waits that is no forward."""


@dataclass(frozen=True, slots=True)
class User:
    """A user and the extension that the address leaves."""

    name: str
    extension: str
    account: Account | None
    """None for the alias user."""


async def find_user(owner: Owner, lookups: Lookups, notes: Notes, *, system_files: bool) -> User:
    """The longest candidate that has an account, else the alias user; raises as the look-ups do."""
    notes.note("3", "which user is %s?", owner.name)
    if owner.account:
        notes.note("3", "the account found in step 2a")
        return User(owner.account.name, "", owner.account)
    for name, extension in candidates(owner):
        if account := await lookups.account(name):
            return _found(account, extension, notes)
    if system_files:
        for name, extension in candidates(owner):
            if account := await lookups.system_user(fold(name)):
                return _found(account, extension, notes)
    notes.note("3", "no account: user %s, extension %r", ALIAS_USER, owner.name)
    return User(ALIAS_USER, owner.name, None)


async def find_alias_account(lookups: Lookups, *, system_files: bool) -> Account | None:
    """The account of the alias user, whose rights and home its instructions have."""
    account = await lookups.account(ALIAS_USER)
    if account is None and system_files:
        account = await lookups.system_user(ALIAS_USER)
    return account


def candidates(owner: Owner) -> Iterator[tuple[str, str]]:
    """The user names that the owner's name may mean, with the extension that each leaves."""
    local, at, domain = owner.name.rpartition("@")
    if not (owner.from_virtual and local):
        yield from dash_prefixes(owner.name)
        return
    for name, extension in dash_prefixes(local):
        yield f"{name}{at}{domain}", extension


def _found(account: Account, extension: str, notes: Notes) -> User:
    notes.note("3", "user %s, extension %r, home %s", account.name, extension, account.home)
    return User(account.name, extension, account)
