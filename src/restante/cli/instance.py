"""Commands on an instance as a whole: init, serve, demo."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from restante.cli.context import (
    Pop3Option,
    SmtpOption,
    administer,
    domain_name,
    host_port,
    settings_of,
    warn_of_exposed_password,
)
from restante.cli.output import program
from restante.cli.status import ServerUnavailable
from restante.config.load import FILE_NAME, load
from restante.config.tree import HostPort, Settings
from restante.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from restante.address import Address
    from restante.directory.admin import Administration

DEMO_DIRECTORY = "demo"
DEMO_HOST = "mx.example.com"
DEMO_DOMAIN = "example.com"
DEMO_PASSWORD = "restante"  # noqa: S105 - printed, and good for a loopback address only
DEMO_MAILBOXES = ("iain@example.com", "ann@example.com")
DEMO_ALIAS = "sales@example.com"

OnReady = Callable[[Sequence[tuple[str, HostPort]]], None]


def init(
    directory: Annotated[str, typer.Argument(metavar="DIR", show_default=False)],
    host: Annotated[
        str, typer.Option(metavar="NAME", help="The host's name.", show_default=False)
    ] = "",
    database: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="sqlite:///FILE or mysql://USER:PASSWORD@HOST/DB.",
            show_default=False,
        ),
    ] = "",
    smtp: SmtpOption = "",
    pop3: Pop3Option = "",
) -> None:
    """Make a new instance: DIR/restante.toml, its database and its tables."""
    from restante.cli.creation import create_instance

    settings = create_instance(directory, _overrides(host, database, smtp, pop3))
    restante = f"{program()} --dir {shlex.quote(directory)}"
    print(
        f"{settings.directory} is ready. Next:\n"
        f"  {restante} domain add example.com\n"
        f"  {restante} mailbox add iain@example.com\n"
        f"  {restante} check\n"
        f"  {restante} serve\n"
        f"Its settings are explained in {os.path.join(directory, FILE_NAME)}."
    )


def _overrides(host: str, database: str, smtp: str, pop3: str) -> dict[str, dict[str, object]]:
    wanted: dict[str, dict[str, object]] = {}
    if host:
        wanted["server"] = {"me": domain_name(host)}
    if database:
        wanted["database"] = {"url": database}
    if smtp:
        wanted["smtp"] = {"listen": (host_port(smtp, "--smtp"),)}
    if pop3:
        wanted["pop3"] = {"listen": (host_port(pop3, "--pop3"),)}
    return wanted


def serve(context: typer.Context) -> None:
    """Run the server until SIGTERM or Ctrl-C; SIGHUP reads the settings again."""
    settings = settings_of(context)
    warn_of_exposed_password(settings)
    _serve(settings, None)


def _serve(settings: Settings, on_ready: OnReady | None) -> None:
    from restante.service.supervisor import serve as run_server

    try:
        status = run_server(settings, on_ready)
    except ConfigurationError:
        raise
    except OperatorError as error:
        raise ServerUnavailable(str(error)) from error
    raise typer.Exit(status)


def demo(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="The instance, ./demo by default; made if it is missing, used again if not.",
        ),
    ] = "",
    smtp: SmtpOption = "",
    pop3: Pop3Option = "",
) -> None:
    """Make and run an instance to try things on, with mail in it."""
    from restante.cli.welcome import show_around
    from restante.service.listeners import PortTaken

    place = directory or context.obj or DEMO_DIRECTORY
    settings = _demo_settings(place, smtp, pop3)
    administer(settings, lambda admin: _populate(admin, settings))
    try:
        _serve(settings, lambda bound: show_around(settings, bound))
    except ServerUnavailable as error:
        if not isinstance(error.__cause__, PortTaken):
            raise
        raise ServerUnavailable(
            f"{error}, or for this run: {program()} demo --smtp HOST:PORT --pop3 HOST:PORT"
        ) from error


def _demo_settings(directory: str, smtp: str, pop3: str) -> Settings:
    """Of the instance that is there or is made now; options count for this run alone."""
    from restante.cli.creation import create_instance

    environ = dict(os.environ)
    for option, value in (("smtp", smtp), ("pop3", pop3)):
        if value:
            listen = str(host_port(value, f"--{option}"))
            environ[f"RESTANTE_{option.upper()}__LISTEN"] = json.dumps([listen])
    if not os.path.exists(os.path.join(directory, FILE_NAME)):
        create_instance(directory, _overrides(DEMO_HOST, "", "", ""))
    return load(directory, environ)


async def _populate(admin: Administration, settings: Settings) -> None:
    """Add what is missing, so that a second run finds the first one's mail."""
    from restante.address import Address

    if DEMO_DOMAIN not in await admin.domains():
        await admin.add_domain(DEMO_DOMAIN)
    there = {account.name for account in (await admin.mailboxes(DEMO_DOMAIN)).accounts}
    for name in DEMO_MAILBOXES:
        if name not in there:
            await _add_demo_mailbox(admin, settings, Address.parse(name))
    alias = Address.parse(DEMO_ALIAS)
    forwarded = {(entry.address, entry.target) for entry in await admin.aliases(DEMO_DOMAIN)}
    for name in DEMO_MAILBOXES:
        if (DEMO_ALIAS, name) not in forwarded:
            await admin.add_alias((alias.local, alias.domain), Address.parse(name))


async def _add_demo_mailbox(admin: Administration, settings: Settings, address: Address) -> None:
    from restante.auth.schemes import hash_password
    from restante.cli.homes import home_of, mail_owner
    from restante.directory import Account

    owner = mail_owner(settings)
    account = Account(str(address), owner.uid, owner.gid, home_of(settings, address))
    await admin.add_mailbox(address, account, hash_password(DEMO_PASSWORD), "Crypt-Password")
