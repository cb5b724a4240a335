"""Commands on what users send: who may send as whom, and how much they have sent."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import astuple
from typing import TYPE_CHECKING, Annotated

import typer

from restante.address import Address, fold
from restante.cli.context import any_address, ask, directory_of, settings_of, stored_text
from restante.cli.groups import Group
from restante.cli.output import AsJson, one_line, print_record, print_rows, remark
from restante.cli.status import ExitCode
from restante.cli.tallies import opened
from restante.errors import OperatorError
from restante.labels import name_forms

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.directory.engine import Engine
    from restante.receiver import Refusal
    from restante.usage.file import AccountUsage, UsageFile

submission = typer.Typer(cls=Group, help="What users send.", no_args_is_help=True)

_COLUMNS = [
    "account",
    "messages_per_hour",
    "messages_per_day",
    "recipients_per_hour",
    "recipients_per_day",
    "limit_reached",
]
_HEADS = [
    "account",
    "messages\nan hour",
    "\na day",
    "recipients\nan hour",
    "\na day",
    "limit\nreached",
]


@submission.command("list")
def list_usage(context: typer.Context, as_json: AsJson = False) -> None:
    """List who has sent mail in the last 24 hours, those first who sent to most recipients."""
    from restante.receiver.limits import limits_of

    settings = settings_of(context)
    limits = limits_of(settings.submission)
    if not limits.any:
        remark("no limit is set in [submission], so nothing is counted")
    found = sorted(_everybody(settings), key=lambda each: -each.spent.recipients_per_day)
    rows = [[each.account, *astuple(each.spent), limits.exceeded(each.spent, 1)] for each in found]
    print_rows(_COLUMNS if as_json else _HEADS, rows, as_json=as_json)


@submission.command("reset")
def reset_usage(
    context: typer.Context,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", show_default=False)],
) -> None:
    """Forget what an account has sent, so that no limit holds it up."""
    names = name_forms(fold(account))  # before the rights are the owner's: Python's files are read
    with _opened(settings_of(context)) as file:
        if file is not None and sum(map(file.reset, names)):
            return
    raise OperatorError(f"{account} has sent nothing in the last 24 hours that was counted")


@submission.command("may")
def may_send(
    context: typer.Context,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", show_default=False)],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say whether an account may send as an address, and what it hears if not."""
    settings = settings_of(context)
    wanted, login = any_address(address), stored_text(account)
    refusal = ask(settings, lambda engine: _refusal(settings, engine, login, wanted))
    answer = {
        "account": account,
        "address": str(wanted),
        "may": refusal is None,
        "reply": str(refusal.reply) if refusal else None,
        "why": refusal.why if refusal else "",
    }
    if as_json:
        print_record(answer, as_json=True)
    else:
        print("yes" if refusal is None else one_line(f"no: {refusal.reply} ({refusal.why})"))
    if refusal is not None and refusal.reply.is_temporary:
        raise typer.Exit(ExitCode.TEMPORARY)


async def _refusal(
    settings: Settings, engine: Engine, login: str, address: Address
) -> Refusal | None:
    """What MAIL of a client that has logged in hears, but for what it has sent so far."""
    from restante.auth.login import account_named
    from restante.receiver.policy import BAD_SENDER, Policy
    from restante.receiver.senders import Senders
    from restante.routing.router import Router

    directory = directory_of(settings, engine)
    account = await account_named(login, directory)
    if account is None:
        raise OperatorError(f"nobody logs in as {login}")
    router = Router(settings.routing, settings.hostname)
    sender = router.qualified(address)
    if Policy(settings.receiver).is_bad_sender(sender):
        return BAD_SENDER
    return await Senders(settings, router, directory).refusal(account, sender)


def _everybody(settings: Settings) -> list[AccountUsage]:
    with _opened(settings) as file:
        return file.everybody(time.time()) if file is not None else []


def _opened(settings: Settings) -> AbstractContextManager[UsageFile | None]:
    from restante.usage.file import FILE_NAME, UsageFile

    return opened(settings, FILE_NAME, lambda path: UsageFile.open(path, create=False))
