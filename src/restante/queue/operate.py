"""What an operator does to mail that waits, whether the server runs or not.

Everything is plain transactions on the queue's database. They are small and apart from each
other, so that a server that has the queue goes on writing, and afterwards the server is told
to look. Where none runs, the next start finds all of it.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import groupby

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Notify
from restante.queue import (
    LastAnswer,
    QueueFailed,
    QueueUnusable,
    RecipientState,
    answers,
    rows,
)
from restante.queue.bodies import Bodies
from restante.queue.failures import Failures
from restante.queue.lanes import settle_lanes
from restante.queue.reader import check_reach, queue_names
from restante.queue.schema import BODIES, connect_reader, connect_writer
from restante.queue.selection import TABLES, Selection
from restante.queue.wake import wake
from restante.status import Reply

CHUNK = 500
"""Recipients that one transaction changes, while the server's writer waits: some 20 ms."""

TELL_INTERVAL = 1.0
"""Seconds between two calls to the server while a long change goes on."""

RETURNED = Reply(554, "0.0", "returned by the operator of this host before it could be delivered")
"""What the sender of a message is told that an operator has returned."""


class Verb(StrEnum):
    """What can be done to recipients that are not settled."""

    RETRY = "retry"
    """Try those that wait now, their lanes too if they are left alone."""
    HOLD = "hold"
    """Try those that wait no more until they are released."""
    RELEASE = "release"
    """Try those that are held, now and from now on, as if they had come now."""
    REMOVE = "remove"
    """Forget them, without a word to the sender."""
    BOUNCE = "bounce"
    """Give them up, and tell the sender if that is wanted (RFC 3461 §4.1)."""

    @property
    def states(self) -> tuple[RecipientState, ...]:
        """The states of those that it is for."""
        return _STATES[self]


_STATES = {
    Verb.RETRY: (RecipientState.WAITING,),
    Verb.HOLD: (RecipientState.WAITING,),
    Verb.RELEASE: (RecipientState.HELD,),
    Verb.REMOVE: (RecipientState.WAITING, RecipientState.HELD),
    Verb.BOUNCE: (RecipientState.WAITING, RecipientState.HELD),
}
_FROM_NOBODY = (
    "iif(reverse_path IS NULL,"
    " (SELECT sender_local IS NULL FROM message WHERE queue_id = recipient.queue_id),"
    " reverse_path = '')"
)
"""Of its failure somebody is told, whatever was asked (see ``wishes.wants``)."""
_CHANGES = {
    Verb.RETRY: "next_attempt = :now",
    Verb.HOLD: "state = 'held'",
    Verb.RELEASE: "state = 'waiting', next_attempt = :now, received_at = :now",
    Verb.REMOVE: "state = 'removed', notice = ''",
    Verb.BOUNCE: (
        "state = 'failed', last = :returned,"
        f" notice = iif({_FROM_NOBODY} OR coalesce(notify & :failure, 1), 'failed', '')"
    ),
}


@dataclass(frozen=True, slots=True)
class Affected:
    """A message, and those of its recipients that something is done to."""

    queue_id: str
    sender: ReversePath
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Recipient:
    id: int
    queue_id: str
    address: str
    sender_local: str | None
    sender_domain: str | None

    @property
    def sender(self) -> ReversePath:
        if self.sender_local is None or self.sender_domain is None:
            return NULL_REVERSE_PATH
        return Address(self.sender_local, self.sender_domain)


class QueueOperator:
    """Changes what is in the queues below ``root`` when this is made. All of it blocks.

    What comes later is left alone, unless it is named by its id: nobody meant it.
    """

    def __init__(self, root: str, now: Callable[[], float] = time.time) -> None:
        """``now``: seconds since the epoch."""
        self._root = root
        self._now = now
        self._began = now()
        self._failures = Failures()
        self.unserved = False
        """A queue was changed that no server has: the next one finds what was done."""
        self.stopped = False
        """``stop`` was called."""

    def matching(self, verb: Verb, selection: Selection) -> Iterator[Affected]:
        """What ``apply`` would change now, oldest first within a queue; raises as that does.

        Changes nothing. A message of many recipients may come in several parts.
        """
        wanted = self._bounded(verb, selection)
        for slot in queue_names(self._root):
            with self._failures.noted(slot), _reading(self._path(slot)) as connection:
                for chunk in _chunks(connection, wanted):
                    yield from _affected(chunk)
        self._failures.check()

    def apply(self, verb: Verb, selection: Selection) -> Generator[Affected]:
        """Do it to the selected recipients that it is for; yields what is done, durably.

        An attempt that is in progress goes on, and may yet deliver. To end early, call ``stop``
        and iterate to the end: what comes then is done already, and nothing else is. A message of
        many recipients may come in several parts. Raises QueueUnusable, or QueueFailed when a
        queue cannot be written to now; behind all that is done in the others. One of which
        ``matching`` could not tell is left alone, though it can be used by now: nobody was asked.
        """
        wanted = self._bounded(verb, selection)
        for slot in queue_names(self._root):
            if not self.stopped and not self._failures.of(slot):
                with self._failures.noted(slot):
                    yield from self._apply(self._path(slot), verb, wanted)
        self._failures.check()

    def stop(self) -> None:
        """End ``apply`` behind what it has begun, all of which it still yields."""
        self.stopped = True

    def _apply(self, directory: str, verb: Verb, selection: Selection) -> Iterator[Affected]:
        bodies = Bodies(os.path.join(directory, BODIES))
        told, untold = -math.inf, False
        lanes: set[str] = set()
        with _writing(directory) as connection:
            try:
                for chunk in _chunks(connection, selection):
                    began = time.monotonic()
                    changed, finished = _change(connection, verb, chunk, self._now())
                    lanes.update(changed.values())
                    ended = time.monotonic()
                    untold = True
                    if ended - told > TELL_INTERVAL:
                        self._tell(directory)
                        told, untold = ended, False
                    for queue_id in finished:
                        bodies.discard(queue_id)
                    yield from _affected([each for each in chunk if each.id in changed])
                    if self.stopped:
                        return
                    time.sleep(ended - began)  # the server's writer has as much of the time
            finally:
                # Only now: the next chunk may be selected by why they are left alone.
                if verb is Verb.RETRY and lanes:
                    _lift(connection, lanes, self._now())
                    untold = True
                if untold:
                    self._tell(directory)

    def _tell(self, directory: str) -> None:
        if not wake(directory):
            self.unserved = True

    def _bounded(self, verb: Verb, selection: Selection) -> Selection:
        wanted = replace(selection, states=verb.states)
        if wanted.ids:
            return wanted
        if wanted.accepted_before is not None:
            return replace(wanted, accepted_before=min(wanted.accepted_before, self._began))
        return replace(wanted, accepted_before=self._began, ahead=self._ahead)

    @cached_property
    def _ahead(self) -> frozenset[str]:
        return frozenset(_ahead(self._root, self._now))

    def _path(self, slot: str) -> str:
        return os.path.join(self._root, slot)


