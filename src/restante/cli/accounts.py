"""Commands on domains, mailboxes and aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from restante.address import Address, AddressSyntaxError, fold
from restante.cli.context import (
    account_name,
    administer,
    administer_each,
    domain_name,
    full_address,
    hashed_password,
    settings_of,
    stored_text,
)
from restante.cli.groups import Group
from restante.cli.output import (
    AsJson,
    count,
    human_size,
    print_record,
    print_rows,
    remark,
)
from restante.errors import OperatorError
from restante.labels import forms

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.directory import Account
    from restante.directory.admin import Administration, Mailboxes

PASSWORD_TYPE = "Crypt-Password"  # noqa: S105 - the prefix of the hash says more

DomainArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", show_default=False)]
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", show_default=False)]
DomainFilter = Annotated[
    str, typer.Argument(metavar="[DOMAIN]", help="Only those of this domain.", show_default=False)
]
PasswordFromStdin = Annotated[
    bool,
    typer.Option("--password-stdin", help="Take the password from standard input's first line."),
]

domains = typer.Typer(cls=Group, help="Domains whose mail is accepted.", no_args_is_help=True)
mailboxes = typer.Typer(cls=Group, help="Accounts and their mail.", no_args_is_help=True)
aliases = typer.Typer(cls=Group, help="Addresses that forward.", no_args_is_help=True)


@domains.command("add")
def add_domain(context: typer.Context, name: DomainArgument) -> None:
    """Accept mail for a domain."""
    domain = domain_name(name)
    administer(settings_of(context), lambda admin: admin.add_domain(domain))


@domains.command("list")
def list_domains(context: typer.Context, as_json: AsJson = False) -> None:
    """List the domains, one a line."""
    names = administer(settings_of(context), lambda admin: admin.domains())
    print_rows(["domain"], [[name] for name in names], as_json=as_json)


@domains.command("remove")
def remove_domain(context: typer.Context, name: DomainArgument) -> None:
    """Accept no more mail for a domain; refused while it has addresses."""
    domain = domain_name(name)
    administer(settings_of(context), lambda admin: admin.remove_domain(domain))


@mailboxes.command("add")
def add_mailbox(
    context: typer.Context, address: AddressArgument, password_stdin: PasswordFromStdin = False
) -> None:
    """Make an account; its domain must be there."""
    from restante.cli.homes import has_something, home_of, mail_owner
    from restante.directory import Account

    given = full_address(address)
    settings = settings_of(context)
    owner = mail_owner(settings)
    wanted = administer(settings, lambda admin: _free_address(admin, settings, given))
    account = Account(str(wanted), owner.uid, owner.gid, home_of(settings, wanted))
    password = hashed_password(from_stdin=password_stdin)
    administer(settings, lambda admin: admin.add_mailbox(wanted, account, password, PASSWORD_TYPE))
    if has_something(account.home):
        remark(f"the home {account.home} was there already: what is in it is the new mailbox's")


async def _free_address(admin: Administration, settings: Settings, address: Address) -> Address:
    """The address as its domain is written here, before a password is asked for.

    That nobody has it is checked again when it is added.
    """
    if taken := await admin.mailbox(address):
        raise OperatorError(f"the mailbox {taken.name} exists already")
    await _need_no_local_user(admin, settings, address)
    return await admin.hosted(address)


async def _need_no_local_user(admin: Administration, settings: Settings, address: Address) -> None:
    """That no account without a domain has the mail, as it has in domains of the host itself."""
    here = {form for domain in settings.routing.locals for form in forms(fold(domain))}
    if not address.local or fold(address.domain) not in here:
        return
    if user := await admin.mailbox(Address(address.local, "")):
        raise OperatorError(
            f"the mailbox {user.name} has the mail of {address}, as routing.locals has the domain: "
            "choose another name"
        )


@mailboxes.command("list")
def list_mailboxes(
    context: typer.Context, domain: DomainFilter = "", as_json: AsJson = False
) -> None:
    """List the accounts: name, uid, gid and home."""
    only = domain_name(domain) if domain else None
    found = administer_each(settings_of(context), lambda admin: admin.mailboxes(only))
    problems: list[str] = []
    print_rows(["mailbox", "uid", "gid", "home"], _mailbox_rows(found, problems), as_json=as_json)
    if problems:
        raise OperatorError("\n".join(problems))


def _mailbox_rows(found: Iterable[Mailboxes], problems: list[str]) -> Iterator[list[object]]:
    """A row for each account; ``problems`` gets what is wrong with the others."""
    for some in found:
        problems += some.problems
        for account in some.accounts:
            yield [account.name, account.uid, account.gid, account.home]


@mailboxes.command("show")
def show_mailbox(context: typer.Context, address: AddressArgument, as_json: AsJson = False) -> None:
    """Show an account, its addresses, and how much mail it holds."""
    from restante.cli.homes import measure

    wanted = account_name(address)
    account, addresses = administer(
        settings_of(context), lambda admin: _account_and_addresses(admin, wanted)
    )
    held = measure(account.home)
    print_record(
        {
            "mailbox": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "home": account.home,
            "addresses": addresses,
            "messages": held.messages,
            "size": held.octets if as_json else human_size(held.octets),
        },
        as_json=as_json,
    )


async def _account_and_addresses(
    admin: Administration, address: Address
) -> tuple[Account, list[str]]:
    account = await _existing(admin, address)
    return account, await admin.addresses_of(account.name)


async def _existing(admin: Administration, address: Address) -> Account:
    account = await admin.mailbox(address)
    if account is None:
        raise OperatorError(
            f"there is no mailbox {address}; restante mailbox list shows those there are"
        )
    return account


@mailboxes.command("passwd")
def set_password(
    context: typer.Context, address: AddressArgument, password_stdin: PasswordFromStdin = False
) -> None:
    """Give an account another password."""
    wanted = account_name(address)
    settings = settings_of(context)
    administer(settings, lambda admin: _existing(admin, wanted))
    password = hashed_password(from_stdin=password_stdin)
    administer(settings, lambda admin: admin.set_password(wanted, password, PASSWORD_TYPE))


@mailboxes.command("remove")
def remove_mailbox(
    context: typer.Context,
    address: AddressArgument,
    delete_mail: Annotated[
        bool, typer.Option("--delete-mail", help="Delete the mail that is in it, too.")
    ] = False,
) -> None:
    """Remove an account; refused while it holds mail, unless --delete-mail is given.

    Its addresses go, with and without an extension, and its own rows of the table alias, so that
    whoever gets the name later inherits none. Its home stays without --delete-mail. Mail in a home
    that holds another account's too is never deleted.
    """
    from restante.cli.homes import delete_home, has_something, measure

    wanted = account_name(address)
    settings = settings_of(context)
    account = administer(settings, lambda admin: _existing(admin, wanted))
    held = measure(account.home)
    if held.messages and not delete_mail:
        raise OperatorError(
            f"the mailbox {account.name} holds {count(held.messages, 'message')}; "
            "nothing was removed; add --delete-mail to delete them with it"
        )
    doomed = _doomed_home(settings, account) if delete_mail else ""
    pointing = administer(settings, lambda admin: admin.remove_mailbox(wanted))
    try:
        if doomed:
            delete_home(doomed)
    finally:
        for entry in pointing:
            remark(f"the alias {entry.address} still points to {entry.target}")
    if not doomed and has_something(account.home):
        remark(f"the home {account.home} stays, for whoever is given it next")


def _doomed_home(settings: Settings, account: Account) -> str:
    from restante.cli.homes import deletable_home

    name = account_name(account.name)
    others = administer_each(settings, lambda admin: admin.homes_of_others(name))
    return deletable_home(settings, account.home, chain.from_iterable(others))


@aliases.command("add")
def add_alias(context: typer.Context, address: AddressArgument, target: TargetArgument) -> None:
    """Forward an address to a target; again for each further target. @DOMAIN is a catch-all."""
    forwarded, to = _alias_address(address), full_address(target)
    settings = settings_of(context)
    administer(settings, lambda admin: _forward(admin, settings, forwarded, to))


async def _forward(
    admin: Administration, settings: Settings, address: tuple[str, str], target: Address
) -> None:
    await _need_no_local_user(admin, settings, Address(*address))
    await admin.add_alias(address, target)


@aliases.command("list")
def list_aliases(
    context: typer.Context, domain: DomainFilter = "", as_json: AsJson = False
) -> None:
    """List the aliases, a line for each of their targets."""
    only = domain_name(domain) if domain else None
    found = administer_each(settings_of(context), lambda admin: admin.aliases(only))
    rows = ([entry.address, entry.target] for some in found for entry in some)
    print_rows(["alias", "target"], rows, as_json=as_json)


@aliases.command("remove")
def remove_alias(context: typer.Context, address: AddressArgument, target: TargetArgument) -> None:
    """Forward an address to this target no more; both as alias list shows them."""
    from restante.directory.admin import AliasEntry

    entry = AliasEntry(_as_listed(address), _as_listed(target))
    administer(settings_of(context), lambda admin: admin.remove_alias(entry))


def _as_listed(text: str) -> str:
    """An address as rows hold it, without quoting; rows written by hand may hold anything else."""
    try:
        return str(Address.parse(text))
    except AddressSyntaxError:
        return stored_text(text)


def _alias_address(text: str) -> tuple[str, str]:
    """The local part, empty for a catch-all, and the domain."""
    if text.startswith("@"):
        return "", domain_name(text[1:])
    address = full_address(text)
    return address.local, address.domain
