"""What waits in all queues, added up: by lane, domain, sender, reason or age."""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import groupby
from operator import add, attrgetter

from restante.queue import LastAnswer
from restante.queue.reader import QueueReader
from restante.queue.selection import EVERYTHING, LEFT_ALONE, TABLES, By, Selection
from restante.status import Reply

NOT_TRIED = "not tried yet"
"""The reason of what waits for its first attempt."""

AGES = (
    (300.0, "up to 5 minutes"),
    (3600.0, "up to 1 hour"),
    (4 * 3600.0, "up to 4 hours"),
    (86400.0, "up to 1 day"),
    (2 * 86400.0, "up to 2 days"),
    (4 * 86400.0, "up to 4 days"),
    (math.inf, "more than 4 days"),
)
"""The classes of age: seconds, and what they are called."""

_VARIABLE = "..."
"""What stands for the part in which answers that mean the same differ."""
_LONG = 8
"""Characters from which on letters and digits together are taken for the name of a transaction."""
_UNITS = ("s", "m", "h", "sec", "min", "hou")


@dataclass(frozen=True, slots=True)
class Group:
    """Recipients that have something in common."""

    key: str
    """The lane; the domain; the sender, empty for bounces; the reason; the class of age."""
    messages: int
    waiting: int
    """Recipients that are tried again by themselves."""
    held: int
    """Recipients that wait for an operator."""
    oldest: float
    """When the oldest was accepted, in seconds since the epoch."""
    next_attempt: float | None
    """The earliest, in seconds since the epoch; None: nobody waits."""

    def __add__(self, other: Group) -> Group:
        """The same group in two queues, which have no message in common."""
        due = [each for each in (self.next_attempt, other.next_attempt) if each is not None]
        return Group(
            self.key,
            self.messages + other.messages,
            self.waiting + other.waiting,
            self.held + other.held,
            min(self.oldest, other.oldest),
            min(due, default=None),
        )


def groups(reader: QueueReader, by: By, selection: Selection = EVERYTHING) -> Iterator[Group]:
    """The groups in the order of their keys, of ages the youngest first.

    Nothing but one group of each queue is in memory: SQLite sorts on disk what is much. Queues
    that cannot be read are among the reader's failures.
    """
    found = [_groups_of(reader, slot, by, selection) for slot in reader.slots()]
    merged = heapq.merge(*found, key=attrgetter("key"))
    for _, same in groupby(merged, key=attrgetter("key")):
        group: Group = reduce(add, same)
        yield replace(group, key=AGES[int(group.key)][1]) if by is By.AGE else group


def _groups_of(reader: QueueReader, slot: str, by: By, selection: Selection) -> Iterator[Group]:
    with reader.failures.noted(slot), reader.open(slot) as connection:
        yield from _groups(connection, by, selection)


def largest(found: Iterator[Group], most: int) -> tuple[list[Group], int]:
    """The groups of the most recipients, largest first, and how many others there are."""
    kept: list[tuple[int, str, Group]] = []
    others = 0
    for group in found:
        heapq.heappush(kept, (group.waiting + group.held, group.key, group))
        if len(kept) > most:
            heapq.heappop(kept)
            others += 1
    return [group for _, _, group in sorted(kept, key=lambda each: (-each[0], each[1]))], others


_SAID = "json_extract(nullif(r.last, ''), '$.code', '$.topic', '$.text', '$.detail')"
_KEYS = {
    By.LANE: "r.lane",
    # What follows the last @: rtrim takes away all that is not one.
    By.DOMAIN: (
        "lower(substr(r.address, 1 + length(rtrim(r.address, replace(r.address, '@', '')))))"
    ),
    By.SENDER: "coalesce(m.sender_local || '@' || m.sender_domain, '')",
    By.REASON: f"reason({_SAID}, {LEFT_ALONE})",
    By.AGE: " + ".join(f"(r.received_at < now.at - {least})" for least, _ in AGES[:-1]),
}


def _groups(connection: sqlite3.Connection, by: By, selection: Selection) -> Iterator[Group]:
    connection.create_function("reason", 2, _reason, deterministic=True)
    condition, parameters = selection.condition()
    found = connection.execute(
        # Materialized: a key is computed once and not, as by the sorter, again.
        "WITH now AS (SELECT ? AS at), found AS MATERIALIZED ("  # noqa: S608 - constants
        f" SELECT {_KEYS[by]} AS key, r.queue_id, r.state, r.received_at,"
        " max(r.next_attempt, ifnull(l.blocked_until, 0)) AS due"
        f" FROM now, {TABLES} WHERE {condition}"
        ") SELECT key, count(*), sum(waiting), sum(held), min(oldest), min(due) FROM ("
        " SELECT key, sum(state = 'waiting') AS waiting, sum(state = 'held') AS held,"
        " min(received_at) AS oldest, min(iif(state = 'waiting', due, NULL)) AS due"
        " FROM found GROUP BY key, queue_id"
        ") GROUP BY key ORDER BY key",
        (time.time(), *parameters),
    )
    return (Group(str(key), *rest) for key, *rest in found)


@lru_cache(maxsize=4096)
def _reason(said: str | None, left_alone: str | None) -> str:
    """What a recipient waits for, without what differs from one answer to the next."""
    if said is None:
        return left_alone or NOT_TRIED
    code, topic, text, detail = json.loads(said)
    return str(LastAnswer(Reply(code, topic, _common(text)), _common(detail), None, 0.0))


def _common(text: str) -> str:
    words = text.split()
    return " ".join(map(_common_word, words, [*words[1:], ""]))


def _common_word(word: str, following: str) -> str:
    """``word``, unless it is an address, a link, a span of time or the name of a transaction.

    Not by a regular expression: this is done for every answer in the queue.
    """
    if "@" in word or "://" in word:
        return _VARIABLE
    if word[0].isdigit() and _is_span(word, following):
        return _VARIABLE
    if len(word) >= _LONG and not word.isalpha():
        name = word.strip("()[]<>,;:.\"'")
        if len(name) >= _LONG and name.isalnum() and not name.isalpha():
            return word.replace(name, _VARIABLE)
    return word


def _is_span(word: str, following: str) -> bool:
    """``287``, before ``seconds``, or ``287s``."""
    if word.isdigit():
        return following[:3].rstrip(",;.)") in _UNITS
    return word.rstrip("smh,;.)").isdigit() and not word.rstrip(",;.)").isdigit()