def _ahead(root: str, now: Callable[[], float]) -> Iterator[str]:
    """The messages that came by a clock that was ahead; none of a queue that cannot be read."""
    with suppress(QueueUnusable):
        for slot in queue_names(root):
            with suppress(QueueUnusable, QueueFailed), _reading(os.path.join(root, slot)) as queue:
                # What is seen is what was there before the time is asked: what comes is not ahead.
                queue.execute("BEGIN")
                queue.execute("SELECT 1 FROM recipient LIMIT 1").fetchone()
                found = queue.execute(
                    "SELECT DISTINCT queue_id FROM recipient WHERE received_at > ?", (now(),)
                )
                yield from (queue_id for (queue_id,) in found)


def _chunks(connection: sqlite3.Connection, selection: Selection) -> Iterator[list[_Recipient]]:
    """The selected recipients, CHUNK by CHUNK, each in a reading of its own."""
    condition, parameters = selection.condition()
    question = (
        "SELECT r.id, r.queue_id, r.address, m.sender_local, m.sender_domain"  # noqa: S608 - constants
        f" FROM {TABLES} WHERE (r.queue_id, r.id) > (?, ?) AND {condition}"
        f" ORDER BY r.queue_id, r.id LIMIT {CHUNK}"
    )
    last = ("", 0)
    while True:
        found = connection.execute(question, (*last, *parameters)).fetchall()
        if not found:
            return
        chunk = [_Recipient(*row) for row in found]
        last = (chunk[-1].queue_id, chunk[-1].id)
        yield chunk


def _affected(chunk: Sequence[_Recipient]) -> Iterator[Affected]:
    for queue_id, found in groupby(chunk, key=lambda each: each.queue_id):
        recipients = list(found)
        addresses = tuple(each.address for each in recipients)
        yield Affected(queue_id, recipients[0].sender, addresses)


def _change(
    connection: sqlite3.Connection, verb: Verb, chunk: Sequence[_Recipient], now: float
) -> tuple[dict[int, str], list[str]]:
    """One transaction: whom it changed, with their lanes, and the messages that are gone by it."""
    with _transaction(connection):
        changed = connection.execute(
            f"UPDATE recipient SET {_CHANGES[verb]}"  # noqa: S608 - constants
            " WHERE id IN (SELECT value FROM json_each(:ids))"
            # The number of a recipient that is gone may have been given to another.
            " AND queue_id IN (SELECT value FROM json_each(:messages))"
            " AND state IN (SELECT value FROM json_each(:states))"
            " RETURNING id, queue_id, lane",
            {
                "ids": json.dumps([each.id for each in chunk]),
                "messages": json.dumps([*{each.queue_id for each in chunk}]),
                "states": json.dumps(verb.states),
                "now": now,
                "returned": answers.encode(LastAnswer(RETURNED, "", None, now)),
                "failure": Notify.FAILURE.value,
            },
        ).fetchall()
        settle_lanes(connection, {lane for _, _, lane in changed}, now)
        finished = [
            queue_id
            for queue_id in sorted({queue_id for _, queue_id, _ in changed})
            if rows.settle_message(connection, queue_id, now) is rows.Settled.FINISHED
        ]
    return {number: lane for number, _, lane in changed}, finished


def _lift(connection: sqlite3.Connection, lanes: set[str], now: float) -> None:
    """Leave the lanes alone no more; that they failed so often is remembered."""
    with _transaction(connection):
        connection.execute(
            "UPDATE lane SET blocked_until = 0 WHERE name IN (SELECT value FROM json_each(?))",
            (json.dumps([*lanes]),),
        )
        settle_lanes(connection, lanes, now)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _reading(directory: str) -> Iterator[sqlite3.Connection]:
    check_reach(directory)
    with closing(connect_reader(directory)) as connection, _failures_named(directory):
        yield connection


@contextmanager
def _writing(directory: str) -> Iterator[sqlite3.Connection]:
    check_reach(directory)
    connect_reader(directory).close()  # a queue without tables is its server's to make
    with closing(connect_writer(directory)) as connection, _failures_named(directory):
        yield connection


@contextmanager
def _failures_named(directory: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise QueueFailed(f"the queue {directory} cannot be used now: {error}") from error
