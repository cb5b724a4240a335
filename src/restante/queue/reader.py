"""The queues as an operator sees them, whether the server runs or not."""

from __future__ import annotations

import heapq
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from restante.envelope import Content, Envelope
from restante.errors import reason_of
from restante.queue import (
    QueuedRecipient,
    QueueUnusable,
    RecipientState,
    rows,
)
from restante.queue.bodies import Bodies
from restante.queue.failures import Failures
from restante.queue.schema import BODIES, DATABASE, connect_reader
from restante.queue.selection import EVERYTHING, TABLES, Selection
from restante.queue.slots import is_slot

PAGE = 500
"""Messages that are named in one reading; between two, the server's writer may tidy up."""


@dataclass(frozen=True, slots=True)
class LaneAlone:
    """A lane that is left alone for now, as a whole."""

    name: str
    until: float
    """Seconds since the epoch."""
    failures: int
    """How often that was so in a row."""
    why: str


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A queued message with all of its recipients, the settled ones too."""

    slot: str
    """The worker whose queue it is in."""
    envelope: Envelope
    size: int
    """Octets, with LF line ends."""
    recipients: tuple[QueuedRecipient, ...]
    alone: Mapping[str, LaneAlone]
    """Those of its recipients' lanes that are left alone, by name."""
    selected: frozenset[int]
    """The ids of the recipients that were asked for."""

    @property
    def waiting(self) -> tuple[QueuedRecipient, ...]:
        """The selected recipients that are tried again by themselves."""
        return self._in(RecipientState.WAITING)

    @property
    def held(self) -> tuple[QueuedRecipient, ...]:
        """The selected recipients that wait for an operator."""
        return self._in(RecipientState.HELD)

    def _in(self, state: RecipientState) -> tuple[QueuedRecipient, ...]:
        return tuple(r for r in self.recipients if r.state is state and r.id in self.selected)

    @property
    def next_attempt(self) -> float | None:
        """The earliest of those that wait, in seconds since the epoch; None: nobody does."""
        return min(map(self.due, self.waiting), default=None)

    def due(self, recipient: QueuedRecipient) -> float:
        """When a recipient that waits is tried, its lane permitting; seconds since the epoch."""
        alone = self.alone.get(recipient.target.lane)
        return max(recipient.next_attempt, alone.until) if alone else recipient.next_attempt

    def reason(self, recipient: QueuedRecipient) -> str:
        """Why the recipient is still here: its last answer, or why its lane is left alone."""
        if recipient.last is not None:
            return str(recipient.last)
        alone = self.alone.get(recipient.target.lane)
        return alone.why if alone else ""


class QueueReader:
    """Reads every queue below ``root``, without changing anything. All of it blocks.

    One that cannot be read is passed over, and noted.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.failures = Failures()
        """Of what there is nothing in what was given out."""

    def messages(
        self, selection: Selection = EVERYTHING, limit: int | None = None
    ) -> Iterator[QueueEntry]:
        """The messages with a recipient that is selected, oldest first.

        In memory is one message at a time; what leaves the queue meanwhile is left out.
        """
        entries = [self._entries(slot, selection) for slot in self.slots()]
        return islice(heapq.merge(*entries, key=lambda entry: entry.envelope.queue_id), limit)

    def message(self, queue_id: str) -> QueueEntry | None:
        """The message, or None if no queue has it; raises QueueUnusable if nobody can say."""
        failures = Failures()
        for slot in self.slots():
            with failures.noted(slot), self.open(slot) as connection:
                entry = _entry(connection, slot, queue_id, EVERYTHING)
                if entry is not None:
                    return entry
        failures.check()
        return None

    def content(self, queue_id: str) -> Content | None:
        """What the message says, or None if no queue has it; raises as ``message`` does.

        A large body is a file that goes away when the message leaves the queue.
        """
        failures = Failures()
        for slot in self.slots():
            body = Bodies(os.path.join(self._root, slot, BODIES)).path(queue_id)
            with failures.noted(slot), self.open(slot) as connection:
                loaded = rows.load_message(connection, queue_id, body)
                if loaded is not None:
                    return loaded[1]
        failures.check()
        return None

    def left_alone(self, lanes: set[str]) -> dict[str, LaneAlone]:
        """Those of ``lanes`` that are left alone, by name.

        Where several queues leave one alone: the one that does for longest.
        """
        found: dict[str, LaneAlone] = {}
        for slot in self.slots():
            with self.failures.noted(slot), self.open(slot) as connection:
                for name, alone in _alone(connection, lanes).items():
                    known = found.get(name, alone)
                    found[name] = max(known, alone, key=lambda each: each.until)
        return found

    def slots(self) -> list[str]:
        """The names of the queues; raises QueueUnusable."""
        return queue_names(self._root)

    @contextmanager
    def open(self, slot: str) -> Iterator[sqlite3.Connection]:
        """A connection to one of the queues that cannot write; raises QueueUnusable."""
        directory = os.path.join(self._root, slot)
        check_reach(directory)
        with closing(connect_reader(directory)) as connection:
            try:
                yield connection
            except sqlite3.Error as error:
                path = os.path.join(directory, DATABASE)
                raise QueueUnusable(f"the queue {path} cannot be read: {error}") from error

    def _entries(self, slot: str, selection: Selection) -> Iterator[QueueEntry]:
        with self.failures.noted(slot), self.open(slot) as connection:
            for queue_id in _ids(connection, selection):
                entry = _entry(connection, slot, queue_id, selection)
                if entry is not None and entry.selected:
                    yield entry


def queue_names(root: str) -> list[str]:
    """The directories below ``root`` that hold a queue; raises QueueUnusable."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise QueueUnusable(
            f"the queues in {root} cannot be read: {reason_of(error)}; they are for root and the "
            "server's own user"
        ) from error
    return sorted(name for name in names if _has_queue(root, name))


