"""What each mode of the program does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from restante.address_syntax import AddressSyntaxError, check_domain_syntax
from restante.drop import DEFAULT_INSTANCE, DropPaths
from restante.drop.site import Site, SiteUnreadable, read_site
from restante.labels import in_a_labels
from restante.sendmail import NO_INSTANCE, NOT_NOW, Refusal
from restante.sendmail.message import Home, send
from restante.sendmail.options import Mode, parse
from restante.sendmail.source import standard_input

_COMMANDS = {Mode.QUEUE: ("queue", "mailq"), Mode.RETRY: ("queue", "retry", "--all")}
"""The restante command that does the same."""


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the command line says; the exit status. Raises Refusal."""
    options = parse(arguments)
    if options.mode is Mode.ALIASES:
        print("aliases are rows of the database: there is nothing to build")
        return os.EX_OK
    if options.mode in _COMMANDS:
        return _run_restante(_instance(environ), _COMMANDS[options.mode])
    home = home_of(environ)
    if options.mode is Mode.SMTP:
        from restante.sendmail.smtp import converse  # slow to load

        return converse(environ, home)
    send(options, environ, standard_input(), home._replace(site=_named(home.site, environ)))
    return os.EX_OK


def _run_restante(instance: str, command: Sequence[str]) -> int:
    from restante.cli import prepare_streams
    from restante.cli.app import run as run_command  # slow to load

    prepare_streams()
    control = ""
    with suppress(OSError, SiteUnreadable):  # a server has not been there yet
        control = read_site(DropPaths.of(instance).site).control
    return run_command(["--dir", instance, *(("--control", control) if control else ()), *command])


def _named(site: Site, environ: Mapping[str, str]) -> Site:
    """With the names that qmail-inject(8) finds in the environment; raises Refusal."""
    return site._replace(
        defaulthost=_host(environ, "QMAILDEFAULTHOST", site.defaulthost),
        defaultdomain=_host(environ, "QMAILDEFAULTDOMAIN", site.defaultdomain),
        plusdomain=_host(environ, "QMAILPLUSDOMAIN", site.plusdomain),
        me=_host(environ, "QMAILIDHOST", site.me),  # where a Message-ID is made of it
    )


def _host(environ: Mapping[str, str], variable: str, otherwise: str) -> str:
    named = environ.get(variable)
    if not named:
        return otherwise
    try:
        check_domain_syntax(named)
    except (AddressSyntaxError, UnicodeEncodeError) as error:
        raise Refusal(os.EX_CONFIG, f"{variable}: {named[:100]!r} is no host: {error}") from None
    return in_a_labels(named)


def home_of(environ: Mapping[str, str]) -> Home:
    """Where messages are dropped, by the environment; raises Refusal."""
    instance = _instance(environ)
    return Home(DropPaths.of(instance), _site(instance))


def _instance(environ: Mapping[str, str]) -> str:
    return environ.get("RESTANTE_DIR") or DEFAULT_INSTANCE


def _site(instance: str) -> Site:
    try:
        return read_site(DropPaths.of(instance).site)
    except FileNotFoundError:
        text = (
            f"{instance} is no instance of Restante that takes mail from programs; RESTANTE_DIR "
            f"names one, or a link {DEFAULT_INSTANCE} does, and restante serve prepares it"
        )
        raise Refusal(NO_INSTANCE, text) from None
    except SiteUnreadable as error:
        raise Refusal(NO_INSTANCE, str(error)) from None
    except OSError as error:
        text = f"{instance} cannot be read now: {error.strerror}"
        raise Refusal(NOT_NOW, text) from None
