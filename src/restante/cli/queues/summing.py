"""``restante queue summary``: what waits, added up."""

from __future__ import annotations

import sys
import time
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from restante.address import shown
from restante.cli.output import (
    count,
    human_due,
    human_span,
    print_json,
    print_rows,
    remark,
    timestamp,
)
from restante.cli.queues.record import alone_record
from restante.cli.queues.selecting import lane_name
from restante.queue.selection import By
from restante.queue.summary import Group, groups, largest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from restante.queue.reader import LaneAlone, QueueReader
    from restante.queue.selection import Selection

MOST = 10
"""Lanes, and reasons, of the overview."""


def print_overview(reader: QueueReader, selection: Selection, *, as_json: bool) -> None:
    """The total, and what most of it waits for."""
    ages = list(groups(reader, By.AGE, selection))
    if not ages:
        reader.failures.check()  # or else it would say that nothing waits
    lanes, more_lanes = largest(groups(reader, By.LANE, selection), MOST)
    reasons, more_reasons = largest(groups(reader, By.REASON, selection), MOST)
    if as_json:
        print_json(
            _total(ages)
            | {
                "lanes": _records(reader, By.LANE, lanes),
                "other_lanes": more_lanes,
                "reasons": _records(reader, By.REASON, reasons),
                "other_reasons": more_reasons,
                "ages": _records(reader, By.AGE, ages),
            }
        )
        return
    print(_sentence(ages))
    for by, found, more in (
        (By.LANE, lanes, more_lanes),
        (By.REASON, reasons, more_reasons),
        (By.AGE, ages, 0),
    ):
        if found:
            print()
            _print_table(reader, by, found)
        if more:
            print(f"... and {more} more: restante queue summary --by {by}")


def print_groups(
    reader: QueueReader, by: By, selection: Selection, limit: int, *, as_json: bool
) -> None:
    """The ``limit`` largest groups (0: all), and on standard error whether there are more.

    Of ages all of them, the youngest first.
    """
    found = groups(reader, by, selection)
    kept, more = (list(found), 0) if by is By.AGE else largest(found, limit or sys.maxsize)
    if as_json:
        print_json(_records(reader, by, kept))
    else:
        _print_table(reader, by, kept)
    if more:
        remark(f"these are the largest {limit}, there are {more} more: --limit 0 lists all")


def _sentence(ages: list[Group]) -> str:
    if not ages:
        return "Nothing waits."
    total = reduce(add, ages)
    recipients = count(total.waiting + total.held, "recipient")
    held = f", {total.held} of them held" if total.held else ""
    age = human_span(time.time() - total.oldest)
    return f"{count(total.messages, 'message')} for {recipients}{held}; the oldest came {age} ago."


def _print_table(reader: QueueReader, by: By, found: list[Group]) -> None:
    alone = _left_alone(reader, by, found)
    columns = [by.value, "messages", "waiting", "held", "oldest", "next try"]
    if by is By.LANE:
        columns.append("left alone")
    print_rows(columns, [_row(by, group, alone) for group in found], as_json=False)


def _row(by: By, group: Group, alone: Mapping[str, LaneAlone]) -> list[object]:
    due = group.next_attempt
    cells: list[object] = [
        _key(by, group),
        group.messages,
        group.waiting,
        group.held,
        human_span(time.time() - group.oldest),
        "" if due is None else human_due(due),
    ]
    if by is By.LANE:
        lane = alone.get(group.key)
        cells.append(f"{count(lane.failures, 'failure')}: {lane.why}" if lane else "")
    return cells


def _total(ages: list[Group]) -> dict[str, Any]:
    if not ages:
        return {"messages": 0, "waiting": 0, "held": 0, "oldest": None, "next_attempt": None}
    return _figures(reduce(add, ages))


def _records(reader: QueueReader, by: By, found: list[Group]) -> list[dict[str, Any]]:
    alone = _left_alone(reader, by, found)
    records = [{by.value: _key(by, group)} | _figures(group) for group in found]
    if by is By.LANE:
        for record, group in zip(records, found, strict=True):
            record["left_alone"] = alone_record(alone.get(group.key))
    return records


def _figures(group: Group) -> dict[str, Any]:
    due = group.next_attempt
    return {
        "messages": group.messages,
        "waiting": group.waiting,
        "held": group.held,
        "oldest": timestamp(group.oldest),
        "next_attempt": None if due is None else timestamp(due),
    }


def _left_alone(reader: QueueReader, by: By, found: list[Group]) -> Mapping[str, LaneAlone]:
    return reader.left_alone({group.key for group in found}) if by is By.LANE else {}


def _key(by: By, group: Group) -> str:
    if by is By.LANE:
        return lane_name(group.key)
    return (shown(group.key) or "<>") if by is By.SENDER else group.key
