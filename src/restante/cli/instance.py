"""Commands on an instance as a whole: init, serve, demo."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from restante.cli import serving
from restante.cli.context import administer, domain_name, settings_of
from restante.cli.invocation import Invocation
from restante.cli.listening import (
    INITIAL,
    ListenerOptions,
    Pop3Option,
    Pop3sOption,
    SmtpOption,
    SubmissionOption,
    SubmissionsOption,
    usage,
)
from restante.cli.output import program
from restante.cli.status import ServerUnavailable
from restante.config.listeners import setting_of
from restante.config.load import CONTROL_VARIABLE, FILE_NAME, PREFIX, load
from restante.config.tree import Settings
from restante.drop import CONTROL_INSTANCE, DropPaths
from restante.errors import OperatorError

if TYPE_CHECKING:
    from restante.address import Address
    from restante.directory.admin import Administration

DEMO_DIRECTORY = "demo"
DEMO_HOST = "mx.example.com"
DEMO_DOMAIN = "example.com"
DEMO_PASSWORD = "restante"  # noqa: S105 - printed, and good for a loopback address only
DEMO_MAILBOXES = ("iain@example.com", "ann@example.com")
DEMO_ALIAS = "sales@example.com"


def init(
    directory: Annotated[str, typer.Argument(metavar="DIR", show_default=False)] = "",
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
    submission: SubmissionOption = "",
    submissions: SubmissionsOption = "",
    pop3: Pop3Option = "",
    pop3s: Pop3sOption = "",
    from_qmail: Annotated[
        str,
        typer.Option(
            metavar="CONTROL",
            help="Write what a qmail control directory says into restante.toml, and tell what of "
            f"it is left behind. DIR is {CONTROL_INSTANCE} by default then.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Make a new instance: DIR/restante.toml, its database, and a self-signed certificate."""
    from restante.cli.creation import create_instance

    listeners = ListenerOptions(smtp, submission, submissions, pop3, pop3s)
    wanted = _overrides(host, database, listeners)
    if from_qmail:
        from restante.cli.taking_over import take_over

        take_over(directory or CONTROL_INSTANCE, from_qmail, wanted)
        return
    if not directory:
        raise typer.BadParameter("name the directory of the new instance", param_hint="DIR")
    settings = create_instance(directory, wanted)
    restante = f"{program()} --dir {shlex.quote(directory)}"
    print(
        f"{settings.directory} is ready. Next:\n"
        f"  {restante} domain add example.com\n"
        f"  {restante} mailbox add iain@example.com\n"
        f"  {restante} check\n"
        f"  {restante} serve\n"
        f"Its settings are explained in {os.path.join(directory, FILE_NAME)}."
    )


def _overrides(
    host: str, database: str, listeners: ListenerOptions
) -> dict[str, dict[str, object]]:
    wanted: dict[str, dict[str, object]] = {}
    if host:
        wanted["server"] = {"me": domain_name(host)}
    if database:
        wanted["database"] = {"url": database}
    for name, address in INITIAL.items():
        section, setting = setting_of(name)
        wanted.setdefault(section, {})[setting] = (address,)
    for section, setting, value in listeners.settings():
        wanted.setdefault(section, {})[setting] = value
    return wanted


def serve(context: typer.Context) -> None:
    """Run the server until SIGTERM or Ctrl-C; SIGHUP reads the settings again."""
    raise typer.Exit(serving.serve(settings_of(context)))


def demo(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="The instance, ./demo by default, or RESTANTE_DIR; made if it is missing, used "
            "again if it is a demo's, and refused if it is any other.",
        ),
    ] = "",
    smtp: SmtpOption = "",
    submission: SubmissionOption = "",
    submissions: SubmissionsOption = "",
    pop3: Pop3Option = "",
    pop3s: Pop3sOption = "",
) -> None:
    """Make and run an instance to try things on, with mail in it.

    Settings in the environment, which are a site's, do not count.
    """
    from restante.cli.welcome import show_around
    from restante.service.listeners import PortTaken

    asked: Invocation = context.obj
    place = directory or asked.directory or DEMO_DIRECTORY
    listeners = ListenerOptions(smtp, submission, submissions, pop3, pop3s)
    settings = _demo_settings(place, listeners)
    administer(settings, lambda admin: _populate(admin, settings))
    try:
        status = serving.serve(settings, lambda bound: show_around(settings, bound))
    except ServerUnavailable as error:
        if not isinstance(error.__cause__, PortTaken):
            raise
        raise ServerUnavailable(f"{error}, or for this run: {program()} demo {usage()}") from error
    raise typer.Exit(status)


def _demo_settings(directory: str, listeners: ListenerOptions) -> Settings:
    """Of the instance that is there or is made now; options count for this run alone."""
    from restante.cli.creation import create_instance

    _forget_the_site()
    environ = {**os.environ, **listeners.environment()}
    if os.path.exists(os.path.join(directory, FILE_NAME)):
        settings = load(directory, environ)
        if settings.hostname != DEMO_HOST:
            raise _not_a_demo(f"{directory} is the instance of {settings.hostname}")
        return settings
    if os.path.exists(DropPaths.of(directory).site):
        raise _not_a_demo(f"{directory} is an instance without {FILE_NAME}")
    create_instance(directory, _overrides(DEMO_HOST, "", ListenerOptions()))
    return load(directory, environ)


def _forget_the_site() -> None:
    """The database that the environment names, among other things, is no demo's."""
    settings = {name for name in os.environ if name.startswith(PREFIX) and "__" in name}
    for name in settings | {CONTROL_VARIABLE}:
        os.environ.pop(name, None)


def _not_a_demo(why: str) -> OperatorError:
    """Everybody knows the password of the accounts that a demo has."""
    return OperatorError(
        f"{why}, not a demo's; nothing was changed; name another: {program()} demo --dir DIR"
    )


async def _populate(admin: Administration, settings: Settings) -> None:
    """Add what is missing, so that a second run finds the first one's mail."""
    from restante.address import Address

    domains = await admin.domains()
    if domains and DEMO_DOMAIN not in domains:
        raise _not_a_demo(f"the database has domains of its own ({domains[0]})")
    if not domains:
        await admin.add_domain(DEMO_DOMAIN)
    there = {
        account.name async for some in admin.mailboxes(DEMO_DOMAIN) for account in some.accounts
    }
    for name in DEMO_MAILBOXES:
        if name not in there:
            await _add_demo_mailbox(admin, settings, Address.parse(name))
    alias = Address.parse(DEMO_ALIAS)
    forwarded = {
        (entry.address, entry.target) async for some in admin.aliases(DEMO_DOMAIN) for entry in some
    }
    for name in DEMO_MAILBOXES:
        if (DEMO_ALIAS, name) not in forwarded:
            await admin.add_alias((alias.local, alias.domain), Address.parse(name))


async def _add_demo_mailbox(admin: Administration, settings: Settings, address: Address) -> None:
    from restante.auth.schemes import hash_password
    from restante.cli.accounts import PASSWORD_TYPE
    from restante.cli.homes import home_of, mail_owner
    from restante.directory import Account

    owner = mail_owner(settings)
    account = Account(str(address), owner.uid, owner.gid, home_of(settings, address))
    await admin.add_mailbox(address, account, hash_password(DEMO_PASSWORD), PASSWORD_TYPE)
