"""Mail that waits for long, in large numbers, or for the operator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import reduce
from operator import add

from restante.cli.check.findings import Findings
from restante.cli.output import count, human_span
from restante.cli.queues.selecting import lane_name
from restante.config.tree import Settings
from restante.errors import OperatorError
from restante.queue import RecipientState
from restante.queue.bodies import LEFT
from restante.queue.reader import QueueReader
from restante.queue.selection import By, Selection
from restante.queue.summary import Group, groups, largest
from restante.tally.owner import as_owner

LONG = 86400.0
"""Seconds of waiting from which on it is worth a word."""
MANY = 100
"""Messages in a lane that is left alone from which on it is worth a word."""
MAX_LANES = 5
"""Lanes that are named."""


def examine_queues(settings: Settings, findings: Findings) -> None:
    """Add what an operator may want to look at: advice, unless a queue cannot be read."""
    root = settings.path(settings.queue.root)
    reader = QueueReader(root)
    try:
        with as_owner(root):
            for found in (_held(reader), _waiting(reader), _left_alone(reader)):
                findings.advice += found
            findings.advice += _bodies_left(os.path.join(root, LEFT))
        findings.problems += reader.failures.texts
    except OperatorError as error:
        findings.problems.append(str(error))


def _held(reader: QueueReader) -> Iterator[str]:
    held = _total(reader, Selection(states=(RecipientState.HELD,)))
    if held:
        yield f"{_amount(held)} held by an operator: restante queue list --state held"


def _waiting(reader: QueueReader) -> Iterator[str]:
    long_ago = time.time() - LONG
    waiting = _total(reader, Selection(states=(RecipientState.WAITING,), accepted_before=long_ago))
    if waiting:
        yield f"{_amount(waiting)} waiting for more than a day: restante queue summary --older 1d"


def _left_alone(reader: QueueReader) -> Iterator[str]:
    lanes, _ = largest(groups(reader, By.LANE), MAX_LANES)
    alone = reader.left_alone({lane.key for lane in lanes})
    for lane in lanes:
        if lane.key in alone and lane.messages >= MANY:
            name, why = lane_name(lane.key), alone[lane.key].why
            yield (
                f"{_amount(lane)} waiting for {name}, which is left alone ({why}): "
                f"restante queue retry --lane {name} tries it now"
            )


def _bodies_left(left: str) -> Iterator[str]:
    number = len(os.listdir(left)) if os.path.isdir(left) else 0
    if number:
        yield (
            f"{left} has {count(number, 'file')} of large messages that no queue names: mail, if a"
            " queue.db is an older copy that was put back"
        )


def _total(reader: QueueReader, selection: Selection) -> Group | None:
    ages = list(groups(reader, By.AGE, selection))
    return reduce(add, ages) if ages else None


def _amount(group: Group) -> str:
    verb = "is" if group.messages == 1 else "are"
    age = human_span(time.time() - group.oldest)
    return f"{count(group.messages, 'message')} (the oldest came {age} ago) {verb}"
