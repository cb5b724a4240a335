"""``restante queue list``: a message is a line or two on a terminal, in a pipe a line of tabs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from restante.address import shown
from restante.cli.output import (
    fit,
    human_due,
    human_size,
    human_span,
    one_line,
    print_json_list,
    remark,
)
from restante.cli.queues.record import entry_record

if TYPE_CHECKING:
    from restante.queue.reader import QueueEntry

TERMINAL_LIMIT = 300
"""Messages that a terminal is shown unless another number is asked for."""
WIDE = 140
"""Columns of a terminal from which on the reason stands in the message's own line."""

REPORTED = "its sender is being told"
"""Why a message is still here that nobody waits for."""

_HEADS = ("ID", "AGE", "SIZE", "NEXT TRY", "SENDER", "RECIPIENTS", "REASON")
_WIDTHS = (19, 7, 4, 10)
"""Columns of the first cells; the others share what is left."""
_GAP = "  "


def print_entries(entries: Iterator[QueueEntry], limit: int | None, *, as_json: bool) -> None:
    """Print at most ``limit`` entries (0: all; None: all but on a terminal), one at a time.

    On standard error it is said if there are more.
    """
    on_terminal = sys.stdout.isatty() and not as_json
    most = limit if limit is not None else TERMINAL_LIMIT if on_terminal else 0
    shown = islice(entries, most) if most else entries
    if as_json:
        print_json_list(entry_record(entry) for entry in shown)
    elif on_terminal:
        _print_table(shown)
    else:
        for entry in shown:
            print("\t".join(map(one_line, _cells(entry, " ".join))))
    if most and next(entries, None) is not None:
        remark(
            f"these are the oldest {most}, there are more: --limit 0 lists all, "
            "restante queue summary counts them"
        )


def reason(entry: QueueEntry) -> str:
    """Why the message is still here: the reason of the recipient that is named first, if any."""
    pending = (*entry.waiting, *entry.held)
    if not pending:
        return REPORTED
    return next(filter(None, map(entry.reason, pending)), "")


def _cells(entry: QueueEntry, joined: Callable[[list[str]], str]) -> tuple[str, ...]:
    """What stands under _HEADS; ``joined`` makes one text of the recipients."""
    envelope, due = entry.envelope, entry.next_attempt
    return (
        envelope.queue_id,
        human_span(time.time() - envelope.received_at),
        human_size(entry.size),
        human_due(due) if due is not None else "held" if entry.held else "",
        shown(str(envelope.reverse_path)) or "<>",
        joined([shown(each.target.address) for each in (*entry.waiting, *entry.held)]),
        reason(entry),
    )


def _print_table(entries: Iterator[QueueEntry]) -> None:
    width = shutil.get_terminal_size().columns
    line = _wide_line if width >= WIDE else _narrow_line
    heads = True
    for entry in entries:
        if heads:
            print(line(_HEADS, width))
        heads = False
        print(line(tuple(map(one_line, _cells(entry, _first))), width))
    if heads:
        print("No message.")


def _wide_line(cells: Sequence[str], width: int) -> str:
    room = width - sum(_WIDTHS) - len(_GAP) * (len(cells) - 1)
    parties = room // 4
    shares = (*_WIDTHS, parties, parties, room - 2 * parties)
    return _aligned(cells, shares)


def _narrow_line(cells: Sequence[str], width: int) -> str:
    *fixed, sender, recipients, why = cells
    room = width - sum(_WIDTHS) - len(_GAP) * len(_WIDTHS)
    indent = " " * _WIDTHS[0]
    below = f"{recipients}: {why}" if recipients and why else recipients or why
    return "\n".join(
        (
            _aligned((*fixed, sender), (*_WIDTHS, max(room, 1))),
            _aligned((indent, below), (len(indent), max(width - len(indent) - len(_GAP), 1))),
        )
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(map(fit, cells, widths)).rstrip()


def _first(recipients: list[str]) -> str:
    """The first address, and how many others there are."""
    first, *others = recipients or [""]
    return f"{first} +{len(others)}" if others else first