def _has_queue(root: str, name: str) -> bool:
    try:
        os.stat(os.path.join(root, name, DATABASE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return is_slot(name)  # and not lost+found, say
    return True


def check_reach(directory: str) -> None:
    """Raise QueueUnusable for a queue that may not be looked at, or whose disk fails."""
    try:
        os.stat(os.path.join(directory, DATABASE))
    except FileNotFoundError:
        return  # removed meanwhile
    except OSError as error:
        remedy = f"; {_remedy(directory)}" if isinstance(error, PermissionError) else ""
        raise QueueUnusable(
            f"the queue {directory} cannot be read: {reason_of(error)}{remedy}"
        ) from error


def _remedy(directory: str) -> str:
    """What to do about it, where root's commands are those of the owner of all queues."""
    with suppress(OSError):
        owner = os.stat(os.path.dirname(directory))
        if os.stat(directory).st_uid == 0 != owner.st_uid:  # a backup that root has unpacked
            ids = f"{owner.st_uid}:{owner.st_gid}"
            return f"give it to the server's user: chown -R --no-dereference {ids} {directory}"
    return "it is for root and the server's own user"


def _ids(connection: sqlite3.Connection, selection: Selection) -> Iterator[str]:
    """The messages that have a selected recipient, oldest first, in pages."""
    condition, parameters = selection.condition()
    question = (
        f"SELECT DISTINCT r.queue_id FROM {TABLES} WHERE r.queue_id > ? AND {condition}"  # noqa: S608 - constants
        f" ORDER BY r.queue_id LIMIT {PAGE}"
    )
    last = ""
    while page := connection.execute(question, (last, *parameters)).fetchall():
        yield from (queue_id for (queue_id,) in page)
        (last,) = page[-1]


def _entry(
    connection: sqlite3.Connection, slot: str, queue_id: str, selection: Selection
) -> QueueEntry | None:
    loaded = rows.load_message(connection, queue_id, "", with_body=False)
    recipients = rows.all_recipients(connection, queue_id)
    selected = _selected(connection, queue_id, selection)
    if loaded is None or not recipients:
        return None
    envelope, content = loaded
    alone = _alone(connection, {recipient.target.lane for recipient in recipients})
    return QueueEntry(slot, envelope, content.size, recipients, alone, selected)


def _selected(
    connection: sqlite3.Connection, queue_id: str, selection: Selection
) -> frozenset[int]:
    condition, parameters = selection.condition()
    question = f"SELECT r.id FROM {TABLES} WHERE r.queue_id = ? AND {condition}"  # noqa: S608 - constants
    return frozenset(number for (number,) in connection.execute(question, (queue_id, *parameters)))


def _alone(connection: sqlite3.Connection, lanes: set[str]) -> dict[str, LaneAlone]:
    found = connection.execute(
        "SELECT name, blocked_until, failures, why FROM lane"
        " WHERE name IN (SELECT value FROM json_each(?)) AND blocked_until > ?",
        (json.dumps([*lanes]), time.time()),
    )
    return {row[0]: LaneAlone(*row) for row in found}
