"""What is at hand: messages that are due next, and those that have just been queued.

They need not be looked for on disk, each by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from restante.queue import QueuedMessage
from restante.queue.handout import Selection
from restante.queue.traffic import Limits, Traffic

TRUST = 1.0
"""Seconds after which the database is asked again in any case: somebody may have changed rows
and been killed before the owner of the queue could be told."""
MOST_AT_HAND = 100
"""Messages; with more of them the database is asked."""
MOST_CROWDED = 100
"""Lanes of which more is due than is at hand; with more of them the database is asked."""


class Shortcut:
    """Messages that are due and have no room yet, while it is known what else is due.

    That is known from when the database was asked until something happens of which it is not
    certain that it makes nothing due. So this is closed by whatever is not foreseen; then the
    database is asked, which has all of them.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._at_hand: list[QueuedMessage] = []
        self._crowded: set[str] = set()
        """Lanes of which more is due than is at hand; what comes new has to wait for it."""
        self._seen: set[tuple[str, str]] = set()
        """What the database handed out: it may be quicker to tell of a message than its writer."""
        self._asked = 0.0
        self.next_due = 0.0
        """When something is due that was not yet when the database was asked."""
        self.closings = 0
        """How often something else may have become due."""
        self.ahead = 0
        """How many messages without room are worth reading; more, the longer nothing happens
        by which they were read in vain."""

    def close(self) -> None:
        """Something else may be due."""
        self._forget()
        self.ahead = 0

    def open(
        self,
        asked: float,
        next_due: float,
        selection: Selection,
        handed_out: Sequence[QueuedMessage],
        ahead: Sequence[QueuedMessage],
        closings: int,
    ) -> None:
        """What the database said when it was ``asked``: ``handed_out`` moves, ``ahead`` waits.

        ``closings`` is what it was before; if there were more since, nothing is certain.
        """
        crowded = selection.crowded
        if self.closings == closings and selection.complete and len(crowded) <= MOST_CROWDED:
            self._is_open = True
            self._asked, self.next_due = asked, next_due
            self._at_hand, self._crowded = [*ahead], crowded
            self._seen = {_key(each) for each in (*handed_out, *ahead)}

    def offer(self, messages: Iterable[QueuedMessage]) -> None:
        """Messages that are in the database now, just as they would be read from there."""
        if not self._is_open:
            self.close()
            return
        self._at_hand += [
            each
            for each in messages
            if each.lane not in self._crowded and _key(each) not in self._seen
        ]
        if len(self._at_hand) > MOST_AT_HAND + self.ahead:
            self.close()

    def take(self, now: float, limits: Limits, traffic: Traffic) -> list[QueuedMessage] | None:
        """What is due and has room, in motion from now on; None: the database has to be asked."""
        if not self._holds(now):
            self.close()
            return None
        taken: list[QueuedMessage] = []
        waiting: list[QueuedMessage] = []
        for message in self._at_hand:
            if _has_room(message, limits, traffic):
                traffic.take(message.envelope.queue_id, message.lane)
                taken.append(message)
            else:
                waiting.append(message)
        if any(traffic.room(lane, limits, suspect=False) > 0 for lane in self._crowded):
            for message in taken:
                traffic.release(message.envelope.queue_id, message.lane)
            self._run_dry(used_up=not waiting)
            return None
        self._at_hand = waiting
        return taken

    def _holds(self, now: float) -> bool:
        """Whether what is known is recent, as a clock says that has not gone back since."""
        return (
            self._is_open
            and self._asked <= now < min(self.next_due, self._asked + TRUST)
            and all(message.envelope.received_at <= now for message in self._at_hand)
        )

    def _run_dry(self, *, used_up: bool) -> None:
        """Read more next time, if all that was read was of use."""
        self._forget()
        self.ahead = min(2 * self.ahead + 1, MOST_AT_HAND) if used_up else 0

    def _forget(self) -> None:
        self.closings += 1
        self._is_open = False
        self._at_hand = []
        self._crowded = set()
        self._seen = set()


def _key(message: QueuedMessage) -> tuple[str, str]:
    return message.envelope.queue_id, message.lane


def _has_room(message: QueuedMessage, limits: Limits, traffic: Traffic) -> bool:
    return (
        traffic.may_spread(message.envelope.queue_id, message.lane, limits)
        and traffic.room(message.lane, limits, suspect=False) > 0
    )
