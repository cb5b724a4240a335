"""The queues as an operator sees them, whether the server runs or not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice

from restante.envelope import Content, Envelope
from restante.queue import QueuedRecipient, QueueUnusable, RecipientState, rows
from restante.queue.schema import BODIES, DATABASE, connect_reader


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A queued message with all of its recipients, the settled ones too."""

    slot: str
    """The worker whose queue it is in."""
    envelope: Envelope
    size: int
    """Octets, with LF line ends."""
    next_attempt: float
    """Seconds since the epoch."""
    recipients: tuple[QueuedRecipient, ...]


class QueueReader:
    """Reads every queue below ``root``, without changing anything. All of it blocks."""

    def __init__(self, root: str) -> None:
        self._root = root

    def messages(self, limit: int | None = None) -> Iterator[QueueEntry]:
        """The messages of all queues, oldest first within a queue; raises QueueUnusable."""
        return islice(chain.from_iterable(map(self._entries, self._slots())), limit)

    def message(self, queue_id: str) -> QueueEntry | None:
        """The message, or None if no queue has it; raises QueueUnusable."""
        for slot in self._slots():
            with self._open(slot) as connection:
                entry = _entry(connection, slot, queue_id)
            if entry is not None:
                return entry
        return None

    def content(self, queue_id: str) -> Content | None:
        """What the message says, or None if no queue has it; raises QueueUnusable.

        A large body is a file that goes away when the message leaves the queue.
        """
        for slot in self._slots():
            body = os.path.join(self._root, slot, BODIES, queue_id)
            with self._open(slot) as connection:
                loaded = rows.load_message(connection, queue_id, body)
            if loaded is not None:
                return loaded[1]
        return None

    def _slots(self) -> list[str]:
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise QueueUnusable(f"the queues in {self._root} cannot be read: {error}") from error
        return sorted(name for name in names if os.path.exists(self._path(name, DATABASE)))

    def _entries(self, slot: str) -> Iterator[QueueEntry]:
        with self._open(slot) as connection:
            for queue_id in rows.all_ids(connection):
                entry = _entry(connection, slot, queue_id)
                if entry is not None:
                    yield entry

    @contextmanager
    def _open(self, slot: str) -> Iterator[sqlite3.Connection]:
        with closing(connect_reader(self._path(slot))) as connection:
            try:
                yield connection
            except sqlite3.Error as error:
                path = self._path(slot)
                raise QueueUnusable(f"the queue {path} cannot be read: {error}") from error

    def _path(self, *names: str) -> str:
        return os.path.join(self._root, *names)


def _entry(connection: sqlite3.Connection, slot: str, queue_id: str) -> QueueEntry | None:
    loaded = rows.load_message(connection, queue_id, "", with_body=False)
    recipients = rows.all_recipients(connection, queue_id)
    if loaded is None or not recipients:
        return None
    envelope, content = loaded
    due = min((r.next_attempt for r in recipients if r.state is RecipientState.WAITING), default=0)
    return QueueEntry(slot, envelope, content.size, due, recipients)
