"""The command line as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import restante
from restante.cli import accounts, diagnosis, guesses, instance, queues, submission
from restante.cli.groups import Group
from restante.cli.invocation import Invocation, is_utf8
from restante.cli.status import guarded
from restante.config.load import CONTROL_VARIABLE, DIRECTORY_VARIABLE
from restante.errors import OperatorError

app = typer.Typer(
    name="restante",
    cls=Group,
    help=restante.__doc__,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init")(instance.init)
app.command("serve")(instance.serve)
app.command("demo")(instance.demo)
app.command("check")(diagnosis.check)
app.command("explain")(diagnosis.explain)
app.command("status")(diagnosis.status)
app.add_typer(accounts.domains, name="domain")
app.add_typer(accounts.mailboxes, name="mailbox")
app.add_typer(accounts.aliases, name="alias")
app.add_typer(queues.queue, name="queue")
app.add_typer(submission.submission, name="submission")
app.add_typer(guesses.guesses, name="guesses")


def _version(asked: bool) -> None:
    if asked:
        print(f"restante {restante.__version__}")
        raise typer.Exit


@app.callback()
def restante_command(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Option(
            "--dir",
            "-C",
            metavar="DIR",
            envvar=DIRECTORY_VARIABLE,
            help="The instance directory, which holds restante.toml.",
        ),
    ] = "",
    control: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            envvar=CONTROL_VARIABLE,
            help="A qmail control directory to take settings from, whether or not there is a "
            "restante.toml.",
        ),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Host mail for many domains on one SQL database."""
    context.obj = Invocation(directory, control)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Errors are said on standard error."""
    return guarded(lambda: _run(list(arguments)))


def _run(arguments: list[str]) -> int | None:
    try:
        code: int | None = app(arguments, prog_name="restante")
    except UnicodeEncodeError:
        for argument in arguments:
            if not is_utf8(argument):
                raise OperatorError(f"{argument!r} is not UTF-8") from None
        raise
    return code
