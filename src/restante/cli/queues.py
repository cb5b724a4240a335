"""Commands on the queue: mail that waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restante.cli.context import settings_of
from restante.cli.output import (
    AsJson,
    human_due,
    human_size,
    human_span,
    one_line,
    print_json,
    print_record,
    print_rows,
    timestamp,
)
from restante.errors import OperatorError

if TYPE_CHECKING:
    from restante.queue import QueuedRecipient
    from restante.queue.reader import QueueEntry, QueueReader

queue = typer.Typer(help="Mail that has to wait.", no_args_is_help=True)

_COLUMNS = ["id", "age", "size", "sender", "waiting", "next attempt"]


@queue.command("list")
def list_queue(context: typer.Context, as_json: AsJson = False) -> None:
    """List the messages: id, age, size, sender, recipients that wait, next attempt."""
    entries = list(_reader(context).messages())
    if as_json:
        print_json([_record(entry) for entry in entries])
    else:
        print_rows(_COLUMNS, [_row(entry) for entry in entries], as_json=False)


@queue.command("show")
def show_message(
    context: typer.Context,
    message: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a message: its envelope, and how the attempts for each recipient went."""
    entry = _reader(context).message(message)
    if entry is None:
        raise OperatorError(
            f"no queue has a message {message!r}; it may have been delivered by now"
        )
    if as_json:
        print_json(_record(entry))
        return
    envelope = entry.envelope
    print_record(
        {
            "id": envelope.queue_id,
            "sender": envelope.reverse_path.to_path(),
            "received": f"{timestamp(envelope.received_at)}, "
            f"{human_span(time.time() - envelope.received_at)} ago",
            "size": human_size(entry.size),
            "queue": entry.slot,
        },
        as_json=False,
    )
    for recipient in entry.recipients:
        print(one_line(_recipient_line(recipient)))


def _reader(context: typer.Context) -> QueueReader:
    from restante.queue.reader import QueueReader

    settings = settings_of(context)
    return QueueReader(settings.path(settings.queue.root))


def _waiting(entry: QueueEntry) -> list[QueuedRecipient]:
    return [recipient for recipient in entry.recipients if recipient.state == "waiting"]


def _row(entry: QueueEntry) -> list[object]:
    envelope = entry.envelope
    return [
        envelope.queue_id,
        human_span(time.time() - envelope.received_at),
        human_size(entry.size),
        envelope.reverse_path.to_path(),
        " ".join(recipient.target.address for recipient in _waiting(entry)),
        human_due(entry.next_attempt),
    ]


def _recipient_line(recipient: QueuedRecipient) -> str:
    parts = [f"  {recipient.target.address}: {recipient.state}"]
    if recipient.state == "waiting":
        parts.append(f"next attempt {human_due(recipient.next_attempt)}")
    if recipient.attempts:
        parts.append(f"attempts {recipient.attempts}")
    if recipient.last:
        parts.append(str(recipient.last))
    return "; ".join(parts)


def _record(entry: QueueEntry) -> dict[str, Any]:
    envelope = entry.envelope
    return {
        "id": envelope.queue_id,
        "queue": entry.slot,
        "sender": str(envelope.reverse_path),
        "received": timestamp(envelope.received_at),
        "size": entry.size,
        "next_attempt": timestamp(entry.next_attempt) if _waiting(entry) else None,
        "recipients": [_recipient_record(recipient) for recipient in entry.recipients],
    }


def _recipient_record(recipient: QueuedRecipient) -> dict[str, Any]:
    return {
        "address": recipient.target.address,
        "instruction": recipient.target.instruction or None,
        "via": list(recipient.target.via),
        "state": recipient.state.value,
        "attempts": recipient.attempts,
        "next_attempt": timestamp(recipient.next_attempt) if recipient.state == "waiting" else None,
        "last_reply": str(recipient.last) if recipient.last else None,
    }
