"""Commands on the queue: mail that waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from restante.cli.context import settings_of
from restante.cli.groups import Group
from restante.cli.output import AsJson, have_ready, one_line
from restante.cli.queues.selecting import (
    All,
    Filters,
    Ids,
    LaneFilter,
    NewerFilter,
    OlderFilter,
    ReasonFilter,
    SenderFilter,
    StateFilter,
    ToFilter,
    not_found,
)
from restante.errors import OperatorError
from restante.queue.selection import By

if TYPE_CHECKING:
    from restante.queue.reader import QueueReader

queue = typer.Typer(
    cls=Group,
    help="Mail that has to wait.",
    epilog=(
        "Who knows another mail system: mailq, postqueue -p, exim -bp are list and summary;"
        " postcat, exim -Mvh: show; postqueue -f, exim -qff: retry --all; postqueue -s SITE:"
        " retry --to SITE; postsuper -h, -H, -d, exim -Mf, -Mt, -Mrm: hold, release, remove;"
        " exim -Mg: bounce."
    ),
    no_args_is_help=True,
)

MAX_LIMIT = 10**9
"""More than any queue has, and less than islice() takes."""

DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Grouping = Annotated[
    By | None,
    typer.Option(
        "--by",
        metavar="WHAT",
        show_default=False,
        help="Group by lane, domain, sender, reason or age alone, and show more groups.",
    ),
]
ListLimit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=0, max=MAX_LIMIT, show_default=False,
        help="Messages at most, 0: all; 300 on a terminal, all elsewhere if not given.",
    ),
]  # fmt: skip
GroupLimit = Annotated[
    int,
    typer.Option(
        "--limit", metavar="N", min=0, max=MAX_LIMIT, help="Groups at most with --by; 0: all."
    ),
]
T = TypeVar("T")


@queue.command("list")
def list_messages(
    context: typer.Context,
    sender: SenderFilter = None,
    to: ToFilter = None,
    lane: LaneFilter = None,
    older: OlderFilter = None,
    newer: NewerFilter = None,
    reason: ReasonFilter = None,
    state: StateFilter = None,
    limit: ListLimit = None,
    as_json: AsJson = False,
) -> None:
    """List messages, the oldest first, and why they wait."""
    from restante.cli.queues.listing import print_entries

    filters = Filters(sender, to, lane, older, newer, reason, state)
    selection = filters.selection()
    with _reading(context) as reader:
        print_entries(reader.messages(selection), limit, as_json=as_json)
        reader.failures.check()


@queue.command("summary")
def summarize(
    context: typer.Context,
    by: Grouping = None,
    sender: SenderFilter = None,
    to: ToFilter = None,
    lane: LaneFilter = None,
    older: OlderFilter = None,
    newer: NewerFilter = None,
    reason: ReasonFilter = None,
    state: StateFilter = None,
    limit: GroupLimit = 50,
    as_json: AsJson = False,
) -> None:
    """Add up what waits: where to, why, since when."""
    from restante.cli.queues.summing import print_groups, print_overview

    selection = Filters(sender, to, lane, older, newer, reason, state).selection()
    with _reading(context) as reader:
        if by is None:
            print_overview(reader, selection, as_json=as_json)
        else:
            print_groups(reader, by, selection, limit, as_json=as_json)
        reader.failures.check()


@queue.command("mailq")
def print_as_mailq(context: typer.Context) -> None:
    """List messages in the form of mailq, for tools that read it."""
    from restante.queue.mailq import mailq

    with _reading(context) as reader:
        for line in mailq(reader):
            print(one_line(line))
        reader.failures.check()


@queue.command("show")
def show_message(
    context: typer.Context,
    message: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    headers: Annotated[
        bool, typer.Option("--headers", help="Print the message's header, as it is.")
    ] = False,
    body: Annotated[bool, typer.Option("--body", help="Print its body, as it is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a message: its envelope and its attempts."""
    from restante.cli.output import print_json
    from restante.cli.queues.record import entry_record
    from restante.cli.queues.showing import print_content, print_entry

    if as_json and (headers or body):
        raise typer.BadParameter("--json does not go with --headers and --body")
    with _reading(context) as reader:
        if headers or body:
            print_content(_found(message, reader.content(message)), headers=headers, body=body)
            return
        entry = _found(message, reader.message(message))
    if as_json:
        print_json(entry_record(entry))
    else:
        print_entry(entry)


def _changing(verb: str, help_text: str) -> None:
    """A command that can be undone by another."""

    @queue.command(verb, help=help_text)
    def change(
        context: typer.Context,
        ids: Ids = None,
        sender: SenderFilter = None,
        to: ToFilter = None,
        lane: LaneFilter = None,
        older: OlderFilter = None,
        newer: NewerFilter = None,
        reason: ReasonFilter = None,
        everything: All = False,
        dry_run: DryRun = False,
    ) -> None:
        filters = Filters(sender, to, lane, older, newer, reason)
        _carry_out(context, verb, ids, filters, everything=everything, dry_run=dry_run, yes=True)


def _ending(verb: str, help_text: str) -> None:
    """A command that cannot be undone, and asks."""

    @queue.command(verb, help=help_text)
    def end(
        context: typer.Context,
        ids: Ids = None,
        sender: SenderFilter = None,
        to: ToFilter = None,
        lane: LaneFilter = None,
        older: OlderFilter = None,
        newer: NewerFilter = None,
        reason: ReasonFilter = None,
        everything: All = False,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        filters = Filters(sender, to, lane, older, newer, reason)
        _carry_out(
            context, verb, ids, filters, everything=everything, dry_run=dry_run,
            yes=yes or bool(ids),
        )  # fmt: skip


_changing("retry", "Try what waits now, even in a lane that is left alone.")
_changing("hold", "Keep messages from being tried until they are released.")
_changing("release", "Let messages that are held go on, as if they came now.")
_ending("remove", "Remove messages without a word to the sender.")
_ending("bounce", "Return messages to their senders, with a report.")


def _carry_out(
    context: typer.Context,
    verb: str,
    ids: list[str] | None,
    filters: Filters,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    from restante.cli.queues.acting import Order, carry_out
    from restante.cli.queues.journal import journal
    from restante.queue.operate import QueueOperator, Verb

    if everything and (ids or filters.given):
        raise typer.BadParameter("--all goes with neither ids nor filters")
    if not (everything or ids or filters.given):
        raise typer.BadParameter(
            f"say which messages to {verb}: ids, as list and summary show them; or a filter "
            "(--to, --sender, --older, --reason, ...); or --all"
        )
    order = Order(Verb(verb), filters.selection(ids), dry_run, confirmed=yes)
    operator = QueueOperator(_root(context))
    with journal(settings_of(context)) as note, _reading(context) as reader:
        carry_out(operator, reader, order, note)


def _found(queue_id: str, thing: T | None) -> T:
    if thing is None:
        raise OperatorError(not_found(queue_id))
    return thing


def _root(context: typer.Context) -> str:
    settings = settings_of(context)
    return settings.path(settings.queue.root)


@contextmanager
def _reading(context: typer.Context) -> Iterator[QueueReader]:
    """The queues, with no more rights meanwhile than who owns them: what lies there, rows of the
    database too, may be a trap for root."""
    from restante.queue.reader import QueueReader
    from restante.tally.owner import as_owner

    have_ready()  # before the rights are the owner's: Python's files are read
    root = _root(context)
    with as_owner(root):
        yield QueueReader(root)
