"""Commands on guessing: what counts against whom, and an end to it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from restante.address import fold
from restante.cli.context import settings_of
from restante.cli.groups import Group
from restante.cli.output import AsJson, print_rows, timestamp
from restante.cli.tallies import opened
from restante.errors import OperatorError
from restante.labels import name_forms

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.guessing.file import Guessed, GuessFile

guesses = typer.Typer(cls=Group, help="Wrong passwords that count.", no_args_is_help=True)

_COLUMNS = ["account", "network", "guesses", "last"]


@guesses.command("list")
def list_guesses(context: typer.Context, as_json: AsJson = False) -> None:
    """List the distinct wrong passwords that count now, by account and network, most first."""
    found = _guessed(settings_of(context))
    rows = [[each.account, each.network, each.guesses, timestamp(each.last)] for each in found]
    print_rows(_COLUMNS, rows, as_json=as_json)


@guesses.command("clear")
def clear_guesses(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="An account, a login, an address or a network.", show_default=False
        ),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Forget wrong passwords for an account or from a network, so that it is heard again."""
    if bool(name) == everything:
        raise typer.BadParameter("name an account or a network, or say --all", context)
    if not _clear(settings_of(context), name) and name:
        raise OperatorError(f"no wrong password counts for or from {name}")


def _guessed(settings: Settings) -> list[Guessed]:
    with _opened(settings) as file:
        return file.guessed(time.time()) if file is not None else []


def _clear(settings: Settings, name: str) -> int:
    """Forget what concerns ``name``, or everything if it is empty; how many."""
    keys = _keys(name)  # before the rights are the owner's: Python's files are read
    with _opened(settings) as file:
        if file is None:
            return 0
        return sum(map(file.clear, keys)) if name else file.clear_all()


def _keys(name: str) -> tuple[str, ...]:
    """As it may stand in the file: accounts folded, IPv6 networks in their shortest form."""
    import ipaddress

    from restante.network import network_of

    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return (network_of(name).narrow,)
    try:
        return (str(ipaddress.ip_network(name)),)
    except ValueError:
        return name_forms(fold(name))


def _opened(settings: Settings) -> AbstractContextManager[GuessFile | None]:
    from restante.guessing.file import FILE_NAME, GuessFile

    return opened(
        settings,
        FILE_NAME,
        lambda path: GuessFile.open(path, settings.auth.guess_window, create=False),
    )
